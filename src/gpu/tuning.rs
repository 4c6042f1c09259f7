//! Which variant of a kernel serves which shapes: a shipped table by maker and family of the GPU, and the search that
//! refines it on the visitor's own.
//!
//! A variant is known by its place in the list of candidates that the operation has (`crate::ops::tune`). What a search
//! found stays with the page, under [`key`], and is worth nothing once adapter, kernels or candidates change.

use super::context::Gpu;
use super::plan::Options;
use crate::error::Result;

/// What a matrix multiply is like, as far as the choice of its tile goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// A convolution gathers its input.
    pub conv: bool,
    /// Rows of the output: up to 256 (the 8x8 level of a UNet), 1024, 4096, more.
    rows: usize,
    /// Channels of the output: up to 640, more.
    channels: usize,
}

const ROWS: [u32; 3] = [256, 1024, 4096];
const CHANNELS: [u32; 1] = [640];

impl Class {
    pub const COUNT: usize = 2 * (ROWS.len() + 1) * (CHANNELS.len() + 1);

    pub fn of(conv: bool, rows: u32, channels: u32) -> Self {
        let place = |bounds: &[u32], value: u32| bounds.iter().filter(|&&bound| value > bound).count();
        Self { conv, rows: place(&ROWS, rows), channels: place(&CHANNELS, channels) }
    }

    fn index(self) -> usize {
        (usize::from(self.conv) * (ROWS.len() + 1) + self.rows) * (CHANNELS.len() + 1) + self.channels
    }
}

/// The candidate chosen for each class; `None`: what the operation chooses by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices([Option<u8>; Class::COUNT]);

impl Choices {
    pub fn get(&self, class: Class) -> Option<usize> {
        self.0[class.index()].map(usize::from)
    }

    pub fn set(&mut self, class: Class, candidate: Option<usize>) {
        self.0[class.index()] = candidate.and_then(|c| u8::try_from(c).ok());
    }

    /// As text, to be kept: a number or "-" for each class.
    pub fn to_text(&self) -> String {
        let words: Vec<String> =
            self.0.iter().map(|c| c.map_or_else(|| "-".to_owned(), |c| c.to_string())).collect();
        words.join(" ")
    }

    /// Reads [`Choices::to_text`]; `None` where that is damaged, or names a candidate past `candidates`.
    pub fn from_text(text: &str, candidates: usize) -> Option<Self> {
        let mut choices = Self::default();
        let mut words = text.split(' ');
        for choice in &mut choices.0 {
            *choice = match words.next()? {
                "-" => None,
                word => Some(word.parse::<u8>().ok().filter(|&c| usize::from(c) < candidates)?),
            };
        }
        words.next().is_none().then_some(choices)
    }
}

/// Choices for a GPU by maker, family ("" for any) and kernels: (conv, rows, channels, candidate), with the lists of
/// `ops::tune::candidates`. Empty until someone has measured: an entry comes from a table that a visitor copied from
/// `bench.html`.
type Shipped = (&'static str, &'static str, &'static [(bool, u32, u32, usize)]);
const SHIPPED: &[Shipped] = &[];

/// The shipped choices for a GPU.
pub fn shipped(vendor: &str, architecture: &str) -> Choices {
    let mut choices = Choices::default();
    let fits = |(v, a, _): &&Shipped| *v == vendor && (a.is_empty() || *a == architecture);
    for &(conv, rows, channels, candidate) in SHIPPED.iter().filter(fits).flat_map(|(.., entries)| *entries) {
        choices.set(Class::of(conv, rows, channels), Some(candidate));
    }
    choices
}

/// Under what choices are kept: "adapter|variant of the kernels|hash". What shares the first with other hashes is out of
/// date. `kernels`: all that the hash is to cover.
pub fn key(gpu: &Gpu, options: &Options, kernels: &[&str]) -> String {
    // FNV-1a, 64 bits
    let hash = kernels.iter().flat_map(|text| text.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(
        "{} {} {}|{:?} {:?} {}|{hash:016x}",
        gpu.vendor, gpu.architecture, gpu.name, options.arithmetic, options.activations, options.subgroup
    )
}

/// The fastest of `candidates`: each is timed once after a run that compiles it, those within twice the best three times
/// more in turn, and the least counts, which other work on the GPU disturbs least. `None`: none is faster than `usual` by
/// more than what such times waver.
///
/// `measure` returns a time, `None` where the time for tuning is over.
///
/// # Errors
/// Those of `measure`.
pub async fn search(
    candidates: usize,
    usual: usize,
    mut measure: impl AsyncFnMut(usize) -> Result<Option<f64>>,
) -> Result<Option<usize>> {
    let mut best = vec![f64::INFINITY; candidates];
    for (i, time) in best.iter_mut().enumerate() {
        let Some(first) = measure(i).await? else { return Ok(None) };
        *time = first;
    }
    let bound = 2.0 * best.iter().copied().fold(f64::INFINITY, f64::min);
    for _ in 0..3 {
        for (i, time) in best.iter_mut().enumerate() {
            if *time <= bound || i == usual {
                let Some(again) = measure(i).await? else { return Ok(None) };
                *time = time.min(again);
            }
        }
    }
    const WAVERS: f64 = 0.97;
    let fastest = (0..candidates).min_by(|&a, &b| best[a].total_cmp(&best[b]));
    Ok(fastest.filter(|&i| best[i] < WAVERS * best[usual]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_survive_as_text_and_damage_is_seen() {
        let mut choices = Choices::default();
        choices.set(Class::of(true, 8192, 320), Some(3));
        choices.set(Class::of(false, 128, 1280), Some(0));
        let text = choices.to_text();
        assert_eq!(Choices::from_text(&text, 4), Some(choices));
        assert_eq!(Choices::from_text(&text, 3), None, "a candidate that is not there");
        assert_eq!(Choices::from_text(&text[2..], 4), None);
        assert_eq!(Choices::from_text(&format!("{text} -"), 4), None);
    }

    #[test]
    fn every_class_has_its_own_place() {
        let mut seen = std::collections::BTreeSet::new();
        for conv in [false, true] {
            for rows in [1, 256, 257, 1024, 1025, 4096, 4097] {
                for channels in [1, 640, 641] {
                    seen.insert(Class::of(conv, rows, channels).index());
                }
            }
        }
        assert_eq!(seen.len(), Class::COUNT);
        assert_eq!(seen.last(), Some(&(Class::COUNT - 1)));
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
            let exact =
                pollster::block_on(search(12, usual, async |i| Ok(Some(times[i])))).unwrap().unwrap_or(usual);
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(times[exact] <= 1.05 * least);
            assert!(times[exact] <= times[usual]);
        }
        let stopped = pollster::block_on(search(3, 0, async |i| Ok((i < 2).then_some(1.0)))).unwrap();
        assert_eq!(stopped, None);
    }
}
