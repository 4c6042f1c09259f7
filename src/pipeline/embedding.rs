//! Textual inversion: words that stand for vectors of the text encoder's input.

use crate::checkpoint::kind::kind;
use crate::checkpoint::lora::{Values, check};
use crate::checkpoint::{Located, ReadAt, Table, card};
use crate::error::{Error, Result};
use crate::prompt::Embedding;
use std::cell::RefCell;
use std::collections::BTreeMap;

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

    /// Reads a textual inversion embedding and keeps it under `key`: A1111's .pt (the one entry of
    /// `string_to_param`) and its card (a PNG), a .safetensors or .bin that holds one tensor under any name, or SDXL's
    /// with `clip_l` and `clip_g`; of one vector or several, `room` at most. `widths`: those of the text encoders.
    ///
    /// # Errors
    /// `bad-checkpoint` for a file that is no embedding; `unsupported-model` for one of another kind of model; and
    /// whatever reading the file fails with.
    pub async fn load<R: ReadAt>(&self, key: &str, file: &R, widths: &[u32], room: u64) -> Result<()> {
        if self.has(key) {
            return Ok(());
        }
        let entries = match card::read(file).await? {
            Some(entries) if entries.len() == 1 => entries,
            Some(entries) => {
                let what = format!("its card has {} entries, where one is due", entries.len());
                return Err(no_embedding(key, &what));
            }
            None => read(key, file, &Table::open(file).await?, room).await?,
        };
        self.keep(key, "", entries, widths, room)
    }

    /// Reads the embeddings inside a LoRA's file, `bundle_emb.WORD.` and the names of an embedding's own file (A1111's
    /// `networks.py`), and gives the word and the key of each.
    ///
    /// # Errors
    /// Those of [`Embeddings::load`].
    pub async fn load_bundled<R: ReadAt>(
        &self,
        key: &str,
        (file, table): (&R, &Table),
        widths: &[u32],
        room: u64,
    ) -> Result<Vec<(String, String)>> {
        let mut bundled: BTreeMap<&str, Table> = BTreeMap::new();
        for tensor in &table.tensors {
            let own = tensor.name.strip_prefix(BUNDLED).and_then(|rest| rest.split_once('.'));
            let Some((word, name)) = own.filter(|(word, _)| !word.is_empty()) else { continue };
            let of_word = bundled.entry(word).or_insert_with(|| Table { tensors: Vec::new() });
            let mut tensor = tensor.clone();
            name.clone_into(&mut tensor.name);
            of_word.tensors.push(tensor);
        }
        let mut words = Vec::new();
        for (word, table) in bundled {
            let own = format!("{key}/{word}");
            if !self.has(&own) {
                let entries = read(&own, file, &table, room).await?;
                self.keep(&own, &format!("{BUNDLED}{word}."), entries, widths, room)?;
            }
            words.push((word.to_owned(), own));
        }
        Ok(words)
    }

    /// Keeps an embedding's vectors; `before`: what their names begin with in the file.
    fn keep(
        &self,
        key: &str,
        before: &str,
        entries: Vec<(String, Values)>,
        widths: &[u32],
        room: u64,
    ) -> Result<()> {
        let mut vectors = vec![None; widths.len()];
        for (name, (shape, values)) in entries {
            check(&format!("{before}{name}"), &shape, &values)?;
            let (count, width) = match shape[..] {
                [width] => (1, width),
                [count, width] => (count, width),
                _ => (0, 0),
            };
            if count == 0 || count > room {
                return Err(Error::bad_checkpoint(format!(
                    "{key} is no textual inversion embedding: a shape of {shape:?}, where 1 to {room} vectors \
                     are due"
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
            *place = Some(values);
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

/// What the names of embeddings in a LoRA's file begin with.
pub(super) const BUNDLED: &str = "bundle_emb.";

/// The vectors' names, shapes and values.
async fn read<R: ReadAt>(key: &str, file: &R, table: &Table, room: u64) -> Result<Vec<(String, Values)>> {
    let mut out = Vec::new();
    for tensor in tensors_of(key, table)? {
        // No text encoder is as wide as 64 Ki: what is not read need not be held.
        if tensor.elements() > room.saturating_mul(1 << 16) {
            return Err(no_embedding(key, &format!("{:?} is of shape {:?}", tensor.name, tensor.shape)));
        }
        out.push((tensor.name.clone(), (tensor.shape.clone(), table.values(file, tensor).await?)));
    }
    Ok(out)
}

/// The tensors that are an embedding's vectors.
fn tensors_of<'a>(key: &str, table: &'a Table) -> Result<Vec<&'a Located>> {
    let named = |name: &str| table.tensors.iter().find(|t| t.name == name);
    let (l, g) = (named("clip_l"), named("clip_g"));
    if l.is_some() || g.is_some() {
        return Ok(l.into_iter().chain(g).collect());
    }
    // A1111 takes the one entry, whatever its key; `string_to_token` beside it is a number.
    let starts = |begin: &str| table.tensors.iter().filter(|t| t.name.starts_with(begin)).collect::<Vec<_>>();
    let trained = starts("string_to_param.");
    let what = kind(table.tensors.iter().map(|t| t.name.as_str())).filter(|what| !what.is_of("`embeddings`"));
    if let (Some(what), true) = (what, trained.is_empty()) {
        return Err(no_embedding(key, &format!("it is {what}")));
    }
    let found = match named("emb_params") {
        Some(one) if trained.is_empty() => vec![one],
        _ if trained.is_empty() => {
            table.tensors.iter().filter(|t| !t.name.starts_with("string_to_token.")).collect()
        }
        _ => trained,
    };
    if found.len() == 1 {
        return Ok(found);
    }
    Err(no_embedding(key, &format!("it holds {} tensors, where one is due", found.len())))
}

fn no_embedding(key: &str, what: &str) -> Error {
    Error::bad_checkpoint(format!("{key} is no textual inversion embedding: {what}. Choose another file"))
}
