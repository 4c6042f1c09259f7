//! Every op against a plain f64 reference over random shapes: odd sizes, 1, and what the tiles do not divide.
//!
//! Shared by the native test (`tests/ops/main.rs`) and the browser test (`tests/web/ops_check.rs`).
//!
//! Tolerances are relative L2 errors, derived from the arithmetic. u = 2^-11 is the worst rounding to f16.
//! - Storing the output rounds it once: u.
//! - Sums in f32 of K products add at most about K 2^-24 when signs are random.
//! - With f16 products, each product and each of the three sums of a four-wide dot rounds: at most 4 u of the
//!   terms, and independent errors add up as the terms themselves do, so 4 u of the result.

mod adapted;
mod attention;
mod case;
mod convolution;
mod matmul;
mod norm;
mod pointwise;
mod probe;
mod reference;

use adapted::adapted;
use attention::{attention, long_attention};
use browser_diffusion::checkpoint::Bits;
use browser_diffusion::gpu::choices::Class;
use browser_diffusion::gpu::{Arithmetic, Dtype, Gpu, Options};
use browser_diffusion::ops::autotune;
pub use case::{On, Outcome};
use convolution::{Shape, convolution, convolution_of, with_shortcut};
use matmul::{geglu, matmul, normed, stack};
use norm::{group_norm, layer_norm};
use pointwise::{pointwise, rows};
use probe::{channels, word_map};

/// The same with candidate `i` for whatever shape.
fn with_tile(options: Options, i: usize) -> Options {
    let mut tiled = options;
    for conv in [false, true] {
        // One of every class.
        for rows in [8, 256, 1024, 4096, 4097] {
            for channels in [640, 641] {
                tiled.choices.set(Class::of(conv, rows, channels), Some(i));
            }
        }
    }
    tiled
}

/// The same with candidate `i` for attention and norms of whatever shape.
fn with_way(options: Options, i: usize) -> Options {
    let mut other = options;
    for class in Class::all().filter(|class| !matches!(class, Class::Product { .. })) {
        other.choices.set(class, Some(i));
    }
    other
}

/// Every way of recording that this adapter can run, and what it is called.
pub fn ways(gpu: &Gpu) -> Vec<(&'static str, Options)> {
    let mut ways = vec![
        ("f32", Options::default()),
        ("f32 stored wide", Options { activations: Dtype::F32, ..Options::default() }),
        ("q8", Options { weights: Some(Bits::Q8), ..Options::default() }),
        ("q4", Options { weights: Some(Bits::Q4), ..Options::default() }),
        (
            "q4 stored wide",
            Options { activations: Dtype::F32, weights: Some(Bits::Q4), ..Options::default() },
        ),
    ];
    if gpu.shader_f16 {
        let f16 = Options { arithmetic: Arithmetic::F16, ..Options::default() };
        ways.push(("f16", f16));
        ways.push(("q8 in f16", Options { weights: Some(Bits::Q8), ..f16 }));
    }
    ways
}

/// Every op under one way of recording.
pub async fn of_way(on: &On<'_>, way: &str, options: Options, rounds: u64) -> Vec<Outcome> {
    let options = Options { subgroup: on.gpu.subgroup, ..options };
    let mut outcomes = products(on, &options, rounds).await;
    // How weights and activations are read does not depend on the tile.
    if ["f32", "f16"].contains(&way) {
        outcomes.extend(tiles(on, &options).await);
    }
    if options.weights.is_none() {
        outcomes.extend(without_matrices(on, &options, rounds).await);
        outcomes.extend(others(on, &options).await);
    }
    for outcome in &mut outcomes {
        outcome.name = format!("{way}: {}", outcome.name);
    }
    outcomes
}

async fn products(on: &On<'_>, options: &Options, rounds: u64) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for seed in 0..rounds * 6 {
        outcomes.push(convolution(on, options, seed).await);
    }
    if options.weights.is_some() {
        for shape in [[5, 36, 40, 3], [300, 64, 200, 12]] {
            for part in [Some(0), Some(2), None] {
                outcomes.push(adapted(on, options, shape, part).await);
            }
        }
        // Of the random shapes few are wide enough to be quantised.
        for seed in 100..100 + rounds * 6 {
            outcomes.push(convolution_of(on, options, seed, Shape::Large).await);
        }
    }
    for seed in 0..rounds * 2 {
        outcomes.push(with_shortcut(on, options, seed).await);
    }
    for seed in 200..200 + rounds * 6 {
        let by_winograd = with_way(*options, 1 + seed as usize % 2);
        outcomes.push(convolution_of(on, &by_winograd, seed, Shape::Plain).await);
    }
    for (m, k, n) in
        [(1, 1, 1), (3, 37, 5), (8, 320, 64), (130, 75, 33), (64, 512, 128), (700, 40, 321), (1024, 64, 512)]
    {
        outcomes.push(matmul(on, options, m, k, n).await);
    }
    // Rows of f16 that do not end where a binding may begin, and of blocks.
    outcomes.push(stack(on, options, 37, 20, [24, 4, 12]).await);
    outcomes.push(stack(on, options, 70, 100, [40, 36, 64]).await);
    outcomes.push(geglu(on, options, 5, 12, 4, true).await);
    outcomes.push(geglu(on, options, 90, 70, 52, false).await);
    outcomes.push(geglu(on, options, 300, 64, 200, true).await);
    outcomes
}

