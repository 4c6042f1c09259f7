//! What comes before and after drawing over a picture: A1111's options of inpainting, and extending the canvas. The
//! request becomes one that the loop knows (picture and mask of the size that is drawn), and what is drawn is put back.

use super::pixels::Bytes;
use super::request::{Control, GenerateOptions, InpaintArea, MaskedContent, Outpaint, Picture};
use crate::error::{Error, Result};

/// What is done with the pictures when they are drawn.
pub(super) struct Repaint {
    /// The picture as it was (or its canvas, extended).
    image: Bytes,
    /// 255 where it is replaced, 0 where it stays.
    overlay: Bytes,
    /// Column, row, width and height of what was drawn.
    area: [usize; 4],
}

/// A request with a mask as the loop takes it, and what follows.
pub(super) struct Prepared {
    /// Picture and mask of the size that is drawn.
    pub image: Picture,
    pub mask: Picture,
    pub controls: Vec<Control>,
    /// Fill has been done.
    pub content: Option<MaskedContent>,
    pub repaint: Repaint,
}

/// Cuts, fills and masks the picture of a request that draws `width` x `height`; `None` for a request without mask.
/// `padding`: pixels around the mask that are drawn too where it alone is.
///
/// # Errors
/// `invalid-option` for options that do not go together, and a mask of another size than its picture.
pub(super) fn prepare(options: &GenerateOptions, size: [u32; 2], padding: usize) -> Result<Option<Prepared>> {
    let (Some(image), true) = (&options.image, options.mask_image.is_some() != options.outpaint.is_some())
    else {
        return without_mask(options).map(|()| None);
    };
    image.check("image")?;
    if !(0.0..=1024.0).contains(&options.mask_blur) {
        return Err(Error::invalid(format!(
            "maskBlur = {}: choose a number of pixels from 0 to 1024.",
            options.mask_blur
        )));
    }
    let (image, mask, content) = match (options.outpaint, &options.mask_image) {
        (Some(margins), _) => {
            let (canvas, mask) = extended(image, margins, options, size)?;
            (canvas, mask, options.masked_content.or(Some(MaskedContent::Fill)))
        }
        (None, Some(mask)) => {
            check_mask(mask, image)?;
            (Bytes::of(image), Bytes::grey(mask), options.masked_content)
        }
        (None, None) => return Ok(None),
    };
    cut(options, size, padding, image, wanted(mask, options)).map(|cut| Some(cut.filled(content)))
}

/// The mask as the request turns and blurs it.
fn wanted(mut mask: Bytes, options: &GenerateOptions) -> Bytes {
    if options.invert_mask {
        mask.data.iter_mut().for_each(|v| *v = 255 - *v);
    }
    if options.mask_blur > 0.0 { mask.blurred(options.mask_blur) } else { mask }
}

fn check_mask(mask: &Picture, image: &Picture) -> Result<()> {
    mask.check("maskImage")?;
    if (mask.width, mask.height) != (image.width, image.height) {
        return Err(Error::invalid(format!(
            "maskImage is {}x{}; it must be as large as image, {}x{}.",
            mask.width, mask.height, image.width, image.height
        )));
    }
    Ok(())
}

/// The part of a picture that is drawn.
struct Cut {
    part: Bytes,
    mask: Bytes,
    controls: Vec<Control>,
    repaint: Repaint,
}

