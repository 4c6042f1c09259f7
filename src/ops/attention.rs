//! Attention that never materialises scores.

use super::input::Columns;
use crate::error::{Error, Result};
use crate::gpu::Scalar::{self, F32, U32};
use crate::gpu::choices::{Class, OFF_F16_ATTENTION, OFF_SMALL_ATTENTION, OFF_SUBGROUP_ATTENTION};
use crate::gpu::{Arithmetic, Binding, Dispatch, Dtype, Kernel, Options, Recorder, Tensor, most_flops};

const TILED: &str = crate::gpu::shader!("attention.wgsl");
const SUBGROUP: &str = crate::gpu::shader!("attention_subgroup.wgsl");
/// All of its text, from which choices are known to be out of date.
pub(super) const TEXTS: [&str; 2] = [TILED, SUBGROUP];

/// softmax(q k^T / sqrt(d)) v, head by head: q [n, 1, length_q, heads * d], k and v [n, 1, length_k, heads * d].
/// They may be columns of one tensor. With `causal`, a query sees the keys up to its own place.
///
/// # Errors
/// `unsupported-model` where shapes do not fit, d is not a multiple of 4 or above 512.
pub fn attention(
    r: &mut Recorder,
    q: impl Into<Columns>,
    k: impl Into<Columns>,
    v: impl Into<Columns>,
    heads: u32,
    causal: bool,
) -> Result<Tensor> {
    let (q, k, v) = (q.into(), k.into(), v.into());
    let [length_q, length_k, length_v] = [q, k, v].map(|x| x.tensor.h * x.tensor.w);
    let n = q.tensor.n;
    let fits = (k.tensor.n, k.c) == (n, q.c) && (v.tensor.n, length_v, v.c) == (n, length_k, k.c);
    if heads == 0 || !fits || !q.c.is_multiple_of(heads) {
        return Err(Error::unsupported(format!(
            "attention with {heads} heads over {}, {} and {} channels",
            q.c, k.c, v.c
        )));
    }
    let d = q.c / heads;
    if !d.is_multiple_of(4) || d > 512 {
        return Err(Error::unsupported(format!(
            "attention heads of {d} channels: multiples of 4 up to 512 are supported"
        )));
    }
    let d4 = d / 4;
    let out = r.tensor(n, q.tensor.h, q.tensor.w, q.c);
    let (kernel, rows) = Way::of(r.options(), d, length_k).kernel(r.options(), d4);
    let flops_a_row = 4 * n as u64 * q.c as u64 * length_k as u64;
    let at_once = rows_at_once(r, &kernel, flops_a_row, rows);
    for first in (0..length_q).step_by(at_once as usize) {
        let count = at_once.min(length_q - first);
        r.dispatch(Dispatch {
            kernel: kernel.clone(),
            bindings: [q, k, v]
                .iter()
                .map(|x| Binding::Read(x.tensor))
                .chain([Binding::Write(out)])
                .collect(),
            params: vec![
                ("length_q", U32(length_q)),
                ("length_k", U32(length_k)),
                ("heads", U32(heads)),
                ("scale", F32(1.0 / (d as f32).sqrt())),
                ("causal", Scalar::flag(causal)),
                ("q_stride", U32(q.stride())),
                ("q_from", U32(q.first())),
                ("k_stride", U32(k.stride())),
                ("k_from", U32(k.first())),
                ("v_stride", U32(v.stride())),
                ("v_from", U32(v.first())),
                ("first_row", U32(first)),
            ],
            workgroups: [count.div_ceil(rows), heads, n],
            flops: flops_a_row * count as u64,
        });
    }
    Ok(out)
}

/// How heads of one width are computed: the tuner's candidates, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through workgroup memory.
    Tiled,
    /// The same in smaller tiles, as wider heads have them: fewer registers a thread, more workgroups.
    Small,
    /// By broadcast within narrow subgroups.
    Subgroup,
}

impl Way {
    const ALL: [Self; 3] = [Self::Tiled, Self::Small, Self::Subgroup];
    /// Vectors of a head beyond which rows of it do not fit into the registers of a lane.
    const MOST: u32 = 24;

