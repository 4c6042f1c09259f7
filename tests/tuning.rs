//! The tuner on the software driver: how near it comes to timing every candidate for long, and what its choices are
//! worth when something changes.

use browser_diffusion::gpu::tuning::{Choices, Class, key, shipped};
use browser_diffusion::gpu::{Gpu, GpuOptions, Options};
use browser_diffusion::ops::tune::{self, Example, Timer};

/// Small enough that a processor runs each in milliseconds.
const SMALL: [Example; 4] =
    [(true, 16, 64, 64), (true, 8, 64, 704), (false, 32, 64, 320), (false, 8, 320, 704)];

fn open() -> (Gpu, Options) {
    let gpu = pollster::block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let options = Options { subgroup: gpu.subgroup, ..Options::default() };
    (gpu, options)
}

/// Times waver on a processor that others use; the least of many does not.
#[test]
fn choices_are_within_five_percent_of_an_exhaustive_search() {
    let (gpu, options) = open();
    let choices = pollster::block_on(tune::tune(&gpu, &options, &SMALL, f64::INFINITY)).unwrap();
    for example in SMALL {
        let mut timer = Timer::new(&gpu, &options, example).unwrap();
        let mut least = vec![f64::INFINITY; tune::candidates(&options)];
        for _ in 0..12 {
            for (i, time) in least.iter_mut().enumerate() {
                *time = time.min(pollster::block_on(timer.time(i)).unwrap());
            }
        }
        let chosen = choices.get(tune::class(example)).unwrap_or(timer.usual);
        let best = (0..least.len()).min_by(|&a, &b| least[a].total_cmp(&least[b])).unwrap();
        println!(
            "{example:?}: usual {} at {:.3} ms, chosen {chosen} at {:.3}, best {best} at {:.3}",
            timer.usual, least[timer.usual], least[chosen], least[best]
        );
        assert!(least[chosen] <= 1.05 * least[best], "{example:?}");
        assert!(least[chosen] <= 1.03 * least[timer.usual], "{example:?}: slower than before");
    }
}

#[test]
fn no_time_keeps_what_was_there() {
    let (gpu, mut options) = open();
    options.choices.set(Class::of(true, 512, 64), Some(2));
    let choices = pollster::block_on(tune::tune(&gpu, &options, &SMALL, 0.0)).unwrap();
    assert_eq!(choices, options.choices);
}

#[test]
fn choices_are_kept_under_adapter_and_kernels() {
    let (gpu, options) = open();
    let before = key(&gpu, &options, &["fn main() {}", "16x16"]);
    assert_eq!(before, key(&gpu, &options, &["fn main() {}", "16x16"]));
    let changed = key(&gpu, &options, &["fn main() { }", "16x16"]);
    assert_ne!(before, changed);
    // The adapter's part is the same: that is how the page knows what is out of date.
    assert_eq!(before.rsplit_once('|').unwrap().0, changed.rsplit_once('|').unwrap().0);
    assert_ne!(before, key(&gpu, &Options { subgroup: 64, ..options }, &["fn main() {}", "16x16"]));
    assert_eq!(shipped("no such maker", ""), Choices::default());
}
