//! A1111's options of inpainting, outpainting and hires fix with the model that ships with the page, against diffusers
//! (tests/reference/pictures.py).

use browser_diffusion::Code;
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::{
    DiffusionPipeline, Enlarge, GenerateOptions, Generated, Hires, InpaintArea, LoadOptions, MaskedContent,
    Outpaint, Picture, StrengthSteps,
};
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use serde_json::Value;
use std::rc::Rc;

/// The embedded model in f32, so that only what the engine does otherwise than diffusers counts.
fn load() -> DiffusionPipeline {
    let folder = Rc::new(Folder::new(concat!(env!("CARGO_MANIFEST_DIR"), "/www/embedded")));
    let options = LoadOptions { precision: Precision::F32, ..Default::default() };
    block_on(DiffusionPipeline::load(folder, None, &options, &|| false)).unwrap()
}

fn painted(w: u32, h: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
    let places = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
    let rgba = places.flat_map(|(x, y)| {
        let [r, g, b] = colour(x, y);
        [r, g, b, 255]
    });
    Picture { width: w, height: h, data: rgba.collect() }
}

fn picture(w: u32, h: u32) -> Picture {
    painted(w, h, |x, y| [(x * 4) as u8, (y * 4) as u8, (x * y) as u8])
}

fn mask(w: u32, h: u32) -> Picture {
    let inside = |x, y| x >= w / 3 && x < w * 4 / 5 && y >= h / 5 && y < h * 2 / 3;
    painted(w, h, |x, y| [255 * inside(x, y) as u8; 3])
}

/// The options of a case.
fn options(case: &Value) -> GenerateOptions {
    let o = &case["options"];
    let int = |v: &Value| v.as_u64().map(|n| n as u32);
    let side = |key: &str| int(&o[key]).unwrap();
    let sides = || Some((int(&case["picture"][0])?, int(&case["picture"][1])?));
    let hires = o.get("hires").map(|h| {
        let scaled = |key: &str| {
            int(&h[key]).unwrap_or_else(|| (side(key) as f64 * h["scale"].as_f64().unwrap()) as u32)
        };
        Hires {
            width: scaled("width"),
            height: scaled("height"),
            upscaler: match h["upscaler"].as_str() {
                None => Enlarge::Latent,
                Some("latent-nearest") => Enlarge::LatentNearest,
                Some("latent-bicubic") => Enlarge::LatentBicubic,
                Some("picture") => Enlarge::Picture,
                Some(other) => panic!("{other}"),
            },
            steps: int(&h["steps"]).map(|n| n as usize),
            strength: h["strength"].as_f64().unwrap_or(0.7),
        }
    });
    GenerateOptions {
        prompt: o["prompt"].as_str().unwrap().into(),
        width: side("width"),
        height: side("height"),
        num_inference_steps: side("numInferenceSteps") as usize,
        guidance_scale: o["guidanceScale"].as_f64().unwrap() as f32,
        scheduler: o["scheduler"].as_str().map(str::to_owned),
        seed: o["seed"].as_u64().unwrap(),
        num_images: int(&o["numImages"]).unwrap_or(1) as usize,
        image: sides().map(|(w, h)| picture(w, h)),
        mask_image: sides().filter(|_| case["mask"] == true).map(|(w, h)| mask(w, h)),
        strength: o["strength"].as_f64(),
        strength_steps: match o["strengthSteps"].as_str() {
            Some("a1111") => StrengthSteps::A1111,
            Some("exact") => StrengthSteps::Exact,
            _ => StrengthSteps::Diffusers,
        },
        mask_blur: o["maskBlur"].as_f64().unwrap_or(0.0),
        invert_mask: o["invertMask"] == true,
        masked_content: match o["maskedContent"].as_str() {
            Some("fill") => Some(MaskedContent::Fill),
            Some("original") => Some(MaskedContent::Original),
            Some("noise") => Some(MaskedContent::Noise),
            Some("nothing") => Some(MaskedContent::Nothing),
            _ => None,
        },
        inpaint_area: match o["inpaintArea"].as_str() {
            Some("masked") => InpaintArea::Masked { padding: int(&o["maskPadding"]).unwrap_or(32) },
            _ => InpaintArea::Whole,
        },
        outpaint: o.get("outpaint").map(|m| {
            let side = |key: &str| int(&m[key]).unwrap_or(0);
            Outpaint { left: side("left"), right: side("right"), top: side("top"), bottom: side("bottom") }
        }),
        hires,
        decode: true,
        ..Default::default()
    }
}

fn draw(
    pipeline: &DiffusionPipeline,
    options: &GenerateOptions,
) -> Result<Generated, browser_diffusion::Error> {
    block_on(pipeline.generate(options, &mut |_| Ok(()), &|| false))
}

/// The picture's bytes that may not change: where the mask, blurred by `sigma`, is 0.
fn untouched(options: &GenerateOptions, x: u32, y: u32) -> bool {
    if let Some(m) = options.outpaint {
        let image = options.image.as_ref().unwrap();
        return (m.left..m.left + image.width).contains(&x) && (m.top..m.top + image.height).contains(&y);
    }
    let mask = options.mask_image.as_ref().unwrap();
    let reach = (2.5 * options.mask_blur + 0.5) as u32;
    let redrawn =
        |x: u32, y: u32| (mask.data[4 * (y * mask.width + x) as usize] >= 128) != options.invert_mask;
    let span = |at: u32, len: u32| at.saturating_sub(reach)..=(at + reach).min(len - 1);
    span(y, mask.height).all(|y| span(x, mask.width).all(|x| !redrawn(x, y)))
}

