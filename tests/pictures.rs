//! A1111's options of inpainting, outpainting and hires fix with the model that ships with the page, against diffusers
//! (tests/reference/pictures.py); ESRGAN against spandrel (tests/reference/upscaler.py).

use browser_diffusion::Code;
use browser_diffusion::gpu::{Options, Recorder};
use browser_diffusion::models::rrdbnet;
use browser_diffusion::named::Named;
use browser_diffusion::ops::Precision;
use browser_diffusion::pipeline::{
    DiffusionPipeline, GenerateOptions, Generated, Hires, InpaintArea, LoadOptions, MaskedContent, Outpaint,
    Output, Picture, Seeds, Settings, StrengthSteps, Upscaler,
};
use browser_diffusion::samplers::NoiseOptions;
use browser_diffusion::store::disk::Folder;
use pollster::block_on;
use serde_json::Value;
use std::collections::BTreeMap;
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

/// What an option's name stands for.
fn named<T: Named>(value: &Value) -> Option<T> {
    let name = value.as_str()?;
    Some(T::NAMES.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name}")).1)
}

/// The options of a case.
fn options(case: &Value) -> GenerateOptions {
    let o = &case["options"];
    let int = |v: &Value| v.as_u64().map(|n| n as u32);
    let side = |key: &str| int(&o[key]);
    let sides = || Some((int(&case["picture"][0])?, int(&case["picture"][1])?));
    let hires = o.get("hires").map(|h| Hires {
        scale: h["scale"].as_f64().unwrap_or(2.0),
        width: int(&h["width"]),
        height: int(&h["height"]),
        upscaler: named(&h["upscaler"]).unwrap_or_default(),
        steps: int(&h["steps"]).map(|n| n as usize),
        strength: h["strength"].as_f64().unwrap_or(0.7),
    });
    GenerateOptions {
        prompt: o["prompt"].as_str().unwrap().into(),
        width: side("width"),
        height: side("height"),
        num_inference_steps: side("numInferenceSteps").map(|n| n as usize),
        guidance_scale: o["guidanceScale"].as_f64().map(|g| g as f32),
        scheduler: o["scheduler"].as_str().map(str::to_owned),
        seed: o["seed"].as_u64().unwrap(),
        num_images: int(&o["numImages"]).map(|n| n as usize),
        image: sides().map(|(w, h)| picture(w, h)),
        mask_image: sides().filter(|_| case["mask"] == true).map(|(w, h)| mask(w, h)),
        strength: o["strength"].as_f64(),
        strength_steps: named(&o["strengthSteps"]).unwrap_or_default(),
        mask_blur: o["maskBlur"].as_f64().unwrap_or(0.0),
        invert_mask: o["invertMask"] == true,
        masked_content: named(&o["maskedContent"]),
        inpaint_area: named(&o["inpaintArea"]).unwrap_or_default(),
        mask_padding: int(&o["maskPadding"]),
        outpaint: o.get("outpaint").map(|m| {
            let side = |key: &str| int(&m[key]).unwrap_or(0);
            Outpaint { left: side("left"), right: side("right"), top: side("top"), bottom: side("bottom") }
        }),
        hires,
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
                Some(_) => (options.width.unwrap(), options.height.unwrap()),
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
        width: Some(64),
        height: Some(64),
        num_inference_steps: Some(1),
        output: Output::Latent,
        ..Default::default()
    };
    let inpaint =
        || GenerateOptions { image: Some(picture(64, 64)), mask_image: Some(mask(64, 64)), ..base() };
    let black = painted(64, 64, |_, _| [0; 3]);
    let margins = |left| Some(Outpaint { left, ..Default::default() });
    let hires = |width, strength| {
        Some(Hires { width: Some(width), height: Some(128), strength, ..Default::default() })
    };
    let area = InpaintArea::Masked;
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
        ("strength", GenerateOptions { hires: hires(128, 0.0), num_inference_steps: Some(5), ..base() }),
        (
            "strength",
            GenerateOptions {
                strength: Some(0.001),
                strength_steps: StrengthSteps::Exact,
                num_inference_steps: Some(50),
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

#[test]
fn what_a_request_leaves_out_comes_back_settled() {
    let pipeline = load();
    let model = pipeline.model().clone();
    let asked = GenerateOptions { num_inference_steps: Some(2), seed: 5, ..Default::default() };
    let drawn = draw(&pipeline, &GenerateOptions { output: Output::Latent, ..asked.clone() }).unwrap();
    let settled = Settings {
        width: model.default_size,
        height: model.default_size,
        num_inference_steps: 2,
        guidance_scale: model.guidance_scale,
        image_guidance_scale: None,
        scheduler: model.scheduler.unwrap().into(),
        strength: None,
    };
    assert_eq!(drawn.settled, settled);
    assert_eq!(drawn.seeds, [Seeds { seed: 5, variation: None }]);

    // A sampler by A1111's name, pictures with seeds of their own, a start.
    let noise = NoiseOptions { variation: Some((9, 0.5)), ..Default::default() };
    let options = GenerateOptions {
        width: Some(64),
        height: Some(64),
        guidance_scale: Some(1.0),
        scheduler: Some("DPM++ 2M Karras".into()),
        num_images: Some(2),
        noise,
        image: Some(picture(64, 64)),
        output: Output::Latent,
        ..asked
    };
    let drawn = draw(&pipeline, &options).unwrap();
    let settled = Settings {
        width: 64,
        height: 64,
        guidance_scale: 1.0,
        scheduler: "dpmpp_2m_karras".into(),
        strength: Some(0.8),
        ..settled
    };
    assert_eq!(drawn.settled, settled);
    assert_eq!(drawn.seeds, [9, 10].map(|v| Seeds { seed: 5, variation: Some(v) }));
    let masked = GenerateOptions { mask_image: Some(mask(64, 64)), ..options };
    assert_eq!(draw(&pipeline, &masked).unwrap().settled.strength, Some(1.0));
}

// ---- the upscaler -------------------------------------------------------------------------------------------

fn upscaler_file(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/upscaler/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

fn upscaler(file: &str) -> Upscaler {
    let bytes = upscaler_file(file);
    block_on(Upscaler::load(&bytes.as_slice(), Precision::F32, &|| false)).unwrap()
}

fn upscale(upscaler: &Upscaler, picture: &Picture) -> (Picture, usize) {
    let mut tiles = 0;
    let mut tile = |_, total| {
        tiles = total;
        Ok(())
    };
    (block_on(upscaler.upscale(picture, &mut tile, &|| false)).unwrap(), tiles)
}

#[test]
fn esrgans_of_every_spelling_enlarge_as_spandrel_does() {
    let index: Value = serde_json::from_slice(&upscaler_file("index.json")).unwrap();
    let expected = upscaler_file("pictures.bin");
    let size = |v: &Value| v.as_u64().unwrap() as usize;
    let given = picture(size(&index["picture"][0]) as u32, size(&index["picture"][1]) as u32);
    for case in index["files"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let upscaler = upscaler(file);
        assert_eq!(upscaler.scale() as usize, size(&case["scale"]), "{file}");
        let got = upscale(&upscaler, &given).0;
        assert_eq!((got.width as usize, got.height as usize), (size(&case["width"]), size(&case["height"])));
        let theirs = &expected[size(&case["offset"])..];
        let mut off = 0;
        for (ours, theirs) in got.data.chunks_exact(4).zip(theirs.chunks_exact(3)) {
            // f32 on both sides: a level where a value lies between two.
            assert!(ours.iter().zip(theirs).all(|(a, b)| a.abs_diff(*b) <= 1), "{file}: {ours:?} {theirs:?}");
            off += ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
        }
        println!("{file}: {off} of {} bytes differ", got.data.len() / 4 * 3);
        assert!(off * 100 <= got.data.len());
    }
}

#[test]
fn tiles_leave_no_seam() {
    // One block sees 20 pixels around, less than tiles overlap: cut anywhere, the result is the same.
    let upscaler = upscaler("x4plus.pth");
    let (w, h) = (700, 24);
    let wide = painted(w, h, |x, y| [(x * 7) as u8, (y * 9) as u8, (x * y) as u8]);
    let (whole, tiles) = upscale(&upscaler, &wide);
    assert!(tiles > 1, "{tiles} tile");
    // A part around where the first tile ends, whole.
    let (from, part_w) = (400, 200);
    let part = painted(part_w, h, |x, y| [((x + from) * 7) as u8, (y * 9) as u8, ((x + from) * y) as u8]);
    let (part, one) = upscale(&upscaler, &part);
    assert_eq!(one, 1);
    for y in 0..4 * h {
        for x in 4 * 24..4 * (part_w - 24) {
            let (a, b) = (4 * (y * whole.width + x + 4 * from) as usize, 4 * (y * part.width + x) as usize);
            let (a, b) = (&whole.data[a..a + 4], &part.data[b..b + 4]);
            assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1), "{x}, {y}: {a:?} {b:?}");
        }
    }
}

#[test]
fn what_is_no_esrgan_is_refused() {
    let load = |bytes: &[u8]| block_on(Upscaler::load(&bytes, Precision::F32, &|| false)).map(|_| ());
    let file = |tensors: &[(&str, &[usize])]| {
        let mut header = serde_json::Map::new();
        let mut at = 0;
        for (name, shape) in tensors {
            let end = at + 4 * shape.iter().product::<usize>();
            header.insert(
                (*name).into(),
                serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}),
            );
            at = end;
        }
        let header = serde_json::to_vec(&header).unwrap();
        [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; at]].concat()
    };
    let cases = [
        ("body.0.weight", file(&[("body.0.weight", &[4, 3, 3, 3])])),
        (
            "input channels",
            file(&[("conv_first.weight", &[8, 5, 3, 3]), ("body.0.rdb1.conv1.weight", &[4, 8, 3, 3])]),
        ),
        ("lacks", file(&[("conv_first.weight", &[8, 3, 3, 3])])),
        ("lacks", file(&[("model.0.weight", &[8, 3, 3, 3])])),
        ("", b"no file of weights".to_vec()),
    ];
    for (word, bytes) in cases {
        let error = load(&bytes).unwrap_err();
        assert!(matches!(error.code, Code::UnsupportedModel | Code::BadCheckpoint), "{}", error.message);
        assert!(error.message.contains(word), "{word}: {}", error.message);
    }
    // Every beginning of a good file is refused too, and none makes it stop.
    let good = upscaler_file("esrgan-old.safetensors");
    for end in (0..good.len()).step_by(good.len() / 40) {
        assert_eq!(load(&good[..end]).unwrap_err().code, Code::BadCheckpoint);
    }
}

