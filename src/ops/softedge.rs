//! Soft lines of a picture, as a scribble or soft-edge ControlNet is shown them, without a network: XDoG.

use super::canny::words_of;
use crate::error::Result;
use crate::gpu::Scalar::{F32, U32};
use crate::gpu::{Binding, Dispatch, Dtype, Gpu, Kernel, Options, Recorder, Weights};

/// Deviation of the narrow Gaussian in a picture whose shorter side is this long; it grows with the picture, so that lines
/// are as thick beside what they draw.
const SIGMA: f64 = 1.4;
const SIDE: f64 = 512.0;
/// The wide Gaussian's deviation over the narrow one's: the authors'.
const RATIO: f64 = 1.6;
/// Deviations to where a Gaussian ends.
const REACH: f64 = 3.0;
/// How much darker than its surroundings a line begins, of 1, and how fast it grows white from there. A step from black to
/// white is 0.11 darker at its dark side.
const THRESHOLD: f32 = -0.01;
const SHARPNESS: f32 = 40.0;
/// No picture is so large that more were needed.
const LARGEST: f64 = 64.0;

/// Lines of RGBA bytes, `width` a row, of each pixel 0 to 255: where a colour is darker than its surroundings.
///
/// # Errors
/// `out-of-memory` for too large a picture; `device-lost`.
pub async fn softedge(gpu: &Gpu, rgba: &[u8], width: u32) -> Result<Vec<u8>> {
    let words: Vec<u32> =
        rgba.chunks_exact(4).map(|p| u32::from_le_bytes([p[0], p[1], p[2], p[3]])).collect();
    let pixels = words.len() as u32;
    let height = pixels / width.max(1);
    if height == 0 {
        return Ok(vec![0; words.len()]);
    }
    let sigma = (SIGMA * f64::from(width.min(height)) / SIDE).clamp(0.5, LARGEST);
    let rate = |sigma: f64| F32((0.5 / (sigma * sigma)) as f32);
    let params = vec![
        ("w", U32(width)),
        ("h", U32(height)),
        ("radius", U32((REACH * RATIO * sigma).ceil() as u32)),
        ("narrow", rate(sigma)),
        ("wide", rate(RATIO * sigma)),
        ("threshold", F32(THRESHOLD)),
        ("sharpness", F32(SHARPNESS)),
    ];
    let stage = |r: &mut Recorder, rows: bool, bindings: Vec<Binding>| {
        r.dispatch(Dispatch {
            kernel: Kernel::new(
                "softedge",
                &[crate::gpu::shader!("softedge.wgsl")],
                &[("ROWS", u32::from(rows))],
            ),
            bindings,
            params: params.clone(),
            workgroups: [width.div_ceil(16), height.div_ceil(16), 1],
            flops: u64::from(pixels) * 32 * sigma.ceil() as u64,
        });
    };
    let mut r = Recorder::new(&Options::default());
    let picture = r.input_u32(1, pixels);
    let blurred = r.tensor_of(Dtype::F32, 1, 1, pixels, 8);
    let lines = r.tensor_of(Dtype::U32, 1, 1, pixels.div_ceil(4), 4);
    stage(&mut r, true, vec![Binding::Read(picture), Binding::Write(blurred)]);
    stage(&mut r, false, vec![Binding::Read(blurred), Binding::Write(lines)]);
    r.output(lines);
    let executable = r.finish().instantiate(gpu, &Weights::allocate(gpu, &[]))?;
    executable.write_u32(gpu, picture, &words)?;
    executable.run(gpu);
    let lines = executable.read(gpu, lines).await?;
    Ok(words_of(&lines).take(words.len()).map(|word| word as u8).collect())
}
