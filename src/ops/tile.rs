//! How a matrix multiply divides its output among workgroups, and the text of its shader.

use crate::gpu::choices::{Class, OFF_WINOGRAD};
use crate::gpu::{Kernel, Options};
use std::fmt;

const OPERANDS: &str = crate::gpu::shader!("matmul_operands.wgsl");
const EPILOGUE: &str = crate::gpu::shader!("matmul_epilogue.wgsl");
const LAYER_NORM: &str = crate::gpu::shader!("matmul_layer_norm.wgsl");
const SHARED: &str = crate::gpu::shader!("matmul.wgsl");
const SUBGROUP: &str = crate::gpu::shader!("matmul_subgroup.wgsl");
const SPLIT: &str = crate::gpu::shader!("matmul_split.wgsl");
const WINOGRAD: &str = crate::gpu::shader!("winograd.wgsl");
/// All of its text, from which choices of tiles are known to be out of date.
pub(super) const TEXTS: [&str; 7] = [OPERANDS, EPILOGUE, LAYER_NORM, SHARED, SUBGROUP, SPLIT, WINOGRAD];

/// What the shader is put together from.
pub(super) fn files(tile: Tile, layer_norm: bool) -> Vec<&'static str> {
    let mut files = vec![OPERANDS, EPILOGUE, tile.file()];
    files.extend(layer_norm.then_some(LAYER_NORM));
    files
}

/// How a workgroup divides the output (see `shaders/matmul.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    /// `sx` x `sy` subgroups of `size` lanes, each `rows` rows by four channels a lane.
    Subgroup { size: u32, rows: u32, sx: u32, sy: u32 },
    /// `wx` x 8 threads through workgroup memory, each `tm` rows by `4 * tn` channels.
    Shared { wx: u32, tm: u32, tn: u32 },
    /// 64 threads, which share the inputs of `rows` rows by four channels among them.
    Split { rows: u32 },
    /// 256 threads make 16 x 8 outputs of a 3x3 convolution by `16 * blocks` channels (see `shaders/winograd.wgsl`).
    Winograd { blocks: u32 },
}

impl Tile {
    /// Workgroups that fill a GPU.
    const ENOUGH: u32 = 128;
    /// Threads down a shared tile.
    const WY: u32 = 8;
    /// Threads of a workgroup that splits its inputs.
    const SPLIT: u32 = 64;

    /// Where there are rows enough.
    const SPLIT_TILE: Self = Tile::Split { rows: 8 };

    /// The tuner's candidates for a 3x3 convolution: a tile, or one of Winograd's.
    pub(super) const WINOGRAD: [Option<Self>; 3] =
        [None, Some(Tile::Winograd { blocks: 2 }), Some(Tile::Winograd { blocks: 1 })];

    /// How many down and across a picture make a block of Winograd's, which counts as a row.
    pub(super) const BLOCK: [u32; 2] = [8, 16];

    /// How many of them down and across an output of this height and width.
    pub(super) fn blocks([h, w]: [u32; 2]) -> [u32; 2] {
        let [down, across] = Self::BLOCK;
        [h.div_ceil(down), w.div_ceil(across)]
    }

    /// Outputs of a channel that count as a row.
    pub(super) fn outputs(self) -> u32 {
        match self {
            Tile::Winograd { .. } => Self::BLOCK.iter().product(),
            _ => 1,
        }
    }

    /// Rows of a workgroup.
    pub(super) fn rows(self) -> u32 {
        match self {
            Tile::Subgroup { rows, sy, .. } => rows * sy,
            Tile::Shared { tm, .. } => tm * Self::WY,
            Tile::Split { rows } => rows,
            Tile::Winograd { .. } => 1,
        }
    }

    /// Channels of a workgroup.
    pub(super) fn columns(self) -> u32 {
        match self {
            Tile::Subgroup { size, sx, .. } => 4 * size * sx,
            Tile::Shared { wx, tn, .. } => 4 * wx * tn,
            Tile::Split { .. } => 4,
            Tile::Winograd { blocks } => 16 * blocks,
        }
    }

