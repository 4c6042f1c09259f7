//! Chooses tiles for matrix multiply and convolution by timing them on this GPU.

use super::conv::Conv;
use super::matmul::{Epilogue, conv2d, linear};
use super::tile::{TEXTS, Tile};
use super::trial::TOLERANCE_F16;
use crate::clock::now;
use crate::error::Result;
use crate::gpu::choices::{Choices, Class, search};
use crate::gpu::{Executable, Gpu, Options, Recorder, Tensor, Weights, random_values};
use std::collections::HashMap;

/// A shape that stands for its class: (convolution 3x3, side of the picture, input channels, output channels), for two
/// pictures at once.
pub type Example = (bool, u32, u32, u32);

/// Stable Diffusion 1.5's at 512x512 with guidance, by their share of a step's work.
pub const EXAMPLES: [Example; 11] = [
    (true, 64, 320, 320),
    (true, 32, 640, 640),
    (true, 16, 1280, 1280),
    (false, 64, 320, 2560),
    (false, 32, 640, 5120),
    (false, 16, 1280, 10240),
    (true, 8, 1280, 1280),
    (false, 64, 320, 320),
    (false, 32, 640, 640),
    (false, 16, 640, 640),
    (false, 8, 1280, 1280),
];
const BATCH: u32 = 2;

/// The class that an example stands for.
pub fn class((conv, side, _, out): Example) -> Class {
    Class::of(conv, BATCH * side * side, out)
}

/// Candidates of a GPU that runs with `options`.
pub fn candidates(options: &Options) -> usize {
    Tile::candidates(options.subgroup).len()
}

/// Under what choices are kept (see [`key_of`]).
pub fn key(gpu: &Gpu, options: &Options) -> String {
    let tiles: Vec<_> = Tile::candidates(options.subgroup).into_iter().map(Tile::defines).collect();
    let list = format!("{tiles:?} {EXAMPLES:?}");
    key_of(gpu, options, &[&TEXTS[..], &[crate::gpu::shader!("prelude.wgsl"), &list]].concat())
}

/// "adapter|variant of the kernels|hash". What shares the first with another hash is out of date. `kernels`: all that
/// the hash covers.
pub fn key_of(gpu: &Gpu, options: &Options, kernels: &[&str]) -> String {
    // FNV-1a, 64 bits
    let hash = kernels.iter().flat_map(|text| text.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(
        "{} {} {}|{:?} {:?} {}|{hash:016x}",
        gpu.vendor, gpu.architecture, gpu.name, options.arithmetic, options.activations, options.subgroup
    )
}

/// Times the candidates for each of `examples` for at most `budget` milliseconds together, what is compiled included;
/// classes that are not reached keep what `options` have. Never slower than that.
///
/// # Errors
/// `device-lost`.
pub async fn tune(gpu: &Gpu, options: &Options, examples: &[Example], budget: f64) -> Result<Choices> {
    let end = now() + budget;
    let mut choices = options.choices;
    for &example in examples {
        let mut timer = Timer::new(gpu, options, example)?;
        let usual = timer.usual;
        let measure = async |i: usize| if now() < end { timer.time(i).await.map(Some) } else { Ok(None) };
        if let Some(fastest) = search(candidates(options), usual, measure).await?
            && timer.agrees(fastest).await?
        {
            choices.set(class(example), Some(fastest));
        }
        if now() >= end {
            break;
        }
    }
    Ok(choices)
}

/// Times the candidates for one shape.
pub struct Timer<'a> {
    gpu: &'a Gpu,
    options: &'a Options,
    example: Example,
    weights: Weights,
    /// The candidate that `options` have.
    pub usual: usize,
    /// How many runs of each take long enough.
    times: HashMap<usize, usize>,
}

impl<'a> Timer<'a> {
    /// # Errors
    /// `unsupported-model` for a shape that cannot be.
    pub fn new(gpu: &'a Gpu, options: &'a Options, example: Example) -> Result<Self> {
        let (conv, side, c, out) = example;
        let k4 = if conv { 9 * c / 4 } else { c / 4 };
        let tile = Tile::of(options, conv, BATCH * side * side, out, k4);
        let usual = Tile::candidates(options.subgroup).iter().position(|&t| t == tile).unwrap_or(0);
        let weights = Weights::allocate(gpu, Self::record(options, example)?.0.finish().weights());
        weights.fill(gpu);
        Ok(Self { gpu, options, example, weights, usual, times: HashMap::new() })
    }

    fn record(options: &Options, (conv, side, c, out): Example) -> Result<(Recorder, Tensor, Tensor)> {
        let mut r = Recorder::new(options);
        let x = r.input(BATCH, side, side, c);
        let y = if conv {
            conv2d(&mut r, x, "y", out, Conv::k3(), Epilogue::default())?
        } else {
            linear(&mut r, x, "y", out, Epilogue::default())?
        };
        r.output(y);
        Ok((r, x, y))
    }

    /// Candidate `i` with its output. It is not kept: all of them together would fill a small GPU.
    ///
    /// # Errors
    /// `out-of-memory` where the adapter is too small for it.
    pub fn instantiate(&self, i: usize) -> Result<(Executable, Tensor)> {
        let mut options = *self.options;
        options.choices.set(class(self.example), Some(i));
        let (r, x, y) = Self::record(&options, self.example)?;
        let executable = r.finish().instantiate(self.gpu, &self.weights)?;
        executable.write(self.gpu, x, &random_values((x.rows() * x.c) as usize, 1.0))?;
        Ok((executable, y))
    }

    /// Milliseconds of one run with candidate `i`: the mean over as many as take some milliseconds.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn time(&mut self, i: usize) -> Result<f64> {
        /// Timestamps tick at up to 0.1 ms.
        const ENOUGH: f64 = 4.0;
        let (executable, _) = self.instantiate(i)?;
        // The first run compiles and clears its buffers; how long one takes is seen by the second.
        executable.time(self.gpu, 1).await?;
        let times = match self.times.get(&i) {
            Some(&times) => times,
            None => {
                let one = executable.time(self.gpu, 1).await?;
                let times = (ENOUGH / one.max(0.01)).ceil().clamp(1.0, 256.0) as usize;
                self.times.insert(i, times);
                if times == 1 {
                    return Ok(one);
                }
                times
            }
        };
        Ok(executable.time(self.gpu, times).await? / times as f64)
    }

    /// Whether candidate `i` computes what the usual one does: a kernel that this driver gets wrong is not taken
    /// however fast it is.
    async fn agrees(&self, i: usize) -> Result<bool> {
        let output = async |i| {
            let (executable, y) = self.instantiate(i)?;
            executable.run(self.gpu);
            executable.read(self.gpu, y).await
        };
        let (got, wanted) = (output(i).await?, output(self.usual).await?);
        let sum = |f: &dyn Fn(f32, f32) -> f32| {
            got.iter().zip(&wanted).map(|(&g, &w)| f64::from(f(g, w))).sum::<f64>()
        };
        let off = (sum(&|g, w| (g - w).powi(2)) / sum(&|_, w| w * w)).sqrt();
        // Each is within the self-test's bound of what is right; NaN is not.
        Ok(off <= 2.0 * TOLERANCE_F16)
    }
}
