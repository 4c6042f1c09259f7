//! Where a file's bytes come from: memory, the cache, the server by Range requests or whole, or the visitor's disk.

use super::WebFiles;
use super::chunk::Chunk;
use super::http::{self, Answer, Failure, REQUESTS, Tries, check};
use super::idb::FileRecord;
use super::local;
use super::open_file::{OpenFile, REQUEST_BYTES, Unfinished, chunk_bytes, hand_on, sha256};
use crate::error::{Code, Error, Result};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use js_sys::{Promise, Reflect};
use std::pin::pin;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// What the first request for a file has brought.
pub struct FirstAnswer {
    pub record: FileRecord,
    /// Whether the server answers Range requests, or they are not needed because the file has come whole.
    pub ranges: bool,
    /// The file's first chunks.
    pub start: Vec<Chunk>,
}

/// Where the next chunks come from.
enum Job {
    Ready(Rc<Chunk>),
    Stored(u64),
    /// By one request: the first chunk, and one past the last.
    Fetch(u64, u64),
}

impl WebFiles {
    async fn get(&self, url: &str, range: Option<(u64, u64)>) -> Result<Answer, Failure> {
        if self.source.on_disk() {
            let message = format!(
                "{} is not kept in this browser, or not whole. Choose it from disk again",
                self.source.kept_name()
            );
            return Err(Error::new(Code::Network, message).into());
        }
        http::get(url, range, self.source.token(), self.signal()).await
    }

    /// Learns of a file by asking for its first [`REQUEST_BYTES`]. `base`: what is known of any file of this model.
    pub(super) async fn first_request(&self, url: &str, base: &FileRecord) -> Result<FirstAnswer, Failure> {
        let _pass = self.gate.enter().await;
        let mut answer = self.get(url, Some((0, REQUEST_BYTES))).await?;
        let record = |total| FileRecord {
            total,
            chunk: chunk_bytes(total),
            tag: answer.tag(),
            sha256: answer.sha256(self.source.on_hub()),
            ..base.clone()
        };
        if answer.partial() {
            let (begin, end, total) = answer.content_range().ok_or(Failure::NoRanges)?;
            if (begin, end) != (0, total.min(REQUEST_BYTES)) {
                return Err(Failure::integrity("the server sent another range than was asked for"));
            }
            let record = record(total);
            let start = self.body(&mut answer, Some(end), record.chunk).await?.unwrap_or_default();
            return Ok(FirstAnswer { record, ranges: true, start });
        }
        let length = answer.content_length();
        if let Some(total) = length.filter(|&total| total > REQUEST_BYTES) {
            return Ok(FirstAnswer { record: record(total), ranges: false, start: Vec::new() });
        }
        // Compressed on the way, a body may be longer than its Content-Length.
        let record = record(0);
        let Some(start) = self.body(&mut answer, None, chunk_bytes(REQUEST_BYTES)).await? else {
            let record = FileRecord { chunk: REQUEST_BYTES, ..record };
            return Ok(FirstAnswer { record, ranges: false, start: Vec::new() });
        };
        let total = start.iter().map(|chunk| u64::from(chunk.length())).sum();
        if length.is_some_and(|due| total < due) {
            return Err(Failure::network("the connection ended early"));
        }
        let record = FileRecord { total, chunk: chunk_bytes(total), ..record };
        Ok(FirstAnswer { record, ranges: true, start })
    }

    /// A body of `length` bytes in chunks. Without `length` it may have up to [`REQUEST_BYTES`]: `None` if it is longer. Where
    /// the connection breaks in a body of known length, the whole chunks that have come, if there are any.
    async fn body(
        &self,
        answer: &mut Answer,
        length: Option<u64>,
        chunk: u64,
    ) -> Result<Option<Vec<Chunk>>, Failure> {
        let most = length.unwrap_or(REQUEST_BYTES);
        let mut chunks = Vec::new();
        let mut got = 0;
        while got < most {
            let mut next = self.pool.take(chunk.min(most - got) as u32);
            let filled = match answer.fill(&mut next, self.signal(), |_| ()).await {
                Err(Failure::Again { .. }) if length.is_some() && !chunks.is_empty() => {
                    return Ok(Some(chunks));
                }
                filled => filled?,
            };
            let whole = filled == next.length();
            if whole || length.is_none() && filled > 0 {
                got += u64::from(filled);
                chunks.push(next.cut(filled));
            }
            if !whole {
                return match length {
                    Some(_) if chunks.is_empty() => Err(Failure::network("the connection ended early")),
                    _ => Ok(Some(chunks)),
                };
            }
        }
        match (self.more(answer).await?, length) {
            (false, _) => Ok(Some(chunks)),
            (true, None) => Ok(None),
            (true, Some(_)) => Err(Failure::integrity("the server sent more than was asked for")),
        }
    }

