//! Textual inversion: words that stand for vectors of the text encoder's input.

use super::DiffusionPipeline;
use crate::checkpoint::{Located, ReadAt, Table};
use crate::error::{Error, Result};

/// An embedding as it was loaded.
pub(super) struct LoadedEmbedding {
    pub key: String,
    /// For each text encoder its vectors, [vector][hidden_size], where the file has some for it.
    pub vectors: Vec<Option<Vec<f32>>>,
}

impl DiffusionPipeline {
    /// Whether [`load_embedding`](Self::load_embedding) was given this key.
    pub fn has_embedding(&self, key: &str) -> bool {
        self.embeddings.borrow().iter().any(|e| e.key == key)
    }

    /// Reads a textual inversion embedding and keeps it under `key` (its source's name), for
    /// `GenerateOptions::embeddings`. A1111's .pt (`string_to_param["*"]`), a .safetensors or .bin that holds one
    /// tensor under any name, or SDXL's with `clip_l` and `clip_g`; of one vector or several.
    ///
    /// # Errors
    /// `bad-checkpoint` for a file that is no embedding; `unsupported-model` for one of another kind of model; and
    /// whatever reading the file fails with.
    pub async fn load_embedding<R: ReadAt>(&self, key: &str, file: &R) -> Result<()> {
        if self.has_embedding(key) {
            return Ok(());
        }
        let table = Table::open(file).await?;
        let named = |name: &str| table.tensors.iter().find(|t| t.name == name);
        let tensors: Vec<&Located> = match (named("clip_l"), named("clip_g")) {
            (None, None) => {
                let one = named("string_to_param.*").or(named("emb_params"));
                let only = (table.tensors.len() == 1).then(|| &table.tensors[0]);
                vec![one.or(only).ok_or_else(|| {
                    Error::bad_checkpoint(format!(
                        "{key} is no textual inversion embedding: it holds {} tensors. Choose another file",
                        table.tensors.len()
                    ))
                })?]
            }
            (l, g) => l.into_iter().chain(g).collect(),
        };
        let room = self.tokens() - 2;
        let mut vectors = vec![None; self.text_encoders.len()];
        for tensor in tensors {
            let (count, width) = match tensor.shape[..] {
                [width] => (1, width),
                [count, width] => (count, width),
                _ => (0, 0),
            };
            if count == 0 || count > room as u64 {
                return Err(Error::bad_checkpoint(format!(
                    "{key} is no textual inversion embedding: a shape of {:?}, where 1 to {room} vectors are due",
                    tensor.shape
                )));
            }
            let fits = |config: &crate::models::clip::Config| u64::from(config.hidden_size) == width;
            let mut places = self.text_encoders.iter().map(|e| fits(&e.module.config)).zip(&mut vectors);
            let place = places.find(|(fits, place)| *fits && place.is_none()).map(|(_, place)| place);
            let place = place.ok_or_else(|| {
                let widths = self.text_encoders.iter().map(|e| e.module.config.hidden_size.to_string());
                Error::unsupported(format!(
                    "{key} is an embedding {width} wide, for another kind of model: this one's text encoders are {} \
                     wide. Choose an embedding made for it",
                    widths.collect::<Vec<_>>().join(" and ")
                ))
            })?;
            *place = Some(table.values(file, tensor).await?);
        }
        self.embeddings.borrow_mut().push(LoadedEmbedding { key: key.to_owned(), vectors });
        Ok(())
    }
}
