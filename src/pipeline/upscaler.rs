//! Pictures enlarged by an ESRGAN, tile by tile.

use super::request::Picture;
use super::tiles::{Field, windows};
use crate::checkpoint::kind::kind;
use crate::checkpoint::{Located, ReadAt, Table};
use crate::error::{Error, Result, check_aborted};
use crate::gpu::{Dtype, Executable, Gpu, Options, Plan, Recorder, Tensor, Weights};
use crate::models::rrdbnet::{self, Config};
use crate::ops::sound;
use crate::ops::{self, Precision};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What a tile sees beyond what is kept of it, in the network's input: of a deep trunk nearly all, of Real-ESRGAN's own
/// default (10 pixels) more than all.
const PAD: usize = 32;
/// Sides of tiles, with the padding, from the best to the smallest.
const TILES: [usize; 6] = [512, 384, 256, 192, 128, 96];
/// Pixels of a result: 256 MiB of RGBA.
const MOST: u64 = 1 << 26;

/// An ESRGAN on the GPU.
pub struct Upscaler {
    gpu: Gpu,
    config: Config,
    options: Options,
    weights: Weights,
    plan: RefCell<Option<TilePlan>>,
}

struct TilePlan {
    h: usize,
    w: usize,
    /// Recorded in f32 activations.
    wide: bool,
    executable: Executable,
    input: Tensor,
    out: Tensor,
}

