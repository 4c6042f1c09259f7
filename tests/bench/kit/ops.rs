//! Every operation and every variant against the same in f64, cut into three dispatches or more where it can be cut:
//! `tests/ops/cases`, each way of recording in a thread of its own; then what a page asks of each kernel that a plan
//! chose before its first picture.

use crate::cases::{self, On, Outcome};
use crate::device;
use crate::part::Part;
use crate::plans;
use browser_diffusion::checkpoint::Bits;
use browser_diffusion::gpu::{Gpu, GpuOptions, Options, Plan};
use browser_diffusion::ops::{self, Precision, autotune};
use pollster::block_on;
use serde_json::json;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::time::Instant;

/// What a thread has to say: where, in which way, and what came out.
type Report = (String, &'static str, f64, Result<Vec<Outcome>, String>);

/// One way on one kind of device.
#[derive(Clone)]
struct Job {
    on: &'static str,
    options: GpuOptions,
    way: &'static str,
}

fn jobs(gpu: &Gpu, small: bool) -> Vec<Job> {
    let plain = GpuOptions::default();
    let mut kinds = vec![("as it is", plain.clone())];
    if gpu.shader_f16 {
        kinds.push(("without shader-f16", GpuOptions { without_shader_f16: true, ..plain.clone() }));
    }
    // Elsewhere the first kind has none already.
    if gpu.subgroup > 0 {
        kinds.push(("without subgroups", GpuOptions { without_subgroups: true, ..plain }));
    }
    let mut jobs = Vec::new();
    for (on, options) in kinds {
        for (way, _) in cases::ways(gpu) {
            // Without shader-f16 there is no arithmetic in it.
            if !options.without_shader_f16 || !way.contains("f16") {
                jobs.push(Job { on, options: options.clone(), way });
            }
        }
    }
    // A test has the rest in tests/ops.
    if small {
        let last = jobs.last().map_or("", |job| job.on);
        jobs.retain(|job| job.on == last && job.way == "q4");
    }
    jobs
}

fn run_job(job: &Job) -> Result<Vec<Outcome>, String> {
    let run = || {
        let gpu = block_on(Gpu::new(&job.options)).map_err(|e| e.to_string())?;
        let (way, options) =
            cases::ways(&gpu).into_iter().find(|(way, _)| *way == job.way).ok_or("no such way")?;
        Ok(block_on(cases::of_way(&On { gpu: &gpu, cut: true, rolled: gpu.software }, way, options, 1)))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
    })
}

fn threads(count: usize) -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(count).min(12)
}

/// Every comparison: a row for each way, and one for each that is off.
fn compare(part: &mut Part, gpu: &Gpu) {
    let mut jobs = jobs(gpu, part.small);
    jobs.reverse();
    let count = jobs.len();
    let queue = Mutex::new(jobs);
    part.begin_table(
        "Operations against f64",
        &[
            "device",
            "way",
            "comparisons",
            "cut into >= 3",
            "failed",
            "worst of its tolerance",
            "seconds",
            "what",
        ],
    );
    let (sender, receiver) = mpsc::channel::<Report>();
    std::thread::scope(|scope| {
        for _ in 0..threads(count) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                while let Some(job) = queue.lock().ok().and_then(|mut jobs| jobs.pop()) {
                    let start = Instant::now();
                    let result = run_job(&job);
                    let _ = sender.send((job.on.to_owned(), job.way, start.elapsed().as_secs_f64(), result));
                }
            });
        }
        drop(sender);
        for report in receiver {
            add(part, report);
        }
    });
}

