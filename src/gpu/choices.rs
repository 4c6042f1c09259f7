//! Which variant of a kernel serves which shapes: a shipped table by maker and family of the GPU, and the search that
//! refines it on the visitor's own.
//!
//! A variant is known by its place in the list of candidates that the operation has. `crate::ops::autotune` times
//! them, and says under which key choices are kept: they are worth nothing once adapter, kernels or candidates
//! change.

use crate::error::Result;

/// Bits of [`super::Options::off`] above those of the tiles, each of which has that of its place among the candidates.
/// Winograd's way, by channels of a workgroup: 16 and 32.
pub const OFF_WINOGRAD: [u32; 2] = [1 << 27, 1 << 28];
/// Attention in f16 arithmetic, in whose place the same in f32 stands.
pub const OFF_F16_ATTENTION: u32 = 1 << 26;
pub const OFF_SMALL_ATTENTION: u32 = 1 << 29;
pub const OFF_SUBGROUP_ATTENTION: u32 = 1 << 30;
pub const OFF_GROUP_NORM: u32 = 1 << 31;

/// Whether this maker's adapters are processors: Mesa's lavapipe, Google's SwiftShader.
pub fn is_software(vendor: &str) -> bool {
    ["mesa", "google", "0x10005", "0x1ae0"].contains(&vendor)
}

/// Whether kernels that broadcast within narrow subgroups are the usual ones on a GPU of this maker: they were measured
/// to be faster on software GPUs. On others they are taken where the tuner finds them so: Mali's registers are too few for
/// them by the look of its code.
pub fn broadcasts(vendor: &str) -> bool {
    is_software(vendor)
}

/// What an operation is like, as far as the choice of its kernel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A product, or with `conv` a convolution, which gathers its input.
    Product {
        conv: bool,
        /// Rows of the output: up to 8 (the time embedding), 256 (the 8x8 level of a UNet), 1024, 4096, more.
        rows: usize,
        /// Channels of the output: up to 640, more.
        channels: usize,
    },
    /// Heads of up to 40 channels, 80, 160; over up to 256 keys (a text's, or the 16x16 level's), or more.
    Attention { width: usize, keys: usize },
    /// Positions of a picture: up to 256, 1024, 4096.
    GroupNorm { positions: usize },
    /// Rows that are normed before they are multiplied: up to 1024, 4096, more.
    LayerNorm { rows: usize },
    /// Positions of all pictures of a 3x3 convolution of stride 1: up to 1024, more.
    Winograd { rows: usize },
}

const ROWS: [u32; 4] = [8, 256, 1024, 4096];
const CHANNELS: [u32; 1] = [640];
const WIDTHS: [u32; 3] = [40, 80, 160];
const KEYS: [u32; 1] = [256];
const POSITIONS: [u32; 3] = [256, 1024, 4096];
const NORMED: [u32; 2] = [1024, 4096];
const CONVOLVED: [u32; 1] = [1024];

fn place(bounds: &[u32], value: u32) -> usize {
    bounds.iter().filter(|&&bound| value > bound).count()
}

impl Class {
    const PRODUCTS: usize = 2 * (ROWS.len() + 1) * (CHANNELS.len() + 1);
    const ATTENTIONS: usize = WIDTHS.len() * (KEYS.len() + 1);
    pub const COUNT: usize =
        Self::PRODUCTS + Self::ATTENTIONS + POSITIONS.len() + NORMED.len() + CONVOLVED.len() + 2;

    /// Of a product.
    pub fn of(conv: bool, rows: u32, channels: u32) -> Self {
        Self::Product { conv, rows: place(&ROWS, rows), channels: place(&CHANNELS, channels) }
    }

    /// Of attention with heads of `d` channels; `None` for heads so wide that there is one kernel for them.
    pub fn attention(d: u32, keys: u32) -> Option<Self> {
        let width = place(&WIDTHS, d);
        (width < WIDTHS.len()).then_some(Self::Attention { width, keys: place(&KEYS, keys) })
    }

    /// Of a group norm; `None` for pictures so large that there is one way for them.
    pub fn group_norm(positions: u32) -> Option<Self> {
        let positions = place(&POSITIONS, positions);
        (positions < POSITIONS.len()).then_some(Self::GroupNorm { positions })
    }

    /// Of a layer norm before a product.
    pub fn layer_norm(rows: u32) -> Self {
        Self::LayerNorm { rows: place(&NORMED, rows) }
    }

    /// Of the choice between Winograd's way and a tile for a 3x3 convolution.
    pub fn winograd(rows: u32) -> Self {
        Self::Winograd { rows: place(&CONVOLVED, rows) }
    }

