//! Buffers for bytes on their way, outside WebAssembly's memory. A few of them are used again and again: buffers made anew
//! for each read would wait for the garbage collector, a hundred MiB of them while a checkpoint streams.

use js_sys::{ArrayBuffer, Promise, Reflect, Uint8Array};
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::ReadableStream;

/// Most buffers that wait to be used again.
const SPARE: usize = 6;
/// Bytes of the smallest buffer that is worth keeping.
const LEAST: u32 = 256 << 10;

/// Buffers that wait to be used again.
#[derive(Default)]
pub struct Pool(RefCell<Vec<ArrayBuffer>>);

impl Pool {
    /// A chunk of `len` bytes, whose content is left from an earlier use.
    pub fn take(self: &Rc<Self>, len: u32) -> Chunk {
        let mut spare = self.0.borrow_mut();
        let fits = spare.iter().position(|b| b.byte_length() == len).map(|i| spare.swap_remove(i));
        let bytes = fits.map_or_else(|| Uint8Array::new_with_length(len), |buffer| Uint8Array::new(&buffer));
        Chunk { bytes, pool: self.clone() }
    }
}

/// Bytes in a buffer of their own, which goes back to its [`Pool`].
pub struct Chunk {
    bytes: Uint8Array,
    pool: Rc<Pool>,
}

impl Chunk {
    /// The first `len` bytes.
    pub fn cut(self, len: u32) -> Chunk {
        if len == self.length() {
            return self;
        }
        let cut = self.pool.take(len);
        cut.set(&self.subarray(0, len), 0);
        cut
    }
}

impl Deref for Chunk {
    type Target = Uint8Array;

    fn deref(&self) -> &Uint8Array {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = self.bytes.buffer();
        // An aborted read keeps the buffer, and leaves one of length 0 here.
        if buffer.byte_length() >= LEAST {
            let mut spare = self.pool.0.borrow_mut();
            spare.push(buffer);
            if spare.len() > SPARE {
                spare.remove(0);
            }
        }
    }
}

#[wasm_bindgen]
extern "C" {
    /// ReadableStreamBYOBReader, or the default reader.
    type Reader;
    #[wasm_bindgen(method, js_name = read)]
    fn read_into(this: &Reader, view: &Uint8Array) -> Promise;
    #[wasm_bindgen(method)]
    fn read(this: &Reader) -> Promise;

    type Readable;
    #[wasm_bindgen(method, catch, js_name = getReader)]
    fn reader(this: &Readable, options: &JsValue) -> Result<Reader, JsValue>;
}

/// A stream's bytes.
pub struct Bytes {
    reader: Reader,
    /// The stream reads into buffers that it is given.
    lends: bool,
    /// What the last read brought beyond what was asked for, of a stream that brings its own buffers.
    over: Uint8Array,
}

impl Bytes {
    pub fn of(stream: ReadableStream) -> Result<Bytes, JsValue> {
        let stream: Readable = stream.unchecked_into();
        let options = js_sys::Object::new();
        Reflect::set(&options, &"mode".into(), &"byob".into())?;
        let (reader, lends) = match stream.reader(&options) {
            Ok(reader) => (reader, true),
            Err(_) => (stream.reader(&JsValue::UNDEFINED)?, false),
        };
        Ok(Bytes { reader, lends, over: Uint8Array::new_with_length(0) })
    }

    /// Writes the next bytes into `chunk` from `at` on, which must be before its end. Returns how many; 0 at the end of the
    /// stream.
    pub async fn read(&mut self, chunk: &mut Chunk, at: u32) -> Result<u32, JsValue> {
        let (value, done): (JsValue, JsValue) = ("value".into(), "done".into());
        if self.lends {
            let read = JsFuture::from(self.reader.read_into(&chunk.subarray(at, chunk.length()))).await?;
            let view = Reflect::get(&read, &value)?.dyn_into::<Uint8Array>()?;
            // The same memory in another object.
            chunk.bytes = Uint8Array::new(&view.buffer());
            return Ok(view.length());
        }
        if self.over.length() == 0 {
            let read = JsFuture::from(self.reader.read()).await?;
            if Reflect::get(&read, &done)?.is_truthy() {
                return Ok(0);
            }
            self.over = Reflect::get(&read, &value)?.dyn_into()?;
        }
        let n = self.over.length().min(chunk.length() - at);
        chunk.set(&self.over.subarray(0, n), at);
        self.over = self.over.subarray(n, self.over.length());
        Ok(n)
    }
}
