//! Rows by index: embeddings and pooled positions.

use super::input::spread;
use crate::checkpoint::pack::Layout;
use crate::error::{Error, Result};
use crate::gpu::Scalar::U32;
use crate::gpu::{Binding, Dispatch, Kernel, Recorder, Tensor, Weight};

fn kernel(embed: bool, onto: bool) -> Kernel {
    Kernel::new(
        if embed { "embed" } else { "gather" },
        &[crate::gpu::shader!("gather.wgsl")],
        &[("EMBED", embed as u32), ("ONTO", onto as u32)],
    )
}

/// A matrix of `rows` rows.
fn table(r: &mut Recorder, name: &str, rows: u32, width: u32) -> Result<Weight> {
    let layout = Layout::Matrix { rows: rows as usize, inner: width as usize, taps: 1 };
    r.weight(&format!("{name}.weight"), layout)
}

fn record(r: &mut Recorder, kernel: Kernel, bindings: Vec<Binding>, [length, rows]: [u32; 2], y: Tensor) {
    let size = y.rows() * y.c4();
    r.dispatch(Dispatch {
        kernel,
        bindings: bindings.into_iter().chain([Binding::Write(y)]).collect(),
        params: vec![("size", U32(size)), ("c4", U32(y.c4())), ("length", U32(length)), ("rows", U32(rows))],
        workgroups: spread(size.div_ceil(64)),
        flops: size as u64 * 4,
    });
}

/// Token plus position embedding: ids [n, length] -> [n, 1, length, width].
///
/// # Errors
/// `unsupported-model` if there are fewer positions than ids.
pub fn embed(
    r: &mut Recorder,
    ids: Tensor,
    token_name: &str,
    vocabulary: u32,
    position_name: &str,
    positions: u32,
    width: u32,
) -> Result<Tensor> {
    if ids.w > positions {
        return Err(Error::unsupported(format!(
            "{} tokens, where the text encoder has {positions} positions",
            ids.w
        )));
    }
    let tokens = table(r, token_name, vocabulary, width)?;
    let places = table(r, position_name, positions, width)?;
    let y = r.tensor(ids.n, 1, ids.w, width);
    let bindings = vec![Binding::Read(ids), Binding::Weight(tokens), Binding::Weight(places)];
    record(r, kernel(true, false), bindings, [ids.w, vocabulary], y);
    Ok(y)
}

/// `x` `[n, 1, length, c]` plus the embeddings of ids `[n, length]`, out of a table of so many `rows`.
///
/// # Errors
/// `unsupported-model` if there is not one id a row.
pub fn embed_onto(r: &mut Recorder, x: Tensor, ids: Tensor, name: &str, rows: u32) -> Result<Tensor> {
    if ids.rows() != x.rows() {
        return Err(Error::unsupported(format!("{} ids for {} rows", ids.rows(), x.rows())));
    }
    let tokens = table(r, name, rows, x.c)?;
    let y = r.tensor(x.n, x.h, x.w, x.c);
    let bindings = vec![Binding::Read(ids), Binding::Weight(tokens), Binding::Read(x)];
    record(r, kernel(true, true), bindings, [x.rows(), rows], y);
    Ok(y)
}

/// One row of each picture: x [n, 1, length, c], index [n] -> [n, 1, 1, c].
///
/// # Errors
/// `unsupported-model` if there is not one index a picture.
pub fn gather(r: &mut Recorder, x: Tensor, index: Tensor) -> Result<Tensor> {
    if index.rows() != x.n {
        return Err(Error::unsupported(format!("{} indices for {} pictures", index.rows(), x.n)));
    }
    let y = r.tensor(x.n, 1, 1, x.c);
    let bindings = vec![Binding::Read(index), Binding::Read(x)];
    record(r, kernel(false, false), bindings, [1, x.h * x.w], y);
    Ok(y)
}