    /// How many of them there are for heads of `d` channels.
    pub(super) fn candidates(subgroup: u32, d: u32) -> usize {
        Self::ALL.iter().filter(|way| way.serves(subgroup, d)).count()
    }

    fn serves(self, subgroup: u32, d: u32) -> bool {
        match self {
            Self::Tiled => true,
            Self::Small => d <= 160,
            Self::Subgroup => subgroup > 0 && d <= 4 * Self::MOST,
        }
    }

    /// The tuned one, or the usual one.
    pub(super) fn of(options: &Options, d: u32, keys: u32) -> Self {
        let tuned = Class::attention(d, keys).and_then(|class| options.choices.get(class));
        let tuned = tuned.and_then(|i| Self::ALL.get(i).copied());
        let right = |way: &Self| way.serves(options.subgroup, d) && way.bit() & options.off == 0;
        let usual = if options.subgroup_if_tuned { Self::Tiled } else { Self::Subgroup };
        tuned.or(Some(usual)).filter(right).unwrap_or(Self::Tiled)
    }

    /// That of a kernel.
    pub(super) fn of_kernel(kernel: &Kernel) -> Self {
        let is = |name, value| kernel.defines.contains(&(name, value));
        let define =
            |wanted| kernel.defines.iter().find(|(name, _)| *name == wanted).map_or(0, |&(_, value)| value);
        let usual = Tiling::of(define("D4"), define("F16_ARITHMETIC") > 0);
        match kernel.name {
            "attention_subgroup" => Self::Subgroup,
            // Tiles of two shapes for one width differ in both or in one of these.
            _ if is("ROWS", usual.rows) && is("THREADS", usual.threads) => Self::Tiled,
            _ => Self::Small,
        }
    }

    /// Its place among the candidates.
    pub(super) fn candidate(self) -> usize {
        self as usize
    }

    /// Its bit of [`Options::off`]; 0 for the one without which there is no attention.
    pub(super) fn bit(self) -> u32 {
        match self {
            Self::Tiled => 0,
            Self::Small => OFF_SMALL_ATTENTION,
            Self::Subgroup => OFF_SUBGROUP_ATTENTION,
        }
    }

    /// The kernel, and the queries of a workgroup.
    fn kernel(self, options: &Options, d4: u32) -> (Kernel, u32) {
        let f16 = options.arithmetic == Arithmetic::F16 && options.activations == Dtype::F16;
        let f16 = f16 && options.off & OFF_F16_ATTENTION == 0;
        let tiling = match self {
            Self::Tiled => Tiling::of(d4, f16),
            Self::Small => Tiling::smaller(d4, f16),
            Self::Subgroup => {
                let (threads, q_rows) = (64, if d4 <= 12 { 2 } else { 1 });
                let subgroup = options.subgroup;
                let defines = [("D4", d4), ("SUBGROUP", subgroup), ("THREADS", threads), ("QROWS", q_rows)];
                return (Kernel::new("attention_subgroup", &[SUBGROUP], &defines), threads * q_rows);
            }
        };
        (Kernel::new("attention", &[TILED], &tiling.defines(d4)), tiling.rows)
    }
}

/// The most queries of a dispatch: whole workgroups of `rows`.
pub(super) fn rows_at_once(r: &Recorder, kernel: &Kernel, flops_a_row: u64, rows: u32) -> u32 {
    let most_flops = most_flops(r.options().dispatch_flops(), kernel);
    let most = u32::try_from(most_flops / flops_a_row.max(1)).unwrap_or(u32::MAX);
    most.max(rows) / rows * rows
}

/// How `shaders/attention.wgsl` cuts heads of one width. Registers allow a thread ten vectors of output beside its
/// scores (sixteen of output where these are few), and 16 KiB of workgroup memory are all that WebGPU promises.
struct Tiling {
    threads: u32,
    /// Queries of a workgroup, and keys of a block.
    rows: u32,
    keys: u32,
    /// Vectors of a head's channels at a time.
    slice: u32,
    /// Threads side by side over a head's channels.
    column_threads: u32,
    f16: bool,
}

impl Tiling {
    /// Bytes of workgroup memory.
    const MOST: u32 = 16 << 10;

