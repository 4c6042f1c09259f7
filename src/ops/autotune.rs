//! Chooses tiles for matrix multiply and convolution by timing them on this GPU.

use super::conv::Conv;
use super::matmul::{Epilogue, conv2d, linear};
use super::selftest::check;
use super::tile::{TEXTS, Tile};
use crate::error::Result;
use crate::gpu::choices::{Choices, Class, search};
use crate::gpu::{Executable, Gpu, Options, Plan, Recorder, Tensor, Weights, time_all};

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

/// Of one run of an example.
fn flops((conv, side, c, out): Example) -> f64 {
    let taps = if conv { 9.0 } else { 1.0 };
    2.0 * f64::from(BATCH * side * side) * f64::from(c) * f64::from(out) * taps
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

/// Whether every class of `examples` was timed.
pub fn is_complete(choices: &Choices, examples: &[Example]) -> bool {
    examples.iter().all(|&example| choices.is_timed(class(example)))
}

/// Times the candidates for each of `examples` whose class was not timed yet, until `stop` says so, what is compiled
/// included; classes that are not reached keep what `options` have. Never slower than that.
///
/// # Errors
/// `device-lost`.
pub async fn tune(
    gpu: &Gpu,
    options: &Options,
    examples: &[Example],
    stop: impl Fn() -> bool,
) -> Result<Choices> {
    let mut choices = options.choices;
    for &example in examples {
        if choices.is_timed(class(example)) || stop() {
            continue;
        }
        let timer = Timer::new(gpu, options, example).await?;
        let measure = async |which: &[usize]| match stop() {
            true => Ok(None),
            false => timer.time(which).await.map(Some),
        };
        if let Some(fastest) = search(timer.candidates(), timer.usual, measure).await? {
            // What this driver gets wrong is not taken however fast it is.
            let sound = check(gpu, timer.plan(fastest)).await?;
            let chosen = if sound { fastest } else { timer.usual };
            choices.set_timed(class(example), chosen);
            if let [ms] = *timer.time(&[chosen]).await? {
                choices.note_rate(flops(example) / (1e6 * ms.max(1e-3)));
            }
        }
    }
    Ok(choices)
}

/// All candidates for one shape, compiled, over the same inputs.
pub struct Timer<'a> {
    gpu: &'a Gpu,
    _weights: Weights,
    /// The candidate that `options` have.
    pub usual: usize,
    ready: Vec<(Plan, Executable)>,
    /// How many runs of each take long enough.
    times: Vec<usize>,
}

impl<'a> Timer<'a> {
    /// # Errors
    /// `unsupported-model` for a shape that cannot be; `out-of-memory`; `device-lost`.
    pub async fn new(gpu: &'a Gpu, options: &Options, example: Example) -> Result<Self> {
        let (conv, side, c, out) = example;
        let k4 = if conv { 9 * c / 4 } else { c / 4 };
        let tile = Tile::of(options, conv, BATCH * side * side, out, k4);
        let usual = tile.candidate().unwrap_or(0);
        let recorded = (0..candidates(options)).map(|i| {
            let mut options = Options { off: gpu.off(), ..*options };
            options.choices.set(class(example), Some(i));
            Self::record(&options, example)
        });
        let recorded = recorded.collect::<Result<Vec<_>>>()?;
        recorded.iter().try_for_each(|(plan, ..)| plan.compile_ahead(gpu))?;
        gpu.compiled().await;
        let mut ready: Vec<(Plan, Executable)> = Vec::with_capacity(recorded.len());
        let mut weights = None;
        for (plan, x, y) in recorded {
            let weights = weights.get_or_insert_with(|| {
                let weights = Weights::allocate(gpu, plan.weights());
                weights.fill(gpu);
                weights
            });
            // Inputs and output of all lie where the first one's do: together they would fill a small GPU.
            let executable = match ready.first() {
                Some((_, first)) => plan.instantiate_over(gpu, weights, &[(x, first, x), (y, first, y)])?,
                None => {
                    let first = plan.instantiate(gpu, weights)?;
                    first.fill(gpu, x)?;
                    first
                }
            };
            ready.push((plan, executable));
        }
        let _weights = weights.unwrap_or_else(|| Weights::allocate(gpu, &[]));
        let mut timer = Self { gpu, _weights, usual, times: vec![1; ready.len()], ready };
        timer.count().await?;
        Ok(timer)
    }

    fn record(options: &Options, (conv, side, c, out): Example) -> Result<(Plan, Tensor, Tensor)> {
        let mut r = Recorder::new(options);
        let x = r.input(BATCH, side, side, c);
        let y = if conv {
            conv2d(&mut r, x, "y", out, Conv::k3(), Epilogue::default())?
        } else {
            linear(&mut r, x, "y", out, Epilogue::default())?
        };
        r.output(y);
        Ok((r.finish(), x, y))
    }

    /// Runs all once, since the first run may compile still, and again, to see how many runs take some milliseconds.
    async fn count(&mut self) -> Result<()> {
        /// Timestamps tick at up to 0.1 ms.
        const ENOUGH: f64 = 4.0;
        let all: Vec<usize> = (0..self.ready.len()).collect();
        self.time(&all).await?;
        let once = self.time(&all).await?;
        self.times =
            once.iter().map(|one| (ENOUGH / one.max(0.01)).ceil().clamp(1.0, 256.0) as usize).collect();
        Ok(())
    }

    pub fn candidates(&self) -> usize {
        self.ready.len()
    }

    pub fn plan(&self, i: usize) -> &Plan {
        &self.ready[i].0
    }

    /// Candidate `i`, to be run.
    pub fn executable(&self, i: usize) -> &Executable {
        &self.ready[i].1
    }

    /// Milliseconds of one run of each of these candidates: the mean over as many as take some milliseconds.
    ///
    /// # Errors
    /// `device-lost`.
    pub async fn time(&self, which: &[usize]) -> Result<Vec<f64>> {
        let runs: Vec<(&Executable, usize)> =
            which.iter().map(|&i| (&self.ready[i].1, self.times[i])).collect();
        let spans = time_all(self.gpu, &runs).await?;
        Ok(spans.iter().zip(&runs).map(|(span, (_, times))| span / *times as f64).collect())
    }
}