    /// What may be chosen for a GPU whose subgroups have so many lanes (0: no matter).
    pub(super) fn candidates(subgroup: u32) -> Vec<Tile> {
        let mut tiles: Vec<Tile> = [(8, 8, 2), (16, 8, 2), (8, 4, 2), (8, 4, 1), (8, 2, 1)]
            .map(|(wx, tm, tn)| Tile::Shared { wx, tm, tn })
            .to_vec();
        tiles.push(Self::SPLIT_TILE);
        if let Some(wide) = 16u32.checked_div(subgroup).map(|n| n.max(1)) {
            for (rows, sx, sy) in
                [(16, wide, 4), (16, wide, 2), (16, 1, 4), (16, 1, 2), (8, wide, 4), (8, 1, 2), (8, 1, 1)]
            {
                let tile = Tile::Subgroup { size: subgroup, rows, sx, sy };
                if !tiles.contains(&tile) {
                    tiles.push(tile);
                }
            }
        }
        tiles
    }

    /// The tuned tile, or the usual one, for an output of `m` rows by `n` channels, each of `k4` vectors of input.
    pub(super) fn of(options: &Options, conv: bool, m: u32, n: u32, k4: u32) -> Self {
        let tuned = options.choices.get(Class::of(conv, m, n));
        let tuned = tuned.and_then(|i| Self::candidates(options.subgroup).get(i).copied());
        let right = |tile: &Self| tile.bit() & options.off == 0;
        let usual = if options.subgroup_if_tuned { 0 } else { options.subgroup };
        tuned.filter(right).unwrap_or_else(|| Self::choose(usual, m, n, k4, right))
    }

    /// Winograd's way for a 3x3 convolution to `n` channels at each of `m` positions, in so many blocks, from `c4` vectors
    /// of channels at each tap: as the tuner or the maker's table has it, or else where it fills a GPU.
    pub(super) fn winograd(options: &Options, [m, n, blocks, c4]: [u32; 4]) -> Option<Self> {
        let [down, across] = Self::BLOCK;
        if 2 * blocks * down * across > 3 * m {
            // Too much of them lies outside.
            return None;
        }
        let of = |way: usize| Self::WINOGRAD.get(way).copied().flatten();
        let fills = |tile: &Self| {
            c4 >= 8 && n >= tile.columns() && blocks * n.div_ceil(tile.columns()) >= Self::ENOUGH
        };
        let by_subgroups = options.subgroup > 0 && !options.subgroup_if_tuned;
        let tile = match options.choices.get(Class::winograd(m)) {
            Some(way) => of(way),
            None if by_subgroups => None,
            None => [1, 2].into_iter().filter_map(of).find(fills),
        };
        tile.filter(|tile| tile.bit() & options.off == 0)
    }

    /// The tile of a product's kernel.
    pub(super) fn of_kernel(kernel: &Kernel) -> Option<Self> {
        let subgroup = kernel.defines.iter().find(|(name, _)| *name == "SUBGROUP")?.1;
        let narrow = [1, 2, 4].map(|rows| Tile::Split { rows });
        let mut all =
            Self::candidates(subgroup).into_iter().chain(narrow).chain(Self::WINOGRAD.into_iter().flatten());
        all.find(|tile| tile.defines().iter().all(|define| kernel.defines.contains(define)))
    }

    /// Its place among the candidates; `None` for one that is chosen for few rows alone.
    pub(super) fn candidate(self) -> Option<usize> {
        let size = if let Tile::Subgroup { size, .. } = self { size } else { 0 };
        Self::candidates(size).iter().position(|&tile| tile == self)
    }

    /// Its bit of [`Options::off`]: one for all that split.
    pub(super) fn bit(self) -> u32 {
        if let Tile::Winograd { blocks } = self {
            return OFF_WINOGRAD[blocks as usize - 1];
        }
        let of = if let Tile::Split { .. } = self { Self::SPLIT_TILE } else { self };
        of.candidate().map_or(0, |i| 1 << i)
    }