impl Upscaler {
    /// Reads a .pth or .safetensors file of an ESRGAN's or a Real-ESRGAN's RRDBNet.
    ///
    /// # Errors
    /// `unsupported-model` for another network; `bad-checkpoint`; `webgpu-unavailable`; `aborted`; what the file fails
    /// with.
    pub async fn load<R: ReadAt>(
        file: &R,
        precision: Precision,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Upscaler> {
        let table = Table::open(file).await?;
        // A file of training has the averaged weights and the last ones.
        let averaged = table.tensors.iter().any(|t| t.name.starts_with("params_ema."));
        let wanted = |t: &&Located| !averaged || t.name.starts_with("params_ema.");
        let mut tensors: Vec<&Located> = table.tensors.iter().filter(wanted).collect();
        tensors.sort_by_key(|t| t.order());
        if let Some(tensor) = tensors.iter().find(|t| t.shape.contains(&0)) {
            return Err(tensor.empty());
        }
        let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        let known = kind(names.iter().copied()).filter(|kind| !kind.is_of("`Upscaler`"));
        let names = rrdbnet::canonical(&names).map_err(|error| match known {
            Some(kind) => Error::unsupported(format!(
                "The file is {kind}. Choose an ESRGAN's here, such as RealESRGAN_x4plus.pth"
            )),
            None => error,
        })?;
        let shapes: BTreeMap<String, Vec<u64>> =
            names.iter().zip(&tensors).map(|(name, t)| (name.clone(), t.shape.clone())).collect();
        let config = Config::of(&shapes)?;
        if config.scale() == 0 {
            return Err(Error::unsupported("This network shrinks pictures. Choose one that enlarges them."));
        }
        check_aborted(aborted)?;
        let (gpu, options) = ops::open(precision).await?;
        let (plan, ..) = record(&config, &options, TILES[TILES.len() - 1], TILES[TILES.len() - 1])?;
        plan.check(&gpu.limits)?;
        let weights = Weights::allocate(&gpu, plan.weights());
        let pieces = config.pieces();
        for (name, tensor) in names.iter().zip(tensors) {
            check_aborted(aborted)?;
            let values = table.values(file, tensor).await?;
            let rows = tensor.shape[0] as usize;
            for piece in pieces.iter().filter(|p| p.tensor == *name) {
                let part = match &piece.channels {
                    // [out, in, 3, 3], of which some inputs.
                    Some(channels) => {
                        let (from, to) = (9 * channels.start as usize, 9 * channels.end as usize);
                        let rows = values.chunks_exact(values.len() / rows);
                        rows.flat_map(|row| &row[from..to]).map(|v| v * piece.scale).collect()
                    }
                    None => values.iter().map(|v| v * piece.scale).collect::<Vec<f32>>(),
                };
                weights.upload(&gpu, &piece.name, &part)?;
            }
        }
        gpu.check()?;
        Ok(Upscaler { gpu, config, options, weights, plan: RefCell::default() })
    }

    /// The GPU that it is on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// How many times as large pictures become, each way.
    pub fn scale(&self) -> u32 {
        self.config.scale()
    }

    /// The picture enlarged, its alpha 255. `on_tile` hears how many tiles are done, of how many.
    ///
    /// # Errors
    /// `invalid-option` for a picture whose result would be too large; `out-of-memory`; `unsupported-model` for a
    /// network that overflows f32; `aborted`.
    pub async fn upscale(
        &self,
        picture: &Picture,
        on_tile: &mut dyn FnMut(usize, usize) -> Result<()>,
        aborted: &dyn Fn() -> bool,
    ) -> Result<Picture> {
        let scale = self.config.scale();
        let pixels = picture.width as u64 * picture.height as u64;
        if pixels == 0 || picture.data.len() as u64 != 4 * pixels || pixels > MOST / (scale * scale) as u64 {
            return Err(Error::invalid(format!(
                "A picture of {}x{} cannot be enlarged {scale} times: choose one of at most {} pixels.",
                picture.width,
                picture.height,
                MOST / (scale * scale) as u64
            )));
        }
        let input = self.unshuffled(picture);
        let side = self.tile(&input)?;
        let (rows, columns) = (windows(input.h, side, PAD), windows(input.w, side, PAD));
        let (tile_h, tile_w) = (side.min(input.h), side.min(input.w));
        let times = 1 << self.config.doublings;
        let (width, height) = ((picture.width * scale) as usize, (picture.height * scale) as usize);
        let mut data = vec![255; 4 * width * height];
        let mut done = 0;
        for row in &rows {
            for column in &columns {
                check_aborted(aborted)?;
                let part = input.part(row.start, column.start, tile_h, tile_w);
                let out = self.run(&part).await?;
                for y in times * row.keep.start..(times * row.keep.end).min(height) {
                    let end = (times * column.keep.end).min(width);
                    for x in times * column.keep.start..end {
                        let from = (y - times * row.start) * times * tile_w + x - times * column.start;
                        let to = &mut data[4 * (y * width + x)..][..3];
                        to.iter_mut().zip(&out[3 * from..3 * from + 3]).for_each(|(to, v)| {
                            *to = (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
                        });
                    }
                }
                done += 1;
                on_tile(done, rows.len() * columns.len())?;
            }
        }
        Ok(Picture { width: width as u32, height: height as u32, data })
    }

    /// 0..1, NHWC, squares of pixels laid into channels as `pixel_unshuffle` does; at the right and the bottom the
    /// picture is mirrored where it does not fill a square, as Real-ESRGAN pads it.
    fn unshuffled(&self, picture: &Picture) -> Field {
        let s = self.config.unshuffle as usize;
        let (width, height) = (picture.width as usize, picture.height as usize);
        let (h, w) = (height.div_ceil(s), width.div_ceil(s));
        let mirrored = |x: usize, n: usize| if x < n { x } else { (2 * (n - 1)).saturating_sub(x) };
        let mut values = Vec::with_capacity(3 * s * s * h * w);
        for y in 0..h {
            for x in 0..w {
                for c in 0..3 {
                    for k in 0..s * s {
                        let (py, px) = (mirrored(s * y + k / s, height), mirrored(s * x + k % s, width));
                        values.push(picture.data[4 * (py * width + px) + c] as f32 / 255.0);
                    }
                }
            }
        }
        Field { h, w, values }
    }

    /// The side of the tiles that fit this adapter.
    fn tile(&self, input: &Field) -> Result<usize> {
        let limits = &self.gpu.limits;
        for side in TILES {
            let (plan, ..) = record(&self.config, &self.options, side.min(input.h), side.min(input.w))?;
            if plan.check(limits).is_ok() && plan.peak_bytes() <= limits.max_buffer_size {
                return Ok(side);
            }
        }
        Ok(TILES[TILES.len() - 1])
    }

    /// One tile, in f32 activations where f16 overflows.
    async fn run(&self, part: &Field) -> Result<Vec<f32>> {
        for wide in [false, true] {
            let mut options = self.options;
            if wide {
                options.activations = Dtype::F32;
            }
            let plan = match self.plan.take() {
                Some(plan) if (plan.h, plan.w) == (part.h, part.w) && plan.wide == wide => plan,
                other => {
                    // Free the old plan's memory before the new one's is asked for.
                    drop(other);
                    let record = |options: &Options| record(&self.config, options, part.h, part.w);
                    let (plan, (input, out)) = sound(&self.gpu, &options, record).await?;
                    let executable = plan.instantiate(&self.gpu, &self.weights)?;
                    TilePlan { h: part.h, w: part.w, wide, executable, input, out }
                }
            };
            plan.executable.write(&self.gpu, plan.input, &part.values)?;
            plan.executable.run(&self.gpu);
            let values = plan.executable.read_sound(&self.gpu, plan.out).await?;
            *self.plan.borrow_mut() = Some(plan);
            if let Some(values) = values {
                return Ok(values);
            }
        }
        Err(Error::unsupported("The upscaler overflowed. Load another one."))
    }
}

fn record(config: &Config, options: &Options, h: usize, w: usize) -> Result<(Plan, (Tensor, Tensor))> {
    let mut r = Recorder::new(options);
    let input = r.input(1, h as u32, w as u32, 3 * config.unshuffle * config.unshuffle);
    let out = rrdbnet::forward(config, &mut r, input)?;
    r.output(out);
    Ok((r.finish(), (input, out)))
}
