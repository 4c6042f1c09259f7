//! One checkpoint file seen as a diffusers folder, so that whatever reads folders reads .ckpt and single .safetensors files
//! too. Configurations are made from the tensors' names and shapes. Each component's weights come as the .safetensors file
//! that the folder would have, with tensors renamed, cut and transposed on the way.

use super::{ModelFiles, NoCopy};
use crate::checkpoint::configs::Told;
use crate::checkpoint::ldm::{self, Contents, EdmKeys, Part};
use crate::checkpoint::{ReadAt, Table, TensorReader};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::rc::Rc;

/// One of a model's files, read at any place.
pub struct FileAt<F> {
    files: Rc<F>,
    path: String,
}

impl<F: ModelFiles> FileAt<F> {
    /// The file at `path`.
    pub fn new(files: Rc<F>, path: impl Into<String>) -> Self {
        FileAt { files, path: path.into() }
    }
}

impl<F: ModelFiles> ReadAt for FileAt<F> {
    async fn size(&self) -> Result<u64> {
        self.files.size(&self.path).await
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.files.read_at(&self.path, offset, len).await
    }
}

/// A checkpoint of one file. Its tensors are read by place, component by component, each byte once.
pub struct SingleFile<R, T> {
    name: String,
    file: R,
    /// Has CLIP's vocabulary, as `tokenizer/vocab.json` and `tokenizer/merges.txt`: no single file has it.
    vocabulary: Rc<T>,
    table: Table,
    contents: Contents,
    configs: HashMap<String, Value>,
}

impl<R: ReadAt, T: ModelFiles> SingleFile<R, T> {
    /// Reads the file's table of tensors. `name` is what the model is called.
    ///
    /// `BadCheckpoint` for a file that breaks its format or holds nothing of Stable Diffusion, `UnsupportedModel` for one of
    /// another model; what `file` fails with.
    pub async fn open(name: impl Into<String>, file: R, vocabulary: Rc<T>) -> Result<Self> {
        let name = name.into();
        let in_file = |e: Error| Error::new(e.code, format!("{name}: {}", e.message));
        let table = Table::open(&file).await.map_err(in_file)?;
        let contents = ldm::sort(&table).map_err(in_file)?;
        let values = async |index: usize| match table.tensors.get(index) {
            Some(tensor) if tensor.bytes() <= 1 << 20 => {
                table.values(&file, tensor).await.map(Some).map_err(in_file)
            }
            _ => Ok(None),
        };
        let mut told = Told::default();
        if let Some(bias) = contents.spread {
            told.spread = values(bias).await?.map(|values| deviation(&values));
        }
        match contents.edm {
            None => {}
            Some(EdmKeys::Playground { mean, std }) => {
                told.latents =
                    [values(mean).await?.unwrap_or_default(), values(std).await?.unwrap_or_default()];
            }
            Some(EdmKeys::CosXl { max, min }) => {
                // What cannot be read is refused by the name that the configuration gives it.
                let first =
                    |values: Option<Vec<f32>>| values.and_then(|v| v.first().copied()).or(Some(f32::NAN));
                told.sigma_max = first(values(max).await?);
                if let Some(min) = min {
                    told.sigma_min = first(values(min).await?);
                }
            }
        }
        let configs = contents.configs(&told);
        Ok(SingleFile { name, file, vocabulary, table, contents, configs })
    }

    /// What the file holds.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The component whose weights lie at `path` in a diffusers folder.
    fn component(&self, path: &str) -> Option<(&'static str, &[Part])> {
        self.contents.components.iter().find_map(|(&component, parts)| {
            let stem =
                if component.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" };
            let rest = path.strip_suffix(".safetensors")?.strip_suffix(stem)?;
            let own = rest.strip_suffix('/') == Some(component);
            (own || rest.is_empty() && self.contents.alone(component))
                .then_some((component, parts.as_slice()))
        })
    }