    /// The largest of the `right` tiles that still leaves workgroups enough to fill a GPU.
    fn choose(subgroup: u32, m: u32, n: u32, k4: u32, right: impl Fn(&Self) -> bool) -> Self {
        let mut tiles = match 16u32.checked_div(subgroup).map(|n| n.max(1)) {
            Some(wide) => [(16, wide, 4), (16, 1, 2), (8, 1, 1)]
                .map(|(rows, sx, sy)| Tile::Subgroup { size: subgroup, rows, sx, sy })
                .to_vec(),
            None => [(8, 2), (4, 2), (4, 1), (2, 1)].map(|(tm, tn)| Tile::Shared { wx: 8, tm, tn }).to_vec(),
        };
        // Where each of the threads that share a sum has something to add. Subgroups that share their rows read less of
        // more than a few. Rows that one such workgroup covers leave most of any other tile empty.
        if k4 >= Self::SPLIT && (subgroup == 0 || m <= 8) {
            let split = Tile::Split { rows: m.next_power_of_two().min(8) };
            if subgroup == 0 && m <= 8 && right(&split) {
                return split;
            }
            tiles.push(split);
        }
        if !tiles.iter().any(&right) {
            tiles = Self::candidates(subgroup);
        }
        let fills = |t: &&Tile| m.div_ceil(t.rows()) * n.div_ceil(t.columns()) >= Self::ENOUGH;
        let right = || tiles.iter().filter(|t| right(t));
        // Where none is left, the self-test says so.
        *right().find(fills).or(right().last()).unwrap_or(&tiles[0])
    }

    /// The part of the shader that has its `main`.
    fn file(self) -> &'static str {
        match self {
            Tile::Subgroup { .. } => SUBGROUP,
            Tile::Shared { .. } => SHARED,
            Tile::Split { .. } => SPLIT,
            Tile::Winograd { .. } => WINOGRAD,
        }
    }

    /// The shader's names for the slices that pass through workgroup memory: vectors of k, and those of A, and of four
    /// channels of W, that a thread reads of each. In f16 a slice is 32 products, which are summed so.
    pub(super) fn slices(self, f16: bool) -> Vec<(&'static str, u32)> {
        match self {
            Tile::Shared { wx, tm, tn } => {
                let w_loads = if f16 { tn } else { 1 };
                let slice = Self::WY / tn * w_loads;
                vec![("BK4", slice), ("A_LOADS", tm * slice / wx), ("W_LOADS", w_loads)]
            }
            _ => Vec::new(),
        }
    }

    /// The shader's names for it.
    pub(super) fn defines(self) -> Vec<(&'static str, u32)> {
        match self {
            Tile::Subgroup { size, rows, sx, sy } => vec![
                ("SUBGROUP", size),
                ("ROWS", rows),
                ("LANES", rows.min(size)),
                ("SLOTS", rows.div_ceil(size)),
                ("SX", sx),
                ("SY", sy),
            ],
            Tile::Shared { wx, tm, tn } => vec![
                ("SUBGROUP", 0),
                ("SPLIT", 0),
                ("WX", wx),
                ("WY", Self::WY),
                ("TM", tm),
                ("TN", tn),
                // How many threads share one of the rows of A to find its moments.
                ("SHARE", 4),
                ("SHARES", 4 * tm / wx),
            ],
            Tile::Split { rows } => vec![
                ("SUBGROUP", 0),
                ("SPLIT", 1),
                ("WX", Self::SPLIT),
                ("WY", 1),
                ("TM", rows),
                ("TN", 1),
                ("SHARE", Self::SPLIT / rows),
                ("SHARES", 1),
            ],
            Tile::Winograd { blocks } => vec![("SUBGROUP", 0), ("BLOCKS", blocks)],
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self {
            Tile::Subgroup { .. } => "by subgroups",
            Tile::Shared { .. } => "by workgroup memory",
            Tile::Split { .. } => "with split sums",
            Tile::Winograd { .. } => "by Winograd's way",
        };
        write!(f, "{}x{} {how}", self.rows() * self.outputs(), self.columns())
    }
}
