//! Chooses kernels by timing them on this GPU: tiles of matrix multiply and convolution, ways of attention and of norms.

use super::attention::{self, Way, attention};
use super::conv::Conv;
use super::matmul::{Epilogue, conv2d, linear};
use super::norm::{self, group_norm, layer_normed};
use super::pointwise::Activation;
use super::selftest::check;
use super::tile::{TEXTS, Tile};
use crate::error::Result;
use crate::gpu::choices::{Choices, Class, search};
use crate::gpu::{Executable, Gpu, Options, Plan, Recorder, Tensor, Weights, time_all};

/// A product that stands for its class: (convolution 3x3, side of the picture, input channels, output channels), for two
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
const HEADS: u32 = 8;
const GROUPS: u32 = 32;
const EPSILON: f32 = 1e-5;

/// What stands for a class, for two pictures at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Product(Example),
    /// Of eight heads: channels of one, queries, keys.
    Attention(u32, u32, u32),
    /// Side of the picture, channels.
    GroupNorm(u32, u32),
    /// The queries, keys and values of a normed picture: its side, its channels.
    LayerNorm(u32, u32),
    /// A 3x3 convolution by its tile or by Winograd's way: side of the picture, input channels, output channels.
    Winograd(u32, u32, u32),
}

impl From<Example> for Work {
    fn from(example: Example) -> Self {
        Self::Product(example)
    }
}

/// Stable Diffusion 1.5's again, by what there is to gain: of attention at the 64x64 level half of the queries, since slow
/// GPUs take long; layer norms and Winograd's way after the products, with whose tiles they are compared. Of the latter no
/// more than fills a GPU.
pub const WORKS: [Work; 24] = [
    Work::Product(EXAMPLES[0]),
    Work::Product(EXAMPLES[1]),
    Work::Product(EXAMPLES[2]),
    Work::Winograd(32, 80, 320),
    Work::Winograd(16, 160, 1280),
    Work::Attention(40, 2048, 4096),
    Work::Product(EXAMPLES[3]),
    Work::Product(EXAMPLES[4]),
    Work::Product(EXAMPLES[5]),
    Work::Product(EXAMPLES[6]),
    Work::Product(EXAMPLES[7]),
    Work::Product(EXAMPLES[8]),
    Work::Product(EXAMPLES[9]),
    Work::Product(EXAMPLES[10]),
    Work::Attention(80, 1024, 1024),
    Work::Attention(40, 4096, 77),
    Work::Attention(80, 1024, 77),
    Work::Attention(160, 256, 256),
    Work::GroupNorm(64, 320),
    Work::GroupNorm(32, 640),
    Work::GroupNorm(16, 1280),
    Work::LayerNorm(64, 320),
    Work::LayerNorm(32, 640),
    Work::LayerNorm(16, 1280),
];

/// The class that an example stands for.
pub fn class((conv, side, _, out): Example) -> Class {
    Class::of(conv, BATCH * side * side, out)
}

impl Work {
    /// The class that this stands for; `None` where there is nothing to choose.
    pub fn class(self) -> Option<Class> {
        match self {
            Self::Product(example) => Some(class(example)),
            Self::Attention(d, _, keys) => Class::attention(d, keys),
            Self::GroupNorm(side, _) => Class::group_norm(side * side),
            Self::LayerNorm(side, _) => Some(Class::layer_norm(BATCH * side * side)),
            Self::Winograd(side, ..) => Some(Class::winograd(BATCH * side * side)),
        }
    }

    /// Candidates of a GPU that runs with `options`.
    pub fn candidates(self, options: &Options) -> usize {
        match self {
            Self::Product(_) => candidates(options),
            Self::Attention(d, ..) => Way::candidates(options.subgroup, d),
            Self::GroupNorm(..) | Self::LayerNorm(..) => norm::WAYS,
            Self::Winograd(..) => Tile::WINOGRAD.len(),
        }
    }

    /// The candidate that `options` have.
    pub fn usual(self, options: &Options) -> usize {
        match self {
            Self::Product((conv, side, c, out)) => {
                let k4 = if conv { 9 * c / 4 } else { c / 4 };
                Tile::of(options, conv, BATCH * side * side, out, k4).candidate().unwrap_or(0)
            }
            Self::Attention(d, _, keys) => Way::of(options, d, keys).candidate(),
            Self::GroupNorm(..) | Self::LayerNorm(..) => {
                self.class().and_then(|class| options.choices.get(class)).unwrap_or(0)
            }
            Self::Winograd(side, c, out) => {
                let m = BATCH * side * side;
                let blocks = BATCH * Tile::blocks([side; 2]).iter().product::<u32>();
                let tile = Tile::winograd(options, [m, out, blocks, c / 4]);
                Tile::WINOGRAD.iter().position(|&way| way == tile).unwrap_or(0)
            }
        }
    }

