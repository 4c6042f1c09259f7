//! What comes before and after drawing over a picture: A1111's options of inpainting, and extending the canvas. The
//! request becomes one that the loop knows (picture and mask of the size that is drawn), and what is drawn is put back.

use super::pixels::Bytes;
use super::{GenerateOptions, Picture};
use crate::error::{Error, Result};

/// What lies under the mask before it is redrawn: A1111's "masked content".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskedContent {
    /// The colours around, blurred.
    Fill,
    Original,
    /// The seed's noise, in the latents.
    Noise,
    /// Zeros, in the latents.
    Nothing,
}

/// How much of the picture is drawn at the size asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InpaintArea {
    /// All of it.
    #[default]
    Whole,
    /// The smallest rectangle around the mask and `padding` pixels more: cut out, enlarged to width x height, and put
    /// back. The picture may have any size, and keeps it.
    Masked { padding: u32 },
}

/// Pixels by which a picture is extended, multiples of eight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outpaint {
    pub left: u32,
    pub right: u32,
    pub top: u32,
    pub bottom: u32,
}

/// What is done with the pictures when they are drawn.
pub(super) struct Repaint {
    /// The picture as it was (or its canvas, extended).
    image: Bytes,
    /// 255 where it is replaced, 0 where it stays.
    overlay: Bytes,
    /// Column, row, width and height of what was drawn.
    area: [usize; 4],
}

/// The request as the loop takes it, and what follows; `None` for a request without mask.
///
/// # Errors
/// `invalid-option` for options that do not go together, and a mask of another size than its picture.
pub(super) fn prepare(options: &GenerateOptions) -> Result<Option<(GenerateOptions, Repaint)>> {
    let (Some(image), true) = (&options.image, options.mask_image.is_some() != options.outpaint.is_some())
    else {
        return without_mask(options).map(|()| None);
    };
    image.check("image")?;
    let blur = options.mask_blur;
    if !(0.0..=1024.0).contains(&blur) {
        return Err(Error::invalid(format!("maskBlur = {blur}: choose a number of pixels from 0 to 1024.")));
    }
    let mut inner = options.clone();
    let (image, mut mask) = match (options.outpaint, &options.mask_image) {
        (Some(margins), _) => {
            inner.masked_content = options.masked_content.or(Some(MaskedContent::Fill));
            extended(image, margins, options)?
        }
        (None, mask) => {
            let Some(mask) = mask else { return Ok(None) };
            mask.check("maskImage")?;
            if (mask.width, mask.height) != (image.width, image.height) {
                return Err(Error::invalid(format!(
                    "maskImage is {}x{}; it must be as large as image, {}x{}.",
                    mask.width, mask.height, image.width, image.height
                )));
            }
            (Bytes::of(image), Bytes::grey(mask))
        }
    };
    if options.invert_mask {
        mask.data.iter_mut().for_each(|v| *v = 255 - *v);
    }
    if blur > 0.0 {
        mask = mask.blurred(blur);
    }
    let mut area = [0, 0, image.w, image.h];
    let (mut part, mut part_mask) = (image.clone(), mask.clone());
    if let InpaintArea::Masked { padding } = options.inpaint_area {
        let (w, h) = (options.width as usize, options.height as usize);
        area = region(&mask, padding as usize, w, h).ok_or_else(|| {
            Error::invalid("maskImage is black: nothing of image is to be redrawn. Paint white what is.")
        })?;
        let [x, y, crop_w, crop_h] = area;
        part = image.crop(x, y, crop_w, crop_h).resized(w, h);
        for control in &mut inner.controlnets {
            // As the picture is cut, so is what ControlNets see of it.
            control.image.check("image of controlnets")?;
            let whole = Bytes::of(&control.image).resized(image.w, image.h);
            control.image = whole.crop(x, y, crop_w, crop_h).picture();
        }
        part_mask = mask.crop(x, y, crop_w, crop_h).resized(w, h);
    }
    if inner.masked_content == Some(MaskedContent::Fill) {
        part = part.filled(&part_mask);
    }
    let overlay = match options.inpaint_area {
        // As sharp as diffusers has it.
        _ if blur == 0.0 => mask.data.iter().map(|&m| if m >= 128 { 255 } else { 0 }).collect(),
        // A1111 lets the blur reach outwards only: inside, where the latents are new, nothing old shines through.
        InpaintArea::Whole => mask.data.iter().map(|&m| m.saturating_mul(2)).collect(),
        InpaintArea::Masked { .. } => mask.data.clone(),
    };
    let rgba = part_mask.data.iter().flat_map(|&m| [m, m, m, 255]).collect();
    inner.mask_image = Some(Picture { width: part_mask.w as u32, height: part_mask.h as u32, data: rgba });
    inner.image = Some(part.picture());
    Ok(Some((inner, Repaint { overlay: Bytes { data: overlay, ..mask }, image, area })))
}

/// # Errors
/// `invalid-option` for options of masks where there is none, and for a canvas to extend that has a mask too.
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
fn extended(image: &Picture, margins: Outpaint, options: &GenerateOptions) -> Result<(Bytes, Bytes)> {
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
    if sides != (options.width, options.height) {
        return Err(Error::invalid(format!(
            "image and its margins are {}x{}, where {}x{} is to be drawn.",
            sides.0, sides.1, options.width, options.height
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