/// Every tile.
async fn tiles(on: &On<'_>, options: &Options) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for i in 0..autotune::candidates(options) {
        let options = with_tile(*options, i);
        let seed = 1000 + i as u64;
        outcomes.push(convolution(on, &options, seed).await);
        outcomes.push(if i % 2 == 0 {
            with_shortcut(on, &options, seed).await
        } else {
            normed(on, &options, seed).await
        });
        if on.cut {
            // Rows for four workgroups of the largest.
            outcomes.push(matmul(on, &options, 200, 40, 36).await);
        }
    }
    outcomes
}

/// Ways of attention and norms beside the usual ones.
async fn others(on: &On<'_>, options: &Options) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for i in 1..=2 {
        let options = with_way(*options, i);
        for d in [4, 40, 64, 80, 96, 128, 160] {
            outcomes.push(attention(on, &options, 2000 + d as u64, d).await);
            if on.cut {
                outcomes.push(long_attention(on, &options, 2000 + d as u64, d).await);
            }
        }
        outcomes.push(group_norm(on, &options, 2000, false).await);
        outcomes.push(normed(on, &options, 2000).await);
    }
    outcomes
}

async fn without_matrices(on: &On<'_>, options: &Options, rounds: u64) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for seed in 0..rounds {
        for d in [4, 8, 12, 40, 64, 80, 96, 128, 160, 260, 512] {
            outcomes.push(attention(on, options, seed * 100 + d as u64, d).await);
        }
        if on.cut {
            for d in [8, 40, 64, 80, 160] {
                outcomes.push(long_attention(on, options, seed * 100 + d as u64, d).await);
            }
        }
        outcomes.push(normed(on, options, 2 * seed).await);
        outcomes.push(normed(on, options, 2 * seed + 1).await);
        outcomes.extend(small_ones(on, options, seed).await);
    }
    outcomes.push(group_norm(on, options, 1000, true).await);
    outcomes
}

/// What compiles at once.
async fn small_ones(on: &On<'_>, options: &Options, seed: u64) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for d in [4, 40, 160] {
        outcomes.push(word_map(on, options, seed * 100 + d as u64, d).await);
    }
    outcomes.push(channels(on, options, seed).await);
    outcomes.push(group_norm(on, options, seed, false).await);
    outcomes.push(group_norm(on, options, seed + 50, false).await);
    outcomes.push(layer_norm(on, options, seed).await);
    outcomes.extend(pointwise(on, options, seed * 10).await);
    outcomes.extend(rows(on, options, seed).await);
    outcomes
}

/// Every shader that runs without subgroups, with each of its `#if`s as [`of_way`] has them, by few kernels: for where
/// a kernel takes seconds to compile, and tiles and widths of heads run elsewhere. `tests/ops/main.rs` holds it to that.
pub async fn every_branch(on: &On<'_>) -> Vec<Outcome> {
    let ways = ways(on.gpu);
    // Without shader-f16 there are no ways in f16: the plain ones again.
    let way = |name: &str, or: &str| {
        let of = |name: &str| ways.iter().find(|(way, _)| *way == name).map(|(_, options)| *options);
        of(name).or(of(or)).unwrap()
    };
    let (plain, wide, f16) = (way("f32", "f32"), way("f32 stored wide", "f32"), way("f16", "f32"));
    let (q4, q8) = (way("q4 stored wide", "q4"), way("q8 in f16", "q8"));
    let mut outcomes = vec![
        convolution(on, &with_tile(plain, 2), 1001).await,
        with_shortcut(on, &with_tile(plain, 4), 1).await,
        matmul(on, &plain, 2, 320, 64).await,
        geglu(on, &plain, 5, 12, 4, true).await,
        normed(on, &with_tile(plain, 4), 1).await,
        normed(on, &plain, 0).await,
        attention(on, &plain, 40, 40).await,
        attention(on, &plain, 80, 80).await,
        convolution_of(on, &with_way(plain, 1), 200, Shape::Plain).await,
        convolution(on, &with_tile(f16, 0), 1000).await,
        normed(on, &with_tile(f16, 3), 2).await,
        convolution_of(on, &with_tile(q4, 3), 100, Shape::Large).await,
        convolution_of(on, &with_way(q8, 2), 203, Shape::Plain).await,
        adapted(on, &q8, [5, 36, 40, 3], Some(0)).await,
        adapted(on, &q8, [5, 36, 40, 3], None).await,
        group_norm(on, &plain, 1000, true).await,
        group_norm(on, &with_way(plain, 1), 2000, false).await,
    ];
    for options in [plain, wide] {
        outcomes.extend(small_ones(on, &options, 0).await);
    }
    outcomes
}