#[test]
fn latents_are_those_of_diffusers_and_the_rest_of_the_picture_stays() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/pictures/cases.json");
    let index: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let pipeline = load();
    for case in index["cases"].as_array().unwrap() {
        let options = options(case);
        let got = draw(&pipeline, &options).unwrap();
        let expected: Vec<f64> =
            case["latents"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let latents: Vec<f64> = got.latents.iter().flatten().map(|&v| v as f64).collect();
        assert_eq!(latents.len(), expected.len(), "{}", case["options"]);
        let off: f64 = latents.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum();
        let error = (off / expected.iter().map(|v| v * v).sum::<f64>()).sqrt();
        println!("latents {error:.1e} {}", case["options"]);
        // Weights and sums of five steps in f32; a pixel of the start that is rounded the other way gives 1e-3.
        assert!(error <= 3e-3, "{error} {}", case["options"]);
        let Some(image) = &options.image else { continue };
        if options.mask_image.is_none() && options.outpaint.is_none() {
            continue;
        }
        let (left, top) = options.outpaint.map_or((0, 0), |m| (m.left, m.top));
        let (mut same, mut changed) = (0, 0);
        for drawn in &got.pictures {
            let whole = match options.outpaint {
                Some(_) => (options.width, options.height),
                None => (image.width, image.height),
            };
            assert_eq!((drawn.width, drawn.height), whole);
            for (i, pixel) in drawn.data.chunks_exact(4).enumerate() {
                let (x, y) = (i as u32 % drawn.width, i as u32 / drawn.width);
                let inside = (x.wrapping_sub(left) < image.width) && (y.wrapping_sub(top) < image.height);
                let from = inside.then(|| {
                    let at = 4 * ((y - top) * image.width + x - left) as usize;
                    &image.data[at..at + 4]
                });
                if untouched(&options, x, y) {
                    assert_eq!(Some(pixel), from, "{x}, {y} of {}", case["options"]);
                    same += 1;
                } else if Some(pixel) != from {
                    changed += 1;
                }
            }
        }
        assert!(same > 100 && changed > 400, "{same} pixels kept, {changed} changed in {}", case["options"]);
    }
}

#[test]
fn options_that_do_not_go_together_are_refused_by_name() {
    let pipeline = load();
    let base = || GenerateOptions {
        width: 64,
        height: 64,
        num_inference_steps: 1,
        num_images: 1,
        ..Default::default()
    };
    let inpaint =
        || GenerateOptions { image: Some(picture(64, 64)), mask_image: Some(mask(64, 64)), ..base() };
    let black = painted(64, 64, |_, _| [0; 3]);
    let margins = |left| Some(Outpaint { left, ..Default::default() });
    let hires = |width, strength| {
        Some(Hires { width, height: 128, upscaler: Enlarge::Latent, steps: None, strength })
    };
    let area = InpaintArea::Masked { padding: 8 };
    let cases = [
        ("maskBlur", GenerateOptions { mask_blur: 4.0, ..base() }),
        ("maskBlur", GenerateOptions { mask_blur: f64::NAN, ..inpaint() }),
        ("invertMask", GenerateOptions { invert_mask: true, ..base() }),
        ("maskedContent", GenerateOptions { masked_content: Some(MaskedContent::Fill), ..base() }),
        ("inpaintArea", GenerateOptions { inpaint_area: area, ..base() }),
        ("black", GenerateOptions { inpaint_area: area, mask_image: Some(black), ..inpaint() }),
        ("maskImage is 64x32", GenerateOptions { mask_image: Some(mask(64, 32)), ..inpaint() }),
        (
            "image is 32x32",
            GenerateOptions { image: Some(picture(32, 32)), mask_image: Some(mask(32, 32)), ..base() },
        ),
        ("outpaint", GenerateOptions { outpaint: margins(8), ..base() }),
        ("outpaint", GenerateOptions { outpaint: margins(8), ..inpaint() }),
        ("multiple of 8", GenerateOptions { outpaint: margins(9), image: Some(picture(55, 64)), ..base() }),
        ("72x64", GenerateOptions { outpaint: margins(8), image: Some(picture(64, 64)), ..base() }),
        ("hires", GenerateOptions { hires: hires(128, 0.7), ..inpaint() }),
        ("width = 100", GenerateOptions { hires: hires(100, 0.7), ..base() }),
        ("strength", GenerateOptions { hires: hires(128, 0.0), num_inference_steps: 5, ..base() }),
        (
            "strength",
            GenerateOptions {
                strength: Some(0.001),
                strength_steps: StrengthSteps::Exact,
                num_inference_steps: 50,
                ..inpaint()
            },
        ),
    ];
    for (word, options) in cases {
        let error = draw(&pipeline, &options).map(|_| ()).unwrap_err();
        assert_eq!(error.code, Code::InvalidOption, "{}", error.message);
        assert!(error.message.contains(word), "{word}: {}", error.message);
    }
}
