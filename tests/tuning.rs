//! The tuner on the software driver: how near it comes to timing every candidate for long, and what its choices are
//! worth when something changes.

use browser_diffusion::gpu::choices::{Choices, Class, search, shipped};
use browser_diffusion::gpu::{Gpu, GpuOptions, Options};
use browser_diffusion::ops::autotune::{self, Example, Timer};

/// Small enough that a processor runs each in milliseconds.
const SMALL: [Example; 4] =
    [(true, 16, 128, 128), (true, 8, 64, 704), (false, 32, 64, 320), (false, 8, 320, 704)];

fn open() -> (Gpu, Options) {
    let gpu = pollster::block_on(Gpu::new(&GpuOptions::default())).unwrap();
    let options = Options { subgroup: gpu.subgroup, ..Options::default() };
    (gpu, options)
}

/// Nanoseconds that all threads of this process have run: what the software driver's work costs, whoever else uses the
/// processor, where the clock on the wall tells more of the others.
fn processor_time() -> f64 {
    let of = |task: std::fs::DirEntry| -> Option<f64> {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| of(task.ok()?)).sum()
}

/// One test at a time: processor time is the whole process's, and the time of threads that end is lost to it.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The search and the exhaustive one see the same costs, measured anew each time.
#[test]
fn the_search_is_within_five_percent_of_an_exhaustive_one() {
    let _alone = alone();
    let (gpu, options) = open();
    for example in SMALL {
        let timer = pollster::block_on(Timer::new(&gpu, &options, example)).unwrap();
        let count = timer.candidates();
        let cost = |i: usize| {
            // Whatever ran before has left the caches to itself.
            timer.executable(i).run(&gpu);
            pollster::block_on(gpu.idle()).unwrap();
            let before = processor_time();
            (0..2).for_each(|_| timer.executable(i).run(&gpu));
            pollster::block_on(gpu.idle()).unwrap();
            (processor_time() - before) / 2.0
        };
        let measure = async |which: &[usize]| Ok(Some(which.iter().map(|&i| cost(i)).collect()));
        let chosen = pollster::block_on(search(count, timer.usual, measure)).unwrap().unwrap();
        let mut least = vec![f64::INFINITY; count];
        for _ in 0..12 {
            least.iter_mut().enumerate().for_each(|(i, time)| *time = time.min(cost(i)));
        }
        let best = (0..count).min_by(|&a, &b| least[a].total_cmp(&least[b])).unwrap();
        let ms = |i: usize| least[i] / 1e6;
        let usual = timer.usual;
        println!(
            "{example:?}: usual {usual} {:.3} ms, chosen {chosen} {:.3}, best {best} {:.3}",
            ms(usual),
            ms(chosen),
            ms(best)
        );
        assert!(least[chosen] <= 1.05 * least[best], "{example:?}");
        assert!(least[chosen] <= least[usual], "{example:?}: slower than before");
    }
}

#[test]
fn tuned_plans_are_recorded_with_the_chosen_tiles() {
    let _alone = alone();
    let (gpu, options) = open();
    let choices = pollster::block_on(autotune::tune(&gpu, &options, &SMALL[..1], || false)).unwrap();
    let tuned = Options { choices, ..options };
    let timer = pollster::block_on(Timer::new(&gpu, &tuned, SMALL[0])).unwrap();
    assert_eq!(Some(timer.usual), choices.get(autotune::class(SMALL[0])));
}

#[test]
fn no_time_keeps_what_was_there() {
    let _alone = alone();
    let (gpu, mut options) = open();
    options.choices.set(Class::of(true, 512, 64), Some(2));
    let choices = pollster::block_on(autotune::tune(&gpu, &options, &SMALL, || true)).unwrap();
    assert_eq!(choices, options.choices);
}

/// A visit that is cut short keeps what it has timed, and the next one goes on behind it.
#[test]
fn unfinished_tuning_is_gone_on_with() {
    const EXAMPLES: [Example; 2] = [SMALL[1], SMALL[2]];
    let _alone = alone();
    let (gpu, options) = open();
    let mut kept = Choices::default().to_text();
    for visit in 1..=EXAMPLES.len() {
        let before = Choices::default().with_text(&kept, autotune::candidates(&options)).unwrap();
        let tuned = Options { choices: before, ..options };
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            false
        };
        // Visit by visit one class more.
        let choices = pollster::block_on(autotune::tune(&gpu, &tuned, &EXAMPLES[..visit], stop)).unwrap();
        assert!(asked.get() > 5, "class {visit} was not timed yet");
        // What was timed is not timed again.
        asked.set(0);
        let again = Options { choices, ..options };
        let same = pollster::block_on(autotune::tune(&gpu, &again, &EXAMPLES[..visit], stop)).unwrap();
        assert_eq!((same, asked.get()), (choices, 0));
        kept = choices.to_text();
        let all = Choices::default().with_text(&kept, autotune::candidates(&options)).unwrap();
        assert_eq!(autotune::is_complete(&all, &EXAMPLES), visit == EXAMPLES.len());
    }
}

#[test]
fn choices_are_kept_under_adapter_and_kernels() {
    let _alone = alone();
    let (gpu, options) = open();
    let before = autotune::key_of(&gpu, &options, &["fn main() {}", "16x16"]);
    assert_eq!(before, autotune::key_of(&gpu, &options, &["fn main() {}", "16x16"]));
    let changed = autotune::key_of(&gpu, &options, &["fn main() { }", "16x16"]);
    assert_ne!(before, changed);
    // The adapter's part is the same: that is how the page knows what is out of date.
    assert_eq!(before.rsplit_once('|').unwrap().0, changed.rsplit_once('|').unwrap().0);
    assert_ne!(
        before,
        autotune::key_of(&gpu, &Options { subgroup: 64, ..options }, &["fn main() {}", "16x16"])
    );
    assert_eq!(shipped("no such maker", ""), Choices::default());
    assert_eq!(shipped("intel", "xe-2lpg").get(Class::of(true, 8192, 320)), Some(2));
}
