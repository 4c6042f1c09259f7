//! Weights from one file of any kind (.safetensors, .bin, .pt), found by its table: what is beside a model and comes
//! without a folder.

use super::part::{LocalFuture, Part, WeightSource};
use crate::checkpoint::pack::Packer;
use crate::checkpoint::{Located, ReadAt, Table, TensorInfo, TensorReader};
use crate::error::{Error, Result, check_aborted};
use crate::gpu::{Gpu, Weights};

/// A file, and where its tensors are.
pub(super) struct TableSource<R> {
    pub file: R,
    pub table: Table,
    /// What it is called.
    pub name: String,
}

impl<R: ReadAt> TableSource<R> {
    /// # Errors
    /// `bad-checkpoint` for a file that breaks its format, and whatever reading it fails with.
    pub async fn open(name: &str, file: R) -> Result<Self> {
        let table = Table::open(&file).await.map_err(|e| in_file(name, e))?;
        Ok(TableSource { file, table, name: name.to_owned() })
    }

    /// Reads what `part` needs; gives the weights, and the names of those that f16 does not hold.
    async fn read(
        &self,
        part: &Part,
        gpu: &Gpu,
        keep: bool,
        aborted: &dyn Fn() -> bool,
    ) -> Result<(Option<Weights>, Vec<String>)> {
        let layouts = part.layouts();
        let weights = keep.then(|| part.allocate(gpu));
        let (mut missing, mut overflowed) = (layouts.len(), Vec::new());
        let mut tensors: Vec<&Located> = self.table.tensors.iter().collect();
        tensors.sort_by_key(|t| t.order());
        let mut reader = TensorReader::new(&self.file);
        for tensor in tensors {
            let Some(name) = (part.rename)(&tensor.name) else { continue };
            let Some(&(layout, wide)) = layouts.get(name.as_ref()) else { continue };
            let Located { name: own, dtype, shape, .. } = tensor.clone();
            let info = TensorInfo { name: own, dtype, shape, begin: 0, end: tensor.bytes() };
            let packer = Packer::new(&info, layout)?;
            let mut packer = if wide { packer.wide() } else { packer };
            let mut write = |offset, bytes: &[u8]| match &weights {
                Some(weights) => weights.write(gpu, &name, offset, bytes),
                None => Ok(()),
            };
            let take = async |bytes: &[u8]| {
                check_aborted(aborted)?;
                gpu.check()?;
                packer.push(bytes, &mut write)
            };
            match reader.read(tensor, 0, tensor.bytes(), take).await {
                Err(_) if packer.overflowed() => overflowed.push(name.into_owned()),
                read => {
                    read?;
                    packer.finish(&mut write)?;
                }
            }
            missing -= 1;
        }
        if missing > 0 {
            return Err(Error::bad_checkpoint(format!(
                "it lacks {missing} of {} tensors. Choose another copy",
                layouts.len()
            )));
        }
        Ok((weights, overflowed))
    }
}

fn in_file(name: &str, e: Error) -> Error {
    Error::new(e.code, format!("{name}: {}", e.message))
}

impl<R: ReadAt> WeightSource for TableSource<R> {
    fn stream<'a>(
        &'a self,
        part: &'a Part,
        gpu: &'a Gpu,
        keep: bool,
        aborted: &'a dyn Fn() -> bool,
    ) -> LocalFuture<'a, Result<Option<Weights>>> {
        Box::pin(async move {
            loop {
                let (weights, overflowed) =
                    self.read(part, gpu, keep, aborted).await.map_err(|e| in_file(&self.name, e))?;
                if overflowed.is_empty() {
                    return Ok(weights);
                }
                part.widen(overflowed);
            }
        })
    }
}