fn cut(
    options: &GenerateOptions,
    [width, height]: [u32; 2],
    padding: usize,
    image: Bytes,
    mask: Bytes,
) -> Result<Cut> {
    let mut area = [0, 0, image.w, image.h];
    let (mut part, mut part_mask) = (image.clone(), mask.clone());
    let mut controls = options.controlnets.clone();
    if options.inpaint_area == InpaintArea::Masked {
        let (w, h) = (width as usize, height as usize);
        if w == 0 || h == 0 {
            return Err(Error::invalid("width and height must be at least 8."));
        }
        area = region(&mask, padding, w, h).ok_or_else(|| {
            Error::invalid("maskImage is black: nothing of image is to be redrawn. Paint white what is.")
        })?;
        let [x, y, crop_w, crop_h] = area;
        part = image.crop(x, y, crop_w, crop_h).resized(w, h);
        for control in &mut controls {
            // As the picture is cut, so is what ControlNets see of it.
            control.image.check("image of controlnets")?;
            let whole = Bytes::of(&control.image).resized(image.w, image.h);
            control.image = whole.crop(x, y, crop_w, crop_h).picture();
        }
        part_mask = mask.crop(x, y, crop_w, crop_h).resized(w, h);
    }
    let overlay = match options.inpaint_area {
        // As sharp as diffusers has it.
        _ if options.mask_blur == 0.0 => mask.data.iter().map(|&m| if m >= 128 { 255 } else { 0 }).collect(),
        // A1111 lets the blur reach outwards only: inside, where the latents are new, nothing old shines through.
        InpaintArea::Whole => mask.data.iter().map(|&m| m.saturating_mul(2)).collect(),
        InpaintArea::Masked => mask.data.clone(),
    };
    let repaint = Repaint { overlay: Bytes { data: overlay, ..mask }, image, area };
    Ok(Cut { part, mask: part_mask, controls, repaint })
}

impl Cut {
    fn filled(self, content: Option<MaskedContent>) -> Prepared {
        let Cut { part, mask, controls, repaint } = self;
        let part = if content == Some(MaskedContent::Fill) { part.filled(&mask) } else { part };
        let rgba = mask.data.iter().flat_map(|&m| [m, m, m, 255]).collect();
        let mask = Picture { width: mask.w as u32, height: mask.h as u32, data: rgba };
        Prepared { image: part.picture(), mask, controls, content, repaint }
    }
}

/// # Errors
/// `invalid-option` for options of masks without a mask, and for a canvas to extend that has a mask too.
fn without_mask(options: &GenerateOptions) -> Result<()> {
    if options.outpaint.is_some() {
        return Err(Error::invalid(
            "outpaint extends image, and draws in what is new: give image, and no maskImage.",
        ));
    }
    let set = [
        ("maskBlur", options.mask_blur != 0.0),
        ("invertMask", options.invert_mask),
        ("maskedContent", options.masked_content.is_some()),
        ("inpaintArea", options.inpaint_area != InpaintArea::Whole),
    ];
    match set.iter().find(|(_, set)| *set) {
        Some((name, _)) => {
            Err(Error::invalid(format!("{name} is an option of inpainting: give image and maskImage too.")))
        }
        None => Ok(()),
    }
}

/// The canvas and its mask.
fn extended(
    image: &Picture,
    margins: Outpaint,
    options: &GenerateOptions,
    [width, height]: [u32; 2],
) -> Result<(Bytes, Bytes)> {
    let Outpaint { left, right, top, bottom } = margins;
    if [left, right, top, bottom].iter().any(|m| m % 8 != 0) || left + right + top + bottom == 0 {
        return Err(Error::invalid(
            "outpaint takes left, right, top and bottom, each a multiple of 8 pixels, not all 0.",
        ));
    }
    if options.inpaint_area != InpaintArea::Whole || options.invert_mask {
        return Err(Error::invalid("outpaint draws what is new: leave inpaintArea and invertMask out."));
    }
    let sides = (left + image.width + right, top + image.height + bottom);
    if sides != (width, height) {
        return Err(Error::invalid(format!(
            "image and its margins are {}x{}, where {width}x{height} is to be drawn.",
            sides.0, sides.1
        )));
    }
    let (w, h) = (sides.0 as usize, sides.1 as usize);
    let inside = Bytes::of(image);
    let mut canvas = Bytes { w, h, c: 4, data: vec![255; 4 * w * h] };
    let mut mask = Bytes { w, h, c: 1, data: vec![255; w * h] };
    let kept = Bytes { c: 1, data: vec![0; inside.w * inside.h], ..inside };
    canvas.paste(&inside, left as usize, top as usize);
    mask.paste(&kept, left as usize, top as usize);
    Ok((canvas, mask))
}