    fn index(self) -> usize {
        match self {
            Self::Product { conv, rows, channels } => {
                (usize::from(conv) * (ROWS.len() + 1) + rows) * (CHANNELS.len() + 1) + channels
            }
            Self::Attention { width, keys } => Self::PRODUCTS + width * (KEYS.len() + 1) + keys,
            Self::GroupNorm { positions } => Self::PRODUCTS + Self::ATTENTIONS + positions,
            Self::LayerNorm { rows } => Self::PRODUCTS + Self::ATTENTIONS + POSITIONS.len() + rows,
            Self::Winograd { rows } => Self::COUNT - 1 - CONVOLVED.len() + rows,
        }
    }

    /// All of them, by their places.
    pub fn all() -> impl Iterator<Item = Self> {
        let products = [false, true].into_iter().flat_map(|conv| {
            (0..=ROWS.len()).flat_map(move |rows| {
                (0..=CHANNELS.len()).map(move |channels| Self::Product { conv, rows, channels })
            })
        });
        let attentions = (0..WIDTHS.len())
            .flat_map(|width| (0..=KEYS.len()).map(move |keys| Self::Attention { width, keys }));
        let group_norms = (0..POSITIONS.len()).map(|positions| Self::GroupNorm { positions });
        let layer_norms = (0..=NORMED.len()).map(|rows| Self::LayerNorm { rows });
        let winograds = (0..=CONVOLVED.len()).map(|rows| Self::Winograd { rows });
        products.chain(attentions).chain(group_norms).chain(layer_norms).chain(winograds)
    }
}

/// The candidate chosen for each class; `None`: what the operation chooses by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    chosen: [Option<u8>; Class::COUNT],
    /// Classes whose candidates were timed on this GPU.
    timed: [bool; Class::COUNT],
    /// GFLOP/s of the fastest of those; 0 where none was timed.
    gflops: u32,
}

// Derived for arrays of up to 32 alone.
impl Default for Choices {
    fn default() -> Self {
        Self { chosen: [None; Class::COUNT], timed: [false; Class::COUNT], gflops: 0 }
    }
}

impl Choices {
    pub fn get(&self, class: Class) -> Option<usize> {
        self.chosen[class.index()].map(usize::from)
    }

    pub fn set(&mut self, class: Class, candidate: Option<usize>) {
        self.chosen[class.index()] = candidate.and_then(|c| u8::try_from(c).ok());
    }

    /// Sets what was found by timing.
    pub fn set_timed(&mut self, class: Class, candidate: usize) {
        self.set(class, Some(candidate));
        self.timed[class.index()] = true;
    }

    /// Notes what a timed candidate does.
    pub fn note_rate(&mut self, gflops: f64) {
        self.gflops = self.gflops.max(gflops as u32);
    }

    /// GFLOP/s that this GPU is known to do; 0 where nothing was timed.
    pub fn gflops(&self) -> u32 {
        self.gflops
    }

    pub fn is_timed(&self, class: Class) -> bool {
        self.timed[class.index()]
    }

    /// What was timed as text, to be kept: a number for each class, or "-" for one that was not reached; then the rate.
    pub fn to_text(&self) -> String {
        let word = |(chosen, timed): (&Option<u8>, &bool)| match chosen {
            Some(candidate) if *timed => candidate.to_string(),
            _ => "-".to_owned(),
        };
        let words = self.chosen.iter().zip(&self.timed).map(word).chain([format!("@{}", self.gflops)]);
        words.collect::<Vec<String>>().join(" ")
    }

    /// These, and over them what [`Choices::to_text`] kept; `None` where that is damaged, or names a candidate past
    /// as many as `candidates` says that a class has.
    pub fn with_text(mut self, text: &str, candidates: impl Fn(Class) -> usize) -> Option<Self> {
        let mut words = text.split(' ');
        for class in Class::all() {
            let word = words.next()?;
            if word != "-" {
                self.set_timed(class, word.parse().ok().filter(|&c| c < candidates(class))?);
            }
        }
        self.gflops = words.next()?.strip_prefix('@')?.parse().ok()?;
        words.next().is_none().then_some(self)
    }
}