    fn of(d4: u32, f16: bool) -> Self {
        let shape = match d4 {
            0..=16 if f16 => (64, 64, 16, 16),
            17..=20 if f16 => (64, 32, 32, 20),
            21..=40 if f16 => (128, 32, 64, 8),
            0..=8 => (64, 64, 32, 4),
            9..=10 => (64, 64, 16, 4),
            11..=20 => (128, 64, 32, 4),
            21..=40 => (128, 32, 64, 4),
            _ => (128, 16, 64, 8),
        };
        Self::shaped(d4, f16, shape)
    }

    /// The shape that wider heads have.
    fn smaller(d4: u32, f16: bool) -> Self {
        let shape = match d4 {
            0..=10 => (128, 64, 32, 4),
            11..=20 => (128, 32, 64, 4),
            _ => (128, 16, 64, 8),
        };
        Self::shaped(d4, f16, shape)
    }

    fn shaped(d4: u32, f16: bool, (threads, rows, keys, slice): (u32, u32, u32, u32)) -> Self {
        // Instructions of four keys in tenths, as an M1 counts them: a vector read is 2.3, of 16 multiply-adds each 1.
        let cost = |&column_threads: &u32| {
            let (o_rows, columns) = (rows * column_threads / threads, d4.div_ceil(column_threads));
            23 * (o_rows + 4 * columns) + 160 * o_rows * columns
        };
        // One to four queries a thread: more spill there.
        let least = threads / rows;
        let column_threads = [least, 2 * least, 4 * least].into_iter().min_by_key(cost).unwrap_or(least);
        Self { threads, rows, keys, slice, column_threads, f16 }
    }

    fn defines(&self, d4: u32) -> Vec<(&'static str, u32)> {
        let &Self { threads, rows, keys, column_threads, f16, .. } = self;
        let pair = if f16 { 2 } else { 1 };
        // Vectors side by side that neighbours load: a power of two.
        let load = if f16 { (threads / rows).max(4) } else { self.slice };
        let whole = f16 && self.slice >= d4;
        let slice = if whole { d4.next_multiple_of(load) } else { self.slice };
        let pad = if f16 { 4 } else { 1 };
        let parts = threads / rows;
        let o_columns = d4.div_ceil(column_threads);
        // 16 bytes each from here on.
        let [of_q, of_k] = [rows, keys].map(|n| slice / pair * (n + pad));
        let weights = keys / 4 / pair * rows;
        let scores = if f16 { keys / 4 * rows } else { 0 };
        let tile = |v_slice: u32| {
            let values = v_slice / pair * column_threads * o_columns;
            if whole { of_q + of_k.max(weights + values) } else { (of_q + of_k).max(weights + values) }
        };
        let mut v_slice = keys;
        while 16 * (scores + tile(v_slice)) + 4 * (rows + threads) > Self::MOST {
            v_slice /= 2;
            debug_assert!(v_slice >= 4 * pair);
        }
        let load_rows = threads / load;
        // Else a block's last rows would not be read.
        debug_assert!(rows.is_multiple_of(load_rows) && keys.is_multiple_of(load_rows));
        vec![
            ("D4", d4),
            ("F16_ARITHMETIC", u32::from(f16)),
            ("THREADS", threads),
            ("ROWS", rows),
            ("KEYS", keys),
            ("PAIR", pair),
            ("V_TURNS", 4 / pair),
            ("PAD", pad),
            ("LOAD", load),
            ("CHUNKS", slice / load),
            ("SLICE", slice),
            ("PAIRS", if whole { d4.div_ceil(pair) } else { slice / pair }),
            ("WHOLE", u32::from(whole)),
            ("PADDED", u32::from(!d4.is_multiple_of(slice))),
            ("Q_LOADS", rows / load_rows),
            ("K_LOADS", keys / load_rows),
            ("S_ROWS", rows * keys / 4 / threads),
            ("PARTS", parts),
            ("SPLIT", u32::from(parts > 1)),
            ("W_VECTORS", keys / 4 / parts),
            ("COLUMN_THREADS", column_threads),
            ("O_COLUMNS", o_columns),
            ("O_ROWS", rows * column_threads / threads),
            ("V_SLICE", v_slice),
            ("V_LOADS", (v_slice * column_threads / threads).max(1)),
            ("TILE", tile(v_slice)),
        ]
    }
}