    /// The plan of candidate `i`, what it reads, and what it makes.
    ///
    /// # Errors
    /// `unsupported-model` for a shape that cannot be.
    pub fn record(self, options: &Options, i: usize) -> Result<(Plan, Vec<Tensor>, Tensor)> {
        let mut options = *options;
        if let Some(class) = self.class() {
            options.choices.set(class, Some(i));
        }
        if let Self::Product((true, side, ..)) = self {
            // Tiles with each other; the best of them with Winograd's way afterwards.
            options.choices.set(Class::winograd(BATCH * side * side), Some(0));
        }
        let mut r = Recorder::new(&options);
        let mut read = Vec::new();
        let mut input = |r: &mut Recorder, h, w, c| {
            let x = r.input(BATCH, h, w, c);
            read.push(x);
            x
        };
        let y = match self {
            Self::Product((conv, side, c, out)) => {
                let x = input(&mut r, side, side, c);
                if conv {
                    conv2d(&mut r, x, "y", out, Conv::k3(), Epilogue::default())?
                } else {
                    linear(&mut r, x, "y", out, Epilogue::default())?
                }
            }
            Self::Attention(d, queries, keys) => {
                let [q, k, v] = [queries, keys, keys].map(|rows| input(&mut r, 1, rows, HEADS * d));
                attention(&mut r, q, k, v, HEADS, false)?
            }
            Self::GroupNorm(side, c) => {
                let x = input(&mut r, side, side, c);
                group_norm(&mut r, x, "n", GROUPS, EPSILON, Activation::Silu)?
            }
            Self::Winograd(side, c, out) => {
                let x = input(&mut r, side, side, c);
                conv2d(&mut r, x, "y", out, Conv::k3(), Epilogue::default())?
            }
            Self::LayerNorm(side, c) => {
                let x = input(&mut r, 1, side * side, c);
                let normed = layer_normed(&mut r, x, "n", EPSILON)?;
                linear(&mut r, normed, "y", 3 * c, Epilogue::default())?
            }
        };
        r.output(y);
        Ok((r.finish(), read, y))
    }
}

/// Of one run of an example.
fn flops((conv, side, c, out): Example) -> f64 {
    let taps = if conv { 9.0 } else { 1.0 };
    2.0 * f64::from(BATCH * side * side) * f64::from(c) * f64::from(out) * taps
}

/// Candidates for products of a GPU that runs with `options`.
pub fn candidates(options: &Options) -> usize {
    Tile::candidates(options.subgroup).len()
}

/// How many candidates a class has on a GPU that runs with `options`; where none is timed, none.
pub fn candidates_of(options: &Options) -> impl Fn(Class) -> usize {
    let of = |class| move |work: &&Work| work.class() == Some(class);
    move |class| match class {
        Class::Product { .. } => candidates(options),
        _ => WORKS.iter().find(of(class)).map_or(0, |work| work.candidates(options)),
    }
}