/// The rectangle around what is not black and `padding` more, widened to the shape of `w` x `h` as far as the picture
/// goes: A1111's `get_crop_region_v2` and `expand_crop_region`. Column, row, width, height.
fn region(mask: &Bytes, padding: usize, w: usize, h: usize) -> Option<[usize; 4]> {
    let places = || mask.data.iter().enumerate().filter(|(_, m)| **m > 0).map(|(i, _)| i);
    let columns = || places().map(|i| i % mask.w);
    let rows = || places().map(|i| i / mask.w);
    let span = |first: usize, last: usize, len: usize| {
        (first.saturating_sub(padding), (last + 1 + padding).min(len))
    };
    let (x1, x2) = span(columns().min()?, columns().max()?, mask.w);
    let (y1, y2) = span(rows().min()?, rows().max()?, mask.h);
    // A side grows about its middle, and is moved where it would leave the picture.
    let grown = |a: usize, b: usize, wanted: f64, len: usize| {
        let more = (wanted - (b - a) as f64) as usize;
        let size = (b - a + more).min(len);
        let start = a.saturating_sub(more / 2).min(len - size);
        (start, start + size)
    };
    let shape = w as f64 / h as f64;
    let (crop_w, crop_h) = ((x2 - x1) as f64, (y2 - y1) as f64);
    let ((x1, x2), (y1, y2)) = if crop_w / crop_h > shape {
        ((x1, x2), grown(y1, y2, crop_w / shape, mask.h))
    } else {
        (grown(x1, x2, crop_h * shape, mask.w), (y1, y2))
    };
    Some([x1, y1, x2 - x1, y2 - y1])
}

impl Repaint {
    /// The whole picture, with what was drawn in its place; every byte where the mask is 0 is the input's.
    pub fn put_back(&self, drawn: Picture) -> Picture {
        let [x, y, w, h] = self.area;
        let mut over = self.image.clone();
        over.paste(&Bytes::of(&drawn).resized(w, h), x, y);
        let mut out = self.image.clone();
        out.composite(&over, &self.overlay);
        out.picture()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ControlNet that is shown the picture itself sees the part that is redrawn, whatever size its copy has.
    #[test]
    fn what_a_controlnet_sees_is_cut_as_the_picture_is() {
        let (w, h) = (64, 48);
        let places = || (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
        let colours = |(x, y): (u32, u32)| [(x * 4) as u8, (y * 5) as u8, (x ^ y) as u8, 255];
        let white = |(x, y): (u32, u32)| [if (10..30).contains(&x) && y > 30 { 255 } else { 0 }; 4];
        let picture = |data: Vec<u8>| Picture { width: w, height: h, data };
        let image = picture(places().flat_map(colours).collect());
        let control = |image: Picture| Control { image, ..Default::default() };
        let flat = Picture { width: 8, height: 8, data: [9, 9, 9, 255].repeat(64) };
        let options = GenerateOptions {
            mask_image: Some(picture(places().flat_map(white).collect())),
            inpaint_area: InpaintArea::Masked,
            controlnets: vec![control(image.clone()), control(flat)],
            image: Some(image),
            ..Default::default()
        };
        let prepared = prepare(&options, [40, 40], 4).unwrap().unwrap();
        let seen = |i: usize| Bytes::of(&prepared.controls[i].image);
        assert_eq!(seen(0).resized(40, 40).picture(), prepared.image);
        assert_eq!([seen(1).w, seen(1).h], prepared.repaint.area[2..]);
        assert!(seen(1).data.chunks_exact(4).all(|p| p == [9, 9, 9, 255]));
    }
}