    /// Whether the body goes on.
    async fn more(&self, answer: &mut Answer) -> Result<bool, Failure> {
        Ok(answer.fill(&mut self.pool.take(1), self.signal(), |_| ()).await? > 0)
    }

    /// Fetches the chunks `first..end` and stores each as it is complete.
    pub(super) async fn fetch(&self, file: &OpenFile, first: u64, end: u64) -> Result<Vec<Chunk>, Failure> {
        let mut chunks = Vec::new();
        if let Some(picked) = self.disk.as_ref().and_then(|files| files.get(&file.meter.file)) {
            for index in first..end {
                check(self.signal())?;
                let (begin, end) = file.span(index);
                let chunk = local::slice(picked, &file.meter.file, begin, end, &self.pool).await?;
                self.store(file, index, &chunk).await?;
                file.meter.add(end - begin);
                chunks.push(chunk);
            }
            return Ok(chunks);
        }
        let mut tries = Tries::new(&file.url, self.signal());
        loop {
            let before = chunks.len();
            match self.try_fetch(file, first, end, &mut chunks).await {
                Ok(()) => return Ok(chunks),
                Err(failure) => {
                    if chunks.len() > before {
                        tries.reset();
                    }
                    tries.again(failure).await?;
                }
            }
        }
    }

    /// Fetches by one request those of the chunks `first..end` that are not in `chunks` yet.
    async fn try_fetch(
        &self,
        file: &OpenFile,
        first: u64,
        end: u64,
        chunks: &mut Vec<Chunk>,
    ) -> Result<(), Failure> {
        let _pass = self.gate.enter().await;
        let mut index = first + chunks.len() as u64;
        let asked = (file.span(index).0, file.span(end - 1).1);
        let mut answer = self.get(&file.url, Some(asked)).await?;
        let Some((from, to, total)) = answer.content_range().filter(|_| answer.partial()) else {
            return Err(Failure::NoRanges);
        };
        let now = FileRecord { total, tag: answer.tag(), ..file.record.clone() };
        if !now.same_version(&file.record) {
            return Err(Failure::Changed);
        }
        if (from, to) != asked {
            return Err(Failure::integrity("the server sent another range than was asked for"));
        }
        while index < end {
            let (from, to) = file.span(index);
            let mut chunk = self.pool.take((to - from) as u32);
            let mut filled = Unfinished { meter: &file.meter, bytes: 0 };
            let came = |n: u32| {
                filled.bytes += n;
                file.meter.add(n.into());
            };
            if answer.fill(&mut chunk, self.signal(), came).await? < chunk.length() {
                return Err(Failure::network("the connection ended early"));
            }
            self.store(file, index, &chunk).await?;
            filled.bytes = 0;
            chunks.push(chunk);
            index += 1;
        }
        if self.more(&mut answer).await? {
            return Err(Failure::integrity("the server sent more than was asked for"));
        }
        Ok(())
    }

