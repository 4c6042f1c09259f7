//! The cache in IndexedDB. Three object stores:
//!
//! | store | key | value |
//! |---|---|---|
//! | `files` | address (and `#q8` in a model whose weights are kept so) | [`FileRecord`] as JSON |
//! | `chunks` | [address, index] | `{ sha256, data }`, with `data` an `ArrayBuffer` |
//! | `models` | address of the folder, likewise | name; there once the model has been read to its end |
//!
//! A chunk carries its own hash, and is written only in a transaction that has seen the record of the file
//! that it belongs to: so tabs that load the same model at once cannot mix two versions of a file.

use super::chunk::{Chunk, Pool};
use crate::error::{Code, Error, Result};
use js_sys::{Array, ArrayBuffer, Function, JsString, Object, Promise, Reflect, Uint8Array};
use std::collections::BTreeMap;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    DomException, IdbDatabase, IdbFactory, IdbKeyRange, IdbObjectStore, IdbRequest, IdbTransaction,
    IdbTransactionMode,
};

const NAME: &str = "browser-diffusion";
/// Counts changes of the layout. An older cache stays if it has the same stores, and is dropped if not. Version 1 had the
/// same, without models from disk.
const VERSION: u32 = 2;
const STORES: [&str; 3] = [FILES, CHUNKS, MODELS];
const FILES: &str = "files";
const CHUNKS: &str = "chunks";
const MODELS: &str = "models";

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(thread_local_v2, js_name = indexedDB)]
    static INDEXED_DB: Option<IdbFactory>;
}

/// One model in the cache.
#[derive(Clone, Debug, serde::Serialize)]
pub struct CachedModel {
    /// [`Source::kept_name`](crate::store::Source::kept_name).
    pub name: String,
    /// Bytes stored.
    pub bytes: u64,
    /// Whether all that the model needs is there.
    pub complete: bool,
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FileRecord {
    /// Address of the model's folder.
    pub base: String,
    /// Name of the model.
    pub name: String,
    /// The server has no such file.
    pub absent: bool,
    /// All chunks have been stored.
    pub complete: bool,
    /// Bytes of the file; 0 while that is not known.
    pub total: u64,
    /// Bytes of a chunk (the last one may be shorter).
    pub chunk: u64,
    /// ETag or Last-Modified, if the server shows one.
    pub tag: Option<String>,
    /// SHA-256 of the whole file as hex, where the server's ETag is one (the Hub's large files).
    pub sha256: Option<String>,
}

impl FileRecord {
    /// Whether both have the same bytes, cut the same way. Without a tag, files of the same length count as the same.
    pub fn same_version(&self, other: &FileRecord) -> bool {
        let tags = match (&self.tag, &other.tag) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        tags && (self.total, self.chunk, self.absent) == (other.total, other.chunk, other.absent)
    }
}

/// The open database.
#[derive(Clone)]
pub struct Database(IdbDatabase);

impl Database {
    /// Opens the database, and makes it anew if it is of another layout.
    pub async fn open() -> Result<Database> {
        Self::try_open().await.map_err(failed)
    }

    async fn try_open() -> Result<Database, JsValue> {
        let Some(factory) = INDEXED_DB.with(Clone::clone) else {
            return Err("this browser gives the page no IndexedDB".into());
        };
        let request = factory.open_with_u32(NAME, VERSION)?;
        let opening = request.clone();
        let upgrade = Closure::once(move || -> Result<(), JsValue> {
            let db: IdbDatabase = opening.result()?.unchecked_into();
            let old = db.object_store_names();
            if old.length() as usize == STORES.len() && STORES.iter().all(|name| old.contains(name)) {
                return Ok(());
            }
            for name in (0..old.length()).rev().filter_map(|i| old.item(i)) {
                db.delete_object_store(&name)?;
            }
            for name in STORES {
                db.create_object_store(name)?;
            }
            Ok(())
        });
        request.set_onupgradeneeded(Some(upgrade.as_ref().unchecked_ref()));
        let db: IdbDatabase = done(&request).await?.unchecked_into();
        // A newer page in another tab wants to upgrade: make way instead of blocking it.
        let close: Function = Reflect::get(&db, &"close".into())?.dyn_into()?;
        db.set_onversionchange(Some(&close.bind0(&db)));
        Ok(Database(db))
    }

