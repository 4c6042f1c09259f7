//! Rows by index: embeddings and pooled positions.

use super::input::spread;
use crate::checkpoint::pack::Layout;
use crate::error::{Error, Result};
use crate::gpu::Scalar::U32;
use crate::gpu::{Binding, Dispatch, Kernel, Recorder, Tensor};

fn kernel(embed: bool) -> Kernel {
    Kernel::new(
        if embed { "embed" } else { "gather" },
        &[crate::gpu::shader!("gather.wgsl")],
        &[("EMBED", embed as u32)],
    )
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
    let table = |r: &mut Recorder, name: &str, rows: u32| {
        let layout = Layout::Matrix { rows: rows as usize, inner: width as usize, taps: 1 };
        r.weight(&format!("{name}.weight"), layout)
    };
    let tokens = table(r, token_name, vocabulary)?;
    let places = table(r, position_name, positions)?;
    let y = r.tensor(ids.n, 1, ids.w, width);
    let size = y.rows() * y.c4();
    r.dispatch(Dispatch {
        kernel: kernel(true),
        bindings: vec![
            Binding::Read(ids),
            Binding::Weight(tokens),
            Binding::Weight(places),
            Binding::Write(y),
        ],
        params: vec![
            ("size", U32(size)),
            ("c4", U32(y.c4())),
            ("length", U32(ids.w)),
            ("rows", U32(vocabulary)),
        ],
        workgroups: spread(size.div_ceil(64)),
        flops: size as u64 * 4,
    });
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
    let size = y.n * y.c4();
    r.dispatch(Dispatch {
        kernel: kernel(false),
        bindings: vec![Binding::Read(index), Binding::Read(x), Binding::Write(y)],
        params: vec![("size", U32(size)), ("c4", U32(x.c4())), ("length", U32(1)), ("rows", U32(x.h * x.w))],
        workgroups: spread(size.div_ceil(64)),
        flops: size as u64 * 4,
    });
    Ok(y)
}