    /// The header that a component's .safetensors file would have.
    fn header(&self, parts: &[Part]) -> String {
        let mut header = Map::new();
        let mut at = 0u64;
        for part in parts {
            let end = at + part.end - part.begin;
            let dtype = self.table.tensors[part.tensor].dtype;
            let entry = json!({"dtype": dtype, "shape": part.shape, "data_offsets": [at, end]});
            header.insert(part.name.clone(), entry);
            at = end;
        }
        Value::Object(header).to_string()
    }

    /// The file in `vocabulary` that stands for `path`.
    fn tokens(&self, path: &str) -> Option<String> {
        let (folder, file) = path.split_once('/')?;
        let known =
            ["tokenizer", "tokenizer_2"].contains(&folder) && ["vocab.json", "merges.txt"].contains(&file);
        let has = self.contents.components.contains_key(folder.replace("tokenizer", "text_encoder").as_str());
        (known && has).then(|| format!("tokenizer/{file}"))
    }

    /// Reads the file at `path` as [`ModelFiles::read`] does, through another handle on the checkpoint file.
    ///
    /// # Errors
    /// As [`ModelFiles::read`].
    pub async fn read_through(
        &self,
        file: &R,
        path: &str,
        mut sink: impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some((_, parts)) = self.component(path) else {
            let bytes = self.required(path).await?;
            return sink(&bytes).await;
        };
        let header = self.header(parts);
        sink(&(header.len() as u64).to_le_bytes()).await?;
        sink(header.as_bytes()).await?;
        let mut reader = TensorReader::new(file);
        for part in parts {
            let tensor = &self.table.tensors[part.tensor];
            if !part.transposed {
                reader.read(tensor, part.begin, part.end, &mut sink).await?;
                continue;
            }
            let mut bytes = Vec::new();
            let gather = async |more: &[u8]| {
                bytes.extend_from_slice(more);
                Ok(())
            };
            reader.read(tensor, part.begin, part.end, gather).await?;
            sink(&turned(&bytes, &part.shape, tensor.dtype.bitsize() / 8)).await?;
        }
        Ok(())
    }
}

impl<R: ReadAt, T: ModelFiles> ModelFiles for SingleFile<R, T> {
    type Packed = NoCopy;

    fn name(&self) -> &str {
        &self.name
    }

    async fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if let Some(config) = self.configs.get(path) {
            return Ok(Some(config.to_string().into_bytes()));
        }
        match self.tokens(path) {
            Some(path) => self.vocabulary.required(&path).await.map(Some),
            None => Ok(None),
        }
    }

    async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.configs.contains_key(path) || self.tokens(path).is_some() || self.component(path).is_some())
    }

    async fn size(&self, path: &str) -> Result<u64> {
        match self.component(path) {
            Some((_, parts)) => {
                let header = self.header(parts).len() as u64;
                Ok(8 + header + parts.iter().map(|p| p.end - p.begin).sum::<u64>())
            }
            None => Ok(self.required(path).await?.len() as u64),
        }
    }

    /// A component's weights, as the folder would have them, can be read in order only.
    async fn read_at(&self, path: &str, offset: u64, len: usize) -> Result<Vec<u8>> {
        if self.component(path).is_some() {
            return Err(Error::unsupported(format!("{path} of {} can be read in order only", self.name)));
        }
        self.required(path).await?.as_slice().read_at(offset, len).await
    }

    async fn read(&self, path: &str, sink: impl AsyncFnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.read_through(&self.file, path, sink).await
    }
}

/// `[shape[1]][shape[0]]` to `[shape[0]][shape[1]]`, of elements of `size` bytes.
fn turned(bytes: &[u8], shape: &[u64], size: usize) -> Vec<u8> {
    let [rows, inner] = [0, 1].map(|i| shape.get(i).copied().unwrap_or(0) as usize);
    let mut out = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        for i in 0..inner {
            let at = (i * rows + row) * size;
            out.extend_from_slice(bytes.get(at..at + size).unwrap_or_default());
        }
    }
    out
}

/// The standard deviation of all values (torch's with `unbiased=False`).
fn deviation(values: &[f32]) -> f32 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    square.sqrt() as f32
}