/// Under what choices are kept (see [`key_of`]).
pub fn key(gpu: &Gpu, options: &Options) -> String {
    let tiles: Vec<_> = Tile::candidates(options.subgroup).into_iter().map(Tile::defines).collect();
    let list = format!("{tiles:?} {WORKS:?}");
    let own = [crate::gpu::shader!("prelude.wgsl"), &list];
    key_of(gpu, options, &[&TEXTS[..], &attention::TEXTS, &norm::TEXTS, &own].concat())
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

/// Whether every class of `works` was timed.
pub fn is_complete(choices: &Choices, works: &[Work]) -> bool {
    works.iter().filter_map(|work| work.class()).all(|class| choices.is_timed(class))
}

/// Candidates of one piece of work, ready to be timed.
#[expect(async_fn_in_trait, reason = "there is one thread")]
pub trait Timed {
    /// Milliseconds of as many runs of each of these candidates as `runs` says.
    ///
    /// # Errors
    /// `device-lost`.
    async fn time(&self, runs: &[(usize, usize)]) -> Result<Vec<f64>>;

    /// Whether this GPU computes a candidate rightly.
    ///
    /// # Errors
    /// `device-lost`.
    async fn is_right(&self, candidate: usize) -> Result<bool>;
}

/// Times the candidates for each of `works` whose class was not timed yet, until `stop` says so, what is compiled
/// included; classes that are not reached keep what `options` have. Never slower than that.
///
/// # Errors
/// `device-lost`.
pub async fn tune(gpu: &Gpu, options: &Options, works: &[Work], stop: impl Fn() -> bool) -> Result<Choices> {
    tune_by(options, works, stop, async |options, work| Timer::new(gpu, options, work).await).await
}

/// The same, with what `prepare` makes of the candidates for a piece of work on a GPU that draws with these options.
///
/// # Errors
/// `device-lost`.
pub async fn tune_by<T: Timed>(
    options: &Options,
    works: &[Work],
    stop: impl Fn() -> bool,
    prepare: impl AsyncFn(&Options, Work) -> Result<T>,
) -> Result<Choices> {
    let mut options = *options;
    for &work in works {
        let Some(class) = work.class().filter(|class| !options.choices.is_timed(*class)) else { continue };
        if stop() {
            break;
        }
        let (usual, candidates) = (work.usual(&options), work.candidates(&options));
        let timed = prepare(&options, work).await?;
        let Some((counts, once)) = count(&timed, candidates, &stop).await? else { break };
        let mut first = Some(once);
        let measure = async |which: &[usize]| match (stop(), first.take()) {
            (true, _) => Ok(None),
            // One run that takes some milliseconds is a time like any other.
            (_, Some(mut times)) => {
                let short: Vec<usize> = which.iter().copied().filter(|&i| counts[i] > 1).collect();
                let again = one_run(&timed, &counts, &short).await?;
                short.iter().zip(again).for_each(|(&i, time)| times[i] = time);
                Ok(Some(times))
            }
            _ => one_run(&timed, &counts, which).await.map(Some),
        };
        let Some(fastest) = search(candidates, usual, measure).await? else { break };
        // What this driver gets wrong is not taken however fast it is.
        let chosen = if timed.is_right(fastest).await? { fastest } else { usual };
        options.choices.set_timed(class, chosen);
        if let Work::Product(example) = work {
            let ms = one_run(&timed, &counts, &[chosen]).await?[0];
            options.choices.note_rate(flops(example) / (1e6 * ms.max(1e-3)));
        }
    }
    Ok(options.choices)
}

/// Runs all once, since the first run may compile still, and again, to see how many runs take some milliseconds: these
/// counts, and how long one run took; `None` where the time for tuning is over.
///
/// # Errors
/// `device-lost`.
pub async fn count(
    timed: &impl Timed,
    candidates: usize,
    stop: impl Fn() -> bool,
) -> Result<Option<(Vec<usize>, Vec<f64>)>> {
    /// Timestamps tick at up to 0.1 ms.
    const ENOUGH: f64 = 4.0;
    let all: Vec<(usize, usize)> = (0..candidates).map(|i| (i, 1)).collect();
    timed.time(&all).await?;
    if stop() {
        return Ok(None);
    }
    let once = timed.time(&all).await?;
    let times = |one: &f64| (ENOUGH / one.max(0.01)).ceil().clamp(1.0, 256.0) as usize;
    Ok(Some((once.iter().map(times).collect(), once)))
}

/// Milliseconds of one run of each of these candidates: the mean over as many as `counts` says.
///
/// # Errors
/// `device-lost`.
pub async fn one_run(timed: &impl Timed, counts: &[usize], which: &[usize]) -> Result<Vec<f64>> {
    if which.is_empty() {
        return Ok(Vec::new());
    }
    let runs: Vec<_> = which.iter().map(|&i| (i, counts[i])).collect();
    let spans = timed.time(&runs).await?;
    Ok(spans.iter().zip(runs).map(|(span, (_, times))| span / times as f64).collect())
}

/// All candidates for one piece of work, compiled, over the same inputs.
pub struct Timer<'a> {
    gpu: &'a Gpu,
    _weights: Weights,
    /// The candidate that `options` have.
    pub usual: usize,
    ready: Vec<(Plan, Executable)>,
}

impl<'a> Timer<'a> {
    /// # Errors
    /// `unsupported-model` for a shape that cannot be; `out-of-memory`; `device-lost`.
    pub async fn new(gpu: &'a Gpu, options: &Options, work: impl Into<Work>) -> Result<Self> {
        let work = work.into();
        let options = Options { off: gpu.off(), ..*options };
        let recorded = (0..work.candidates(&options)).map(|i| work.record(&options, i));
        let recorded = recorded.collect::<Result<Vec<_>>>()?;
        recorded.iter().try_for_each(|(plan, ..)| plan.compile_ahead(gpu))?;
        gpu.compiled().await;
        let mut ready: Vec<(Plan, Executable)> = Vec::with_capacity(recorded.len());
        let mut weights = None;
        let mut first_read: Vec<Tensor> = Vec::new();
        for (plan, read, y) in recorded {
            let weights = weights.get_or_insert_with(|| {
                let weights = Weights::allocate(gpu, plan.weights());
                weights.fill(gpu);
                weights
            });
            let touched: Vec<Tensor> = read.iter().copied().chain([y]).collect();
            // Inputs and output of all lie where the first one's do: together they would fill a small GPU.
            let executable = match ready.first() {
                Some((_, first)) => {
                    let shared = touched.iter().zip(&first_read).map(|(&own, &theirs)| (own, first, theirs));
                    plan.instantiate_over(gpu, weights, &shared.collect::<Vec<_>>())?
                }
                None => {
                    let first = plan.instantiate(gpu, weights)?;
                    read.iter().try_for_each(|x| first.fill(gpu, *x))?;
                    first_read = touched;
                    first
                }
            };
            ready.push((plan, executable));
        }
        let _weights = weights.unwrap_or_else(|| Weights::allocate(gpu, &[]));
        Ok(Self { gpu, _weights, usual: work.usual(&options), ready })
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
}

impl Timed for Timer<'_> {
    async fn time(&self, runs: &[(usize, usize)]) -> Result<Vec<f64>> {
        let runs: Vec<(&Executable, usize)> =
            runs.iter().map(|&(i, times)| (&self.ready[i].1, times)).collect();
        time_all(self.gpu, &runs).await
    }

    async fn is_right(&self, candidate: usize) -> Result<bool> {
        check(self.gpu, &self.ready[candidate].0).await
    }
}