    /// Stores a chunk with its hash.
    pub(super) async fn store(&self, file: &OpenFile, index: u64, chunk: &Chunk) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let hash = sha256(chunk).await?;
        match cache.put_chunk(&file.key, &file.record, index, chunk, &hash).await {
            Err(e) if e.code == Code::Quota => Err(with_sizes(e, &file.meter.file, file.record.total).await),
            done => done,
        }
    }

    /// Exactly `len` bytes from `offset` on.
    pub(super) async fn range(
        &self,
        file: &mut OpenFile,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, Failure> {
        if !file.ranges {
            return Err(Failure::Stop(Error::new(
                Code::Network,
                format!(
                    "{}: its server sends whole files only, and one checkpoint file must be read in parts. Download \
                     it, then open it from disk",
                    file.url
                ),
            )));
        }
        let end = offset.checked_add(len as u64).filter(|&end| end <= file.record.total);
        let end = end.ok_or_else(|| {
            Failure::Stop(Error::bad_checkpoint(format!("{} is truncated. Download it again", file.url)))
        })?;
        if let (None, Some(files)) = (&self.cache, &self.disk)
            && let Some(picked) = files.get(&file.meter.file)
        {
            check(self.signal())?;
            file.meter.set(end, None);
            return Ok(local::slice(picked, &file.meter.file, offset, end, &self.pool).await?.to_vec());
        }
        let mut out = vec![0; len];
        let mut at = offset;
        while at < end {
            let index = at / file.record.chunk;
            let chunk = self.chunk_at(file, index).await?;
            let (begin, stop) = file.span(index);
            let stop = stop.min(end);
            let part = chunk.subarray((at - begin) as u32, (stop - begin) as u32);
            if let Some(to) = out.get_mut((at - offset) as usize..(stop - offset) as usize) {
                part.copy_to(to);
            }
            at = stop;
        }
        Ok(out)
    }

    /// A chunk, from wherever it is. If it must be fetched, some that follow it are fetched too.
    async fn chunk_at(&self, file: &mut OpenFile, index: u64) -> Result<Rc<Chunk>, Failure> {
        if let Some(chunk) = file.ready.get(&index) {
            return Ok(chunk.clone());
        }
        // Files are read from front to back: what comes before is not read again soon.
        file.ready.retain(|&i, _| i > index);
        if file.stored.contains(&index) {
            if let Some(chunk) = self.stored(file, index).await?.map(Rc::new) {
                file.ready.insert(index, chunk.clone());
                return Ok(chunk);
            }
            file.stored.remove(&index);
        }
        let mut runs = Vec::new();
        let mut next = index;
        let ahead = if self.disk.is_some() { 1 } else { REQUESTS };
        while runs.len() < ahead && next < file.chunks() && file.missing_run(next) > next {
            let end = file.missing_run(next);
            runs.push((next, end));
            next = end;
        }
        let shared = &*file;
        let fetched = join_all(runs.iter().map(|&(first, end)| self.fetch(shared, first, end))).await;
        for ((first, _), chunks) in runs.into_iter().zip(fetched) {
            for (i, chunk) in (first..).zip(chunks?) {
                if self.cache.is_some() {
                    file.stored.insert(i);
                }
                file.ready.insert(i, Rc::new(chunk));
            }
        }
        let chunk = file.ready.get(&index).cloned();
        chunk.ok_or_else(|| Failure::network("the connection ended early"))
    }

    /// A chunk from the cache, if it is there and its hash is right; a damaged one is deleted.
    pub(super) async fn stored(&self, file: &OpenFile, index: u64) -> Result<Option<Chunk>> {
        let Some(cache) = &self.cache else { return Ok(None) };
        check(self.signal())?;
        let Some((chunk, hash)) = cache.chunk(&file.key, index, &self.pool).await? else { return Ok(None) };
        check(self.signal())?;
        let (begin, end) = file.span(index);
        if u64::from(chunk.length()) == end - begin && sha256(&chunk).await? == hash {
            file.meter.add(chunk.length().into());
            return Ok(Some(chunk));
        }
        cache.delete_chunk(&file.key, index).await?;
        Ok(None)
    }

    async fn chunks(&self, file: &OpenFile, job: Job) -> Result<Vec<Rc<Chunk>>, Failure> {
        let chunks = match job {
            Job::Ready(chunk) => return Ok(vec![chunk]),
            Job::Stored(index) => match self.stored(file, index).await? {
                Some(chunk) => vec![chunk],
                None => self.fetch(file, index, index + 1).await?,
            },
            Job::Fetch(first, end) => self.fetch(file, first, end).await?,
        };
        Ok(chunks.into_iter().map(Rc::new).collect())
    }

    /// Streams the file from byte `done` on, chunk by chunk from wherever each is.
    pub(super) async fn read_chunks(
        &self,
        file: &mut OpenFile,
        done: &mut u64,
        sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let mut jobs = Vec::new();
        let mut index = *done / file.record.chunk;
        while index < file.chunks() {
            let (job, next) = match file.ready.get(&index) {
                Some(chunk) => (Job::Ready(chunk.clone()), index + 1),
                None if file.stored.contains(&index) => (Job::Stored(index), index + 1),
                None => {
                    let end = file.missing_run(index);
                    (Job::Fetch(index, end), end)
                }
            };
            jobs.push(job);
            index = next;
        }
        // From here on only the jobs hold the bytes, and free them one by one.
        file.ready.clear();
        let file = &*file;
        let mut chunks = pin!(stream::iter(jobs).map(|job| self.chunks(file, job)).buffered(REQUESTS));
        let mut buffer = Vec::new();
        while let Some(run) = chunks.next().await {
            for chunk in run? {
                hand_on(&chunk, &mut buffer, sink).await?;
                *done += u64::from(chunk.length());
                check(self.signal())?;
            }
        }
        Ok(())
    }

    /// Streams the file from byte `done` on, from a server that sends whole files only.
    pub(super) async fn read_whole(
        &self,
        file: &mut OpenFile,
        done: &mut u64,
        sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let url = file.url.clone();
        let mut tries = Tries::new(&url, self.signal());
        loop {
            let before = *done;
            match self.try_read_whole(file, done, sink).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    if *done > before {
                        tries.reset();
                    }
                    tries.again(failure).await?;
                }
            }
        }
    }

    async fn try_read_whole(
        &self,
        file: &mut OpenFile,
        done: &mut u64,
        sink: &mut impl AsyncFnMut(&[u8]) -> Result<()>,
    ) -> Result<(), Failure> {
        let _pass = self.gate.enter().await;
        let mut answer = self.get(&file.url, None).await?;
        let total = answer.content_length();
        let known = file.record.total;
        let now = FileRecord {
            total: total.filter(|_| known > 0).unwrap_or(known),
            tag: answer.tag(),
            ..file.record.clone()
        };
        if !now.same_version(&file.record) {
            return Err(Failure::Changed);
        }
        let mut buffer = Vec::new();
        let (mut index, mut got) = (0, 0);
        loop {
            let mut chunk = self.pool.take(file.record.chunk as u32);
            let mut so_far = got;
            let came = |n: u32| {
                so_far += u64::from(n);
                file.meter.set(so_far.max(*done), total);
            };
            let filled = answer.fill(&mut chunk, self.signal(), came).await?;
            got += u64::from(filled);
            let ended = filled < chunk.length();
            if ended && total.is_some_and(|due| got < due) {
                return Err(Failure::network("the connection ended early"));
            }
            // A second try hands on only what the sink has not seen.
            if filled > 0 && index * file.record.chunk >= *done {
                let chunk = chunk.cut(filled);
                if !file.stored.contains(&index) {
                    self.store(file, index, &chunk).await?;
                    file.stored.insert(index);
                }
                hand_on(&chunk, &mut buffer, sink).await?;
                *done += u64::from(filled);
            }
            index += 1;
            if ended {
                if got < *done {
                    return Err(Failure::Changed);
                }
                return Ok(());
            }
        }
    }
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch, js_namespace = ["navigator", "storage"], js_name = estimate)]
    fn js_estimate() -> Result<Promise, JsValue>;
}

/// Adds to a refusal to store how much is stored and how much may be.
async fn with_sizes(e: Error, file: &str, total: u64) -> Error {
    let estimate = async || JsFuture::from(js_estimate()?).await;
    let estimate = estimate().await.unwrap_or_default();
    let mib = |key: &str| Reflect::get(&estimate, &key.into()).ok()?.as_f64().map(|n| n / 1048576.0);
    let sizes = match (mib("usage"), mib("quota")) {
        (Some(usage), Some(quota)) => format!("{usage:.1} MiB of {quota:.1} MiB are used"),
        _ => "how much is used is not known".to_string(),
    };
    let total = total as f64 / 1048576.0;
    Error::new(e.code, format!("{} ({file} has {total:.1} MiB; {sizes})", e.message))
}
