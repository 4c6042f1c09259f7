//! Canny's edges of a picture, as OpenCV's `Canny` with its defaults (aperture 3, L1 gradient).

use crate::error::Result;
use crate::gpu::Scalar::{I32, U32};
use crate::gpu::{Binding, Dispatch, Dtype, Gpu, Kernel, Options, Recorder, Weights};

/// Pixels that an edge grows by in one launch, and launches between two looks at whether it still grows.
const SWEEPS: u32 = 16;
const LAUNCHES: usize = 16;
/// A pixel's value in the shader's last stages.
const EDGE: u32 = 2;

/// Which of the pixels of RGBA bytes, `width` a row, are edges: those whose gradient is above `high`, and those above
/// `low` that hang together with them. The thresholds may be given in either order; a gradient is at most 2040.
///
/// # Errors
/// `out-of-memory` for too large a picture; `device-lost`.
pub async fn canny(gpu: &Gpu, rgba: &[u8], width: u32, low: f64, high: f64) -> Result<Vec<bool>> {
    let words: Vec<u32> =
        rgba.chunks_exact(4).map(|p| u32::from_le_bytes([p[0], p[1], p[2], p[3]])).collect();
    let pixels = words.len() as u32;
    let height = pixels / width.max(1);
    if height == 0 {
        return Ok(vec![false; words.len()]);
    }
    let threshold = |t: f64| I32(t.floor().clamp(0.0, f64::from(u16::MAX)) as i32);
    let params = vec![
        ("w", U32(width)),
        ("h", U32(height)),
        ("low", threshold(low.min(high))),
        ("high", threshold(low.max(high))),
    ];
    // A word a pixel.
    let map = |r: &mut Recorder| r.tensor_of(Dtype::U32, 1, 1, pixels.div_ceil(4), 4);
    let stage = |r: &mut Recorder, which: usize, bindings: Vec<Binding>| {
        let on = |i: usize| u32::from(which == i);
        let defines = [("SWEEPS", SWEEPS), ("GRADIENT", on(0)), ("THIN", on(1)), ("SPREAD", on(2))];
        r.dispatch(Dispatch {
            kernel: Kernel::new("canny", &[crate::gpu::shader!("canny.wgsl")], &defines),
            bindings,
            params: params.clone(),
            workgroups: [width.div_ceil(16), height.div_ceil(16), 1],
            flops: u64::from(pixels) * 32,
        });
    };

    let none = Weights::allocate(gpu, &[]);
    let mut r = Recorder::new(&Options::default());
    let picture = r.input_u32(1, pixels);
    let (gradient, edges) = (map(&mut r), map(&mut r));
    stage(&mut r, 0, vec![Binding::Read(picture), Binding::Write(gradient)]);
    stage(&mut r, 1, vec![Binding::Read(gradient), Binding::Write(edges)]);
    r.output(edges);
    let thin = r.finish().instantiate(gpu, &none)?;
    thin.write_u32(gpu, picture, &words)?;
    thin.run(gpu);

    let mut r = Recorder::new(&Options::default());
    let (spreading, changed) = (r.input_of(Dtype::U32, 1, 1, pixels.div_ceil(4), 4), r.input_u32(1, 1));
    for _ in 0..LAUNCHES {
        stage(&mut r, 2, vec![Binding::Write(spreading), Binding::Write(changed)]);
    }
    let spread = r.finish().instantiate_over(gpu, &none, &[(spreading, &thin, edges)])?;
    loop {
        spread.write_u32(gpu, changed, &[0])?;
        spread.run(gpu);
        if words_of(&spread.read(gpu, changed).await?).all(|word| word == 0) {
            break;
        }
    }
    let edges = spread.read(gpu, spreading).await?;
    Ok(words_of(&edges).take(words.len()).map(|word| word == EDGE).collect())
}

/// What a tensor of words holds, as `read` gives it.
pub(super) fn words_of(values: &[f32]) -> impl Iterator<Item = u32> + '_ {
    values.iter().map(|v| v.to_bits())
}