#[test]
fn published_upscalers_are_what_their_shapes_say() {
    // Real-ESRGAN x4plus, x2plus and the anime model of 6 blocks.
    for (input, blocks, scale, parameters) in
        [(3, 23, 4, 16_697_987), (12, 23, 2, 16_703_171), (3, 6, 4, 4_467_779)]
    {
        let mut shapes = BTreeMap::new();
        let mut conv = |name: String, input: u64, out: u64| {
            shapes.insert(format!("{name}.weight"), vec![out, input, 3, 3]);
            shapes.insert(format!("{name}.bias"), vec![out]);
        };
        conv("conv_first".into(), input, 64);
        for (i, j, k) in (0..blocks).flat_map(|i| (1..4).flat_map(move |j| (1..6).map(move |k| (i, j, k)))) {
            conv(format!("body.{i}.rdb{j}.conv{k}"), 32 + 32 * k, if k == 5 { 64 } else { 32 });
        }
        for name in ["conv_body", "conv_up1", "conv_up2", "conv_hr"] {
            conv(name.into(), 64, 64);
        }
        conv("conv_last".into(), 64, 3);
        let count: u64 = shapes.values().map(|s| s.iter().product::<u64>()).sum();
        assert_eq!(count, parameters);
        let config = rrdbnet::Config::of(&shapes).unwrap();
        assert_eq!(config.scale(), scale);
        // Every weight of the plan has its piece, of the right size.
        let mut r = Recorder::new(&Options::default());
        let picture = r.input(1, 192, 192, input as u32);
        let out = rrdbnet::forward(&config, &mut r, picture).unwrap();
        assert_eq!((out.h, out.w, out.c), (768, 768, 3));
        r.output(out);
        let plan = r.finish();
        let pieces = config.pieces();
        assert_eq!(plan.weights().len(), pieces.len());
        for weight in plan.weights() {
            let piece = pieces.iter().find(|p| p.name == weight.name).unwrap();
            let elements = shapes[&piece.tensor].iter().product::<u64>();
            let due = match &piece.channels {
                Some(part) => elements / shapes[&piece.tensor][1] * (part.end - part.start) as u64,
                None => elements,
            };
            assert_eq!(weight.layout.elements(), Some(due), "{}", weight.name);
        }
        println!("{blocks} blocks: a tile of 192 takes {} MiB", plan.peak_bytes() >> 20);
    }
}