/// Choices for a GPU by maker, family ("" for any): (conv, rows, channels, candidate), with the lists of
/// `ops::autotune::candidates`. More entries come from tables that visitors copied from `bench.html`.
type Shipped = (&'static str, &'static str, &'static [(bool, u32, u32, usize)]);
const SHIPPED: &[Shipped] = &[
    // Tiles of 32 x 64 for convolutions, where 64 x 64 hold too many registers: onnxruntime's finding on Lunar Lake
    // (its pull request 26603).
    (
        "intel",
        "",
        &[(true, 8192, 640, 2), (true, 8192, 1280, 2), (true, 2048, 640, 2), (true, 2048, 1280, 2)],
    ),
    // Where 64 x 64 leave room for 384 threads on an M1 (and spill with two inputs) and 4 waves on an Adreno 740, 32 x 64
    // leave 512 and 6 (docs/benchmarks.md).
    ("apple", "", SMALL_TILES),
    ("qualcomm", "", SMALL_TILES),
    // By the model of docs/benchmarks.md: at the 16x16 level 32 x 64 fill a large GPU, 64 x 128 read less for the widest.
    (
        "nvidia",
        "",
        &[(true, 512, 640, 2), (true, 512, 1280, 2), (false, 8192, 1280, 1), (false, 2048, 1280, 1)],
    ),
    ("amd", "", &[(true, 512, 640, 2), (true, 512, 1280, 2)]),
];

/// 32 x 64 for all but the time embedding.
const SMALL_TILES: &[(bool, u32, u32, usize)] = &[
    (false, 256, 640, 2),
    (false, 256, 1280, 2),
    (false, 512, 640, 2),
    (false, 512, 1280, 2),
    (false, 2048, 640, 2),
    (false, 2048, 1280, 2),
    (false, 8192, 640, 2),
    (false, 8192, 1280, 2),
    (true, 256, 640, 2),
    (true, 256, 1280, 2),
    (true, 512, 640, 2),
    (true, 512, 1280, 2),
    (true, 2048, 640, 2),
    (true, 2048, 1280, 2),
    (true, 8192, 640, 2),
    (true, 8192, 1280, 2),
];

/// Kernels that a maker's GPUs do without ([`super::Options::off`]), since their compilers have too few registers for them:
/// on an M1 tiles of 64 x 64 and 64 x 128 spill in f16, Winograd's way for 32 channels, and attention in f16 for wide heads,
/// which is no faster there for others either (`./build.sh bench --isa`).
pub fn spilling(vendor: &str) -> u32 {
    if vendor == "apple" { 0b11 | OFF_WINOGRAD[1] | OFF_F16_ATTENTION } else { 0 }
}

/// Makers of GPUs for which Winograd's way was found to be faster by their compilers, as it was by the clock on software
/// adapters (docs/benchmarks.md). Others have it where their tuner finds it so: it wants much workgroup memory of its own.
const WINOGRAD: [&str; 3] = ["nvidia", "amd", "qualcomm"];

/// The shipped choices for a GPU.
pub fn shipped(vendor: &str, architecture: &str) -> Choices {
    let mut choices = Choices::default();
    // A tile, or Winograd's way for 16 channels; for 32 is what is left to the operation.
    let winograd = match vendor {
        "apple" => Some(2),
        vendor if WINOGRAD.contains(&vendor) || is_software(vendor) => None,
        _ => Some(0),
    };
    for rows in ROWS {
        choices.set(Class::winograd(rows + 1), winograd);
    }
    let fits = |(v, a, _): &&Shipped| *v == vendor && (a.is_empty() || *a == architecture);
    for &(conv, rows, channels, candidate) in SHIPPED.iter().filter(fits).flat_map(|(.., entries)| *entries) {
        choices.set(Class::of(conv, rows, channels), Some(candidate));
    }
    choices
}

/// Turns that all candidates take part in; that those half as slow again as the fastest take part in; that the others
/// take part in at least, and at most.
pub const TURNS: [usize; 4] = [3, 6, 10, 16];
/// Times waver by 3 %: what is faster by less is no reason to leave the usual one.
pub const WAVERS: f64 = 0.97;

/// The fastest of `candidates`. All are timed in turn, and the least time of each counts, which other work disturbs
/// least; after three turns those half as slow again as the fastest drop out, after six those slower by a tenth. It ends
/// after ten turns, or as soon then as four have changed neither the fastest nor, by more than times waver, its time; or
/// where one is left.
/// `usual`, where none is faster by more than that; it stays until it is half as slow again after six turns.
///
/// So where other work only ever adds to a time, a slower one than the best by more than 5 % is chosen only where each of
/// ten times of the best was at least 1.85 % too long (1.05 * 0.97 = 1.0185), or the best dropped out.
///
/// `measure` returns the times of some of them, `None` where the time for tuning is over; then this is `None`.
///
/// # Errors
/// Those of `measure`.
pub async fn search(
    candidates: usize,
    usual: usize,
    mut measure: impl AsyncFnMut(&[usize]) -> Result<Option<Vec<f64>>>,
) -> Result<Option<usize>> {
    let [all, half_slower, enough, most] = TURNS;
    let mut least = vec![f64::INFINITY; candidates];
    let mut best = (usual, f64::INFINITY);
    let (mut turn, mut still) = (0, 0);
    while turn < enough || (still < 4 && turn < most) {
        let bound = match turn {
            turn if turn < all => f64::INFINITY,
            turn if turn < half_slower => 1.5 * best.1,
            _ => 1.1 * best.1,
        };
        // The usual one is gone on with to be sure of the other, unless there is no doubt.
        let kept = if turn < half_slower { f64::INFINITY } else { 1.5 * best.1 };
        let stays = |&i: &usize| least[i] <= bound || (i == usual && least[i] <= kept);
        let left: Vec<usize> = (0..candidates).filter(stays).collect();
        // What has dropped out stays out.
        if let [only] = left[..]
            && turn > 0
        {
            return Ok(Some(only));
        }
        let Some(times) = measure(&left).await? else { return Ok(None) };
        for (i, time) in left.into_iter().zip(times) {
            least[i] = time.min(least[i]);
        }
        let fastest = (0..candidates).min_by(|&a, &b| least[a].total_cmp(&least[b])).unwrap_or(usual);
        still = if fastest == best.0 && least[fastest] >= WAVERS * best.1 { still + 1 } else { 0 };
        best = (fastest, least[fastest]);
        turn += 1;
    }
    Ok(Some(if best.1 < WAVERS * least[usual] { best.0 } else { usual }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_survive_as_text_and_damage_is_seen() {
        let mut choices = Choices::default();
        choices.set_timed(Class::of(true, 8192, 320), 3);
        choices.set_timed(Class::of(false, 128, 1280), 0);
        choices.note_rate(1234.5);
        choices.note_rate(99.0);
        let text = choices.to_text();
        let read = |text: &str, candidates| Choices::default().with_text(text, |_| candidates);
        assert_eq!(read(&text, 4), Some(choices));
        assert_eq!(read(&text, 3), None, "a candidate that is not there");
        assert_eq!(read(&text[2..], 4), None);
        assert_eq!(read(&format!("{text} -"), 4), None);
        assert_eq!(read(text.trim_end_matches(" @1234"), 4), None, "an older version's");
        // What was shipped and never timed is not kept, and stands until it is.
        let mut shipped = Choices::default();
        shipped.set(Class::of(true, 8192, 320), Some(1));
        shipped.set(Class::of(true, 128, 320), Some(2));
        assert!(!shipped.is_timed(Class::of(true, 128, 320)) && !shipped.to_text().contains('2'));
        let both = shipped.with_text(&text, |_| 4).unwrap();
        assert_eq!(
            [both.get(Class::of(true, 8192, 320)), both.get(Class::of(true, 128, 320))],
            [Some(3), Some(2)]
        );
    }

    #[test]
    fn every_class_has_its_own_place() {
        let mut seen = std::collections::BTreeSet::new();
        for conv in [false, true] {
            for rows in [1, 8, 9, 256, 257, 1024, 1025, 4096, 4097] {
                for channels in [1, 640, 641] {
                    seen.insert(Class::of(conv, rows, channels).index());
                }
            }
        }
        for d in [4, 40, 44, 80, 84, 160] {
            seen.extend([77, 256, 257].map(|keys| Class::attention(d, keys).unwrap().index()));
        }
        seen.extend([1, 256, 257, 1024, 1025, 4096].map(|p| Class::group_norm(p).unwrap().index()));
        seen.extend([1, 1024, 1025, 4096, 4097].map(|rows| Class::layer_norm(rows).index()));
        seen.extend([1, 1024, 1025, 4096, 4097].map(|rows| Class::winograd(rows).index()));
        assert_eq!(seen.len(), Class::COUNT);
        assert_eq!(seen.last(), Some(&(Class::COUNT - 1)));
        assert!(Class::all().map(Class::index).eq(0..Class::COUNT));
        assert_eq!((Class::attention(164, 1), Class::group_norm(4097)), (None, None));
    }

    /// Of times known beforehand.
    #[test]
    fn the_search_lands_within_five_percent_of_the_best() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        for _ in 0..2000 {
            let times: Vec<f64> = (0..12).map(|_| 1.0 + 4.0 * random()).collect();
            let usual = (random() * 12.0) as usize;
            let measure = async |which: &[usize]| Ok(Some(which.iter().map(|&i| times[i]).collect()));
            let exact = pollster::block_on(search(12, usual, measure)).unwrap().unwrap();
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(times[exact] <= 1.05 * least);
            assert!(times[exact] <= times[usual]);
        }
        let stopped = pollster::block_on(search(3, 0, async |_| Ok(None))).unwrap();
        assert_eq!(stopped, None);
    }
}