    /// What is known of the file at `url`.
    pub async fn file(&self, url: &str) -> Result<Option<FileRecord>> {
        let find = async || {
            let tx = self.read(&[FILES])?;
            record(&tx.store(FILES)?, url).await
        };
        find().await.map_err(failed)
    }

    /// Writes what is known of a file and drops all its chunks.
    pub async fn reset_file(&self, url: &str, file: &FileRecord) -> Result<()> {
        let write = async || {
            let tx = self.write(&[FILES, CHUNKS])?;
            tx.store(CHUNKS)?.delete(&chunks_of(url)?)?;
            put_record(&tx.store(FILES)?, url, file)?;
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Marks the file complete if it is still the one that `file` describes; `total` may have become known.
    pub async fn complete_file(&self, url: &str, file: &FileRecord, total: u64) -> Result<()> {
        let write = async || {
            let tx = self.write(&[FILES])?;
            let store = tx.store(FILES)?;
            if let Some(known) = record(&store, url).await?.filter(|known| known.same_version(file)) {
                put_record(&store, url, &FileRecord { complete: true, total, ..known })?;
            }
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Notes that the model in the folder `base` was refused: the next load asks the server about each of its files. A file
    /// without a tag, which cannot be told from another version, is dropped.
    pub async fn doubt_model(&self, base: &str) -> Result<()> {
        let write = async || {
            let tx = self.write(&[FILES, CHUNKS])?;
            let (files, chunks) = (tx.store(FILES)?, tx.store(CHUNKS)?);
            let (urls, records) = (files.get_all_keys()?, files.get_all()?);
            let records = strings(&done(&records).await?);
            for (url, record) in strings(&urls.result()?).iter().zip(records) {
                let record = parse(&record)?;
                if record.base != base || record.absent {
                    continue;
                }
                if record.tag.is_some() {
                    put_record(&files, url, &FileRecord { complete: false, ..record })?;
                } else {
                    chunks.delete(&chunks_of(url)?)?;
                    files.delete(&url.into())?;
                }
            }
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Indices of the chunks that are stored.
    pub async fn chunk_indices(&self, url: &str) -> Result<Vec<u64>> {
        let find = async || {
            let tx = self.read(&[CHUNKS])?;
            let keys = done(&tx.store(CHUNKS)?.get_all_keys_with_key(&chunks_of(url)?)?).await?;
            Ok(Array::from(&keys).iter().filter_map(|key| Some(chunk_key(&key)?.1)).collect())
        };
        find().await.map_err(failed)
    }

    /// A stored chunk and its SHA-256 as hex.
    pub async fn chunk(&self, url: &str, index: u64, pool: &Rc<Pool>) -> Result<Option<(Chunk, String)>> {
        let find = async || {
            let tx = self.read(&[CHUNKS])?;
            let value = done(&tx.store(CHUNKS)?.get(&key_of(url, index))?).await?;
            if value.is_undefined() {
                return Ok(None);
            }
            let data: ArrayBuffer = Reflect::get(&value, &"data".into())?.dyn_into()?;
            let chunk = pool.take(data.byte_length());
            chunk.set(&Uint8Array::new(&data), 0);
            // Frees it now; a browser that does not know this call frees it with the next collection of garbage.
            let _ = data.transfer_with_length(0);
            let sha256 = Reflect::get(&value, &"sha256".into())?.as_string().unwrap_or_default();
            Ok(Some((chunk, sha256)))
        };
        find().await.map_err(failed)
    }

    /// Stores a chunk, unless the file has been deleted or replaced meanwhile.
    pub async fn put_chunk(
        &self,
        url: &str,
        file: &FileRecord,
        index: u64,
        data: &Chunk,
        sha256: &str,
    ) -> Result<()> {
        let write = async || {
            let tx = self.write(&[FILES, CHUNKS])?;
            if record(&tx.store(FILES)?, url).await?.is_some_and(|known| known.same_version(file)) {
                let value = Object::new();
                Reflect::set(&value, &"sha256".into(), &sha256.into())?;
                Reflect::set(&value, &"data".into(), &data.buffer())?;
                tx.store(CHUNKS)?.put_with_key(&value, &key_of(url, index))?;
            }
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Makes a record of a file, and copies those of its chunks from another one.
    pub async fn copy_file(&self, from: &str, to: &str, file: &FileRecord, indices: &[u64]) -> Result<()> {
        self.reset_file(to, file).await?;
        for &index in indices {
            // One transaction each, so that no more than one chunk is held.
            let copy = async || {
                let tx = self.write(&[CHUNKS])?;
                let store = tx.store(CHUNKS)?;
                let value = done(&store.get(&key_of(from, index))?).await?;
                if !value.is_undefined() {
                    store.put_with_key(&value, &key_of(to, index))?;
                }
                tx.done().await
            };
            copy().await.map_err(failed)?;
        }
        Ok(())
    }

    /// Deletes the chunks of a file whose index `drops` names; its record stays.
    pub async fn delete_chunks(&self, url: &str, drops: impl Fn(u64) -> bool) -> Result<()> {
        let indices = self.chunk_indices(url).await?;
        let write = async || {
            let tx = self.write(&[CHUNKS])?;
            let store = tx.store(CHUNKS)?;
            for &index in indices.iter().filter(|&&index| drops(index)) {
                store.delete(&key_of(url, index))?;
            }
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Deletes a chunk.
    pub async fn delete_chunk(&self, url: &str, index: u64) -> Result<()> {
        let write = async || {
            let tx = self.write(&[CHUNKS])?;
            tx.store(CHUNKS)?.delete(&key_of(url, index))?;
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Whether the model in the folder `base` has once been read to its end.
    pub async fn model_complete(&self, base: &str) -> Result<bool> {
        let find = async || {
            let tx = self.read(&[MODELS])?;
            Ok(!done(&tx.store(MODELS)?.get(&base.into())?).await?.is_undefined())
        };
        find().await.map_err(failed)
    }

    /// Notes that the model in the folder `base` has been read to its end.
    pub async fn complete_model(&self, base: &str, name: &str) -> Result<()> {
        let write = async || {
            let tx = self.write(&[MODELS])?;
            tx.store(MODELS)?.put_with_key(&name.into(), &base.into())?;
            tx.done().await
        };
        write().await.map_err(failed)
    }

    /// Every model of which something is stored, by name.
    pub async fn list(&self) -> Result<Vec<CachedModel>> {
        let find = async || {
            let tx = self.read(&STORES)?;
            // All are asked for at once, and answered in order: when the last one is, so are the others.
            let (files, chunks, models) = (tx.store(FILES)?, tx.store(CHUNKS)?, tx.store(MODELS)?);
            let (urls, files) = (files.get_all_keys()?, files.get_all()?);
            let (keys, models) = (chunks.get_all_keys()?, models.get_all_keys()?);
            let models: Vec<_> = strings(&done(&models).await?);
            let mut stored = BTreeMap::<String, Vec<u64>>::new();
            for (url, index) in Array::from(&keys.result()?).iter().filter_map(|key| chunk_key(&key)) {
                stored.entry(url).or_default().push(index);
            }
            let mut list = BTreeMap::<String, CachedModel>::new();
            for (url, file) in strings(&urls.result()?).iter().zip(strings(&files.result()?)) {
                let file = parse(&file)?;
                let model = list.entry(file.name.clone()).or_insert_with(|| CachedModel {
                    name: file.name.clone(),
                    bytes: 0,
                    complete: true,
                });
                model.complete &= (file.absent || file.complete) && models.contains(&file.base);
                for index in stored.get(url).into_iter().flatten() {
                    let left = file.total.saturating_sub(index * file.chunk);
                    model.bytes += if file.total == 0 { file.chunk } else { left.min(file.chunk) };
                }
            }
            Ok(list.into_values().filter(|model| model.bytes > 0).collect())
        };
        find().await.map_err(failed)
    }

    /// Deletes all that is stored under a model's name.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let write = async || {
            let tx = self.write(&STORES)?;
            let (files, chunks, models) = (tx.store(FILES)?, tx.store(CHUNKS)?, tx.store(MODELS)?);
            let (urls, records) = (files.get_all_keys()?, files.get_all()?);
            let records = strings(&done(&records).await?);
            for (url, record) in strings(&urls.result()?).iter().zip(records) {
                let record = parse(&record)?;
                if record.name == name {
                    chunks.delete(&chunks_of(url)?)?;
                    files.delete(&url.into())?;
                    models.delete(&record.base.into())?;
                }
            }
            tx.done().await
        };
        write().await.map_err(failed)
    }

    fn read(&self, stores: &[&str]) -> Result<Transaction, JsValue> {
        self.begin(stores, IdbTransactionMode::Readonly)
    }

    fn write(&self, stores: &[&str]) -> Result<Transaction, JsValue> {
        self.begin(stores, IdbTransactionMode::Readwrite)
    }

    fn begin(&self, stores: &[&str], mode: IdbTransactionMode) -> Result<Transaction, JsValue> {
        let names: Array = stores.iter().map(|&name| JsValue::from(name)).collect();
        let tx = self.0.transaction_with_str_sequence_and_mode(&names, mode)?;
        // Listens from the start: a transaction may end while a request of it is awaited.
        let ended = Promise::new(&mut |resolve, reject| {
            tx.set_oncomplete(Some(&resolve));
            tx.set_onabort(Some(&reject));
        });
        Ok(Transaction { tx, ended: ended.into() })
    }
}

struct Transaction {
    tx: IdbTransaction,
    ended: JsFuture,
}

impl Transaction {
    fn store(&self, name: &str) -> Result<IdbObjectStore, JsValue> {
        self.tx.object_store(name)
    }

    /// Waits until all is written.
    async fn done(self) -> Result<(), JsValue> {
        let Transaction { tx, ended } = self;
        match ended.await {
            Ok(_) => Ok(()),
            Err(event) => Err(tx.error().map_or(event, JsValue::from)),
        }
    }
}

/// The result of a request. Awaiting it inside a transaction keeps the transaction alive, as promises are
/// resolved within the request's event.
async fn done(request: &IdbRequest) -> Result<JsValue, JsValue> {
    let ended = Promise::new(&mut |resolve, reject| {
        request.set_onsuccess(Some(&resolve));
        request.set_onerror(Some(&reject));
    });
    match JsFuture::from(ended).await {
        Ok(_) => request.result(),
        Err(event) => Err(request.error().ok().flatten().map_or(event, JsValue::from)),
    }
}

async fn record(files: &IdbObjectStore, url: &str) -> Result<Option<FileRecord>, JsValue> {
    let value = done(&files.get(&url.into())?).await?;
    value.as_string().map(|json| parse(&json)).transpose()
}

fn put_record(files: &IdbObjectStore, url: &str, file: &FileRecord) -> Result<(), JsValue> {
    let json = serde_json::to_string(file).map_err(|e| JsValue::from(e.to_string()))?;
    files.put_with_key(&json.into(), &url.into())?;
    Ok(())
}

fn parse(json: &str) -> Result<FileRecord, JsValue> {
    serde_json::from_str(json).map_err(|e| JsValue::from(e.to_string()))
}

fn strings(array: &JsValue) -> Vec<String> {
    Array::from(array).iter().filter_map(|v| v.as_string()).collect()
}

/// Indices are numbers: exact up to 2^53.
fn key_of(url: &str, index: u64) -> JsValue {
    Array::of2(&url.into(), &(index as f64).into()).into()
}

fn chunk_key(key: &JsValue) -> Option<(String, u64)> {
    let key = key.dyn_ref::<Array>()?;
    Some((key.get(0).as_string()?, key.get(1).as_f64()? as u64))
}

/// The keys of all chunks of a file.
fn chunks_of(url: &str) -> Result<JsValue, JsValue> {
    let end = Array::of2(&url.into(), &f64::INFINITY.into());
    Ok(IdbKeyRange::bound(&key_of(url, 0), &end)?.into())
}

/// The error for what the browser refused.
fn failed(e: JsValue) -> Error {
    let (name, text) = match e.dyn_ref::<DomException>() {
        Some(e) => (e.name(), e.message()),
        None => (String::new(), e.as_string().unwrap_or_else(|| JsString::from(&*format!("{e:?}")).into())),
    };
    let message = if name == "QuotaExceededError" {
        "the browser refused to store more. Free disk space, or delete models from the cache".to_string()
    } else {
        format!("the browser's storage failed ({name} {text}). Reload the page, or load without the cache")
    };
    Error::new(Code::Quota, message)
}