fn add(part: &mut Part, (on, way, seconds, result): Report) {
    let outcomes = match result {
        Ok(outcomes) => outcomes,
        Err(e) => {
            part.fail(&format!("{on}, {way}: {e}"));
            return part.row(json!([on, way, 0, 0, "all", null, seconds, e]));
        }
    };
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| !o.passed()).collect();
    let ratio = |o: &Outcome| if o.tolerance > 0.0 { o.error / o.tolerance } else { o.error };
    let worst = outcomes.iter().map(ratio).fold(0.0, f64::max);
    let cut = outcomes.iter().filter(|o| o.cut.is_some_and(|(_, n)| n >= 3)).count();
    let mut kernels = BTreeMap::<&str, usize>::new();
    for (kernel, _) in outcomes.iter().filter_map(|o| o.cut) {
        *kernels.entry(kernel).or_default() += 1;
    }
    let what = match failed.first() {
        Some(o) => {
            part.fail(&format!("{on}, {}: {:.1e}, at most {:.1e}", o.name, o.error, o.tolerance));
            o.name.clone()
        }
        None => format!("{kernels:?}"),
    };
    part.row(json!([on, way, outcomes.len(), cut, failed.len(), worst, seconds, what]));
}

/// What a page would switch off here, for Stable Diffusion 1.5's UNet and decoder, with every tile.
fn self_test(part: &mut Part) {
    part.begin_table("The self-test", &["precision", "plan", "seconds", "wrong"]);
    let mut ways = vec![("f32", Precision::Auto, None)];
    if !part.small {
        ways.push(("f16", Precision::F16, None));
        ways.extend([("q8", Precision::Auto, Some(Bits::Q8)), ("q4", Precision::Auto, Some(Bits::Q4))]);
    }
    let (sender, receiver) = mpsc::channel::<(&str, String, f64, String)>();
    let (deadline, small) = (part.deadline, part.small);
    std::thread::scope(|scope| {
        for (called, precision, weights) in ways {
            let sender = sender.clone();
            scope.spawn(move || {
                let start = Instant::now();
                let say = |what: String, wrong: String| {
                    let _ = sender.send((called, what, start.elapsed().as_secs_f64(), wrong));
                };
                match block_on(ops::open(precision)) {
                    Ok((gpu, options)) => {
                        try_all(&gpu, &Options { weights, ..options }, deadline, small, say)
                    }
                    // An adapter may be without f16.
                    Err(e) => say("opening".to_owned(), e.to_string()),
                }
            });
        }
        drop(sender);
        for (called, what, seconds, wrong) in receiver {
            if !wrong.is_empty() {
                part.fail(&format!("{called}, {what}: {wrong}"));
            }
            part.row(json!([called, what, seconds, wrong]));
        }
    });
}

fn try_all(gpu: &Gpu, options: &Options, deadline: Instant, small: bool, say: impl Fn(String, String)) {
    let check = |what: String, plan: &Plan| {
        let error = block_on(ops::check(gpu, plan)).err().map(|e| e.to_string());
        say(what, gpu.wrong().into_iter().chain(error).collect::<Vec<_>>().join(", "));
    };
    if small {
        return check("a small UNet".to_owned(), &plans::small_unet(options).plan);
    }
    check("UNet".to_owned(), &plans::unet(options, 64).plan);
    check("VAE decoder".to_owned(), &plans::decoder(options, 64).plan);
    for i in 0..autotune::candidates(options) {
        if Instant::now() >= deadline {
            return;
        }
        let mut tuned = *options;
        for example in autotune::EXAMPLES {
            tuned.choices.set(autotune::class(example), Some(i));
        }
        check(format!("UNet with tile {i}"), &plans::unet(&tuned, 64).plan);
    }
    for i in 1..3 {
        if Instant::now() >= deadline {
            return;
        }
        let mut tuned = *options;
        for work in autotune::WORKS.into_iter().filter(|work| i < work.candidates(options)) {
            if let (Some(class), false) = (work.class(), matches!(work, autotune::Work::Product(_))) {
                tuned.choices.set(class, Some(i));
            }
        }
        check(format!("UNet with attention and norms {i}"), &plans::unet(&tuned, 64).plan);
    }
}

/// The part `ops`.
pub fn run(part: &mut Part) {
    let gpu = device::open();
    println!("{}", gpu.name);
    compare(part, &gpu);
    self_test(part);
}
