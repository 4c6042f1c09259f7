//! Textual inversion: words that stand for vectors of the text encoder's input.

use crate::checkpoint::{Located, ReadAt, Table};
use crate::error::{Error, Result};
use crate::prompt::Embedding;
use std::cell::RefCell;

/// An embedding as it was loaded.
struct LoadedEmbedding {
    key: String,
    /// For each text encoder its vectors, [vector][hidden_size], where the file has some for it.
    vectors: Vec<Option<Vec<f32>>>,
}

/// Every embedding that was loaded.
#[derive(Default)]
pub(super) struct Embeddings(RefCell<Vec<LoadedEmbedding>>);

impl Embeddings {
    pub fn has(&self, key: &str) -> bool {
        self.0.borrow().iter().any(|e| e.key == key)
    }

    /// Reads a textual inversion embedding and keeps it under `key`: A1111's .pt (`string_to_param["*"]`), a
    /// .safetensors or .bin that holds one tensor under any name, or SDXL's with `clip_l` and `clip_g`; of one vector or
    /// several, `room` at most. `widths`: those of the text encoders.
    ///
    /// # Errors
    /// `bad-checkpoint` for a file that is no embedding; `unsupported-model` for one of another kind of model; and
    /// whatever reading the file fails with.
    pub async fn load<R: ReadAt>(&self, key: &str, file: &R, widths: &[u32], room: u64) -> Result<()> {
        if self.has(key) {
            return Ok(());
        }
        let table = Table::open(file).await?;
        let mut vectors = vec![None; widths.len()];
        for tensor in tensors_of(key, &table)? {
            let (count, width) = match tensor.shape[..] {
                [width] => (1, width),
                [count, width] => (count, width),
                _ => (0, 0),
            };
            if count == 0 || count > room {
                return Err(Error::bad_checkpoint(format!(
                    "{key} is no textual inversion embedding: a shape of {:?}, where 1 to {room} vectors \
                     are due",
                    tensor.shape
                )));
            }
            let mut places = widths.iter().zip(&mut vectors);
            let place = places.find(|(own, place)| u64::from(**own) == width && place.is_none());
            let (_, place) = place.ok_or_else(|| {
                let widths: Vec<String> = widths.iter().map(u32::to_string).collect();
                Error::unsupported(format!(
                    "{key} is an embedding {width} wide, for another kind of model: this one's text \
                     encoders are {} wide. Choose an embedding made for it",
                    widths.join(" and ")
                ))
            })?;
            *place = Some(table.values(file, tensor).await?);
        }
        self.0.borrow_mut().push(LoadedEmbedding { key: key.to_owned(), vectors });
        Ok(())
    }

    /// The words of `wanted` (word and key of each) for a text encoder `width` wide, and their vectors,
    /// [vector][channel].
    ///
    /// # Errors
    /// `invalid-option` for a key that was not loaded.
    pub fn of_encoder(
        &self,
        encoder: usize,
        width: usize,
        wanted: &[(String, String)],
    ) -> Result<(Vec<Embedding>, Vec<f32>)> {
        let (mut out, mut table) = (Vec::new(), Vec::new());
        let kept = self.0.borrow();
        for (token, key) in wanted {
            let embedding = kept.iter().find(|e| e.key == *key).ok_or_else(|| {
                Error::invalid(format!("The embedding {token:?} was not loaded from {key}; load it first."))
            })?;
            // SDXL: one that has vectors for the other encoder alone is read as words by this one.
            if let Some(vectors) = &embedding.vectors[encoder] {
                out.push(Embedding {
                    token: token.clone(),
                    first: (table.len() / width) as u32,
                    vectors: (vectors.len() / width) as u32,
                });
                table.extend_from_slice(vectors);
            }
        }
        Ok((out, table))
    }
}

/// The tensors that are an embedding's vectors.
fn tensors_of<'a>(key: &str, table: &'a Table) -> Result<Vec<&'a Located>> {
    let named = |name: &str| table.tensors.iter().find(|t| t.name == name);
    let (l, g) = (named("clip_l"), named("clip_g"));
    if l.is_some() || g.is_some() {
        return Ok(l.into_iter().chain(g).collect());
    }
    let only = (table.tensors.len() == 1).then(|| &table.tensors[0]);
    let one = named("string_to_param.*").or(named("emb_params")).or(only);
    one.map(|tensor| vec![tensor]).ok_or_else(|| {
        Error::bad_checkpoint(format!(
            "{key} is no textual inversion embedding: it holds {} tensors. Choose another file",
            table.tensors.len()
        ))
    })
}
