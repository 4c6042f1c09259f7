//! One HTTP request: its signal, its status, its body; and the rules for trying again.

use super::chunk::{Bytes, Chunk};
use crate::error::{Code, Error, Result};
use js_sys::{Date, Function, Promise, Reflect};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, AbortSignal, RequestCache, RequestInit, Response};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = fetch)]
    fn js_fetch(url: &str, init: &RequestInit) -> Promise;
}

/// Requests in flight, over all files of all models.
pub const REQUESTS: usize = 4;
/// How often a request is tried.
const TRIES: u32 = 4;
/// Wait before the second try, doubled for each one after it.
const FIRST_WAIT_MS: f64 = 400.0;
/// Longest wait that a server's Retry-After may ask for.
const LONGEST_WAIT_MS: f64 = 60_000.0;

/// Why a request failed.
pub enum Failure {
    /// It may succeed next time, perhaps after the milliseconds that the server names.
    Again { code: Code, why: String, after_ms: Option<f64> },
    /// The server has another version of the file than the one that was begun.
    Changed,
    /// The server does not answer Range requests, or hides Content-Range.
    NoRanges,
    /// There is no such file.
    Absent,
    /// Another try cannot help.
    Stop(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Stop(e)
    }
}

impl Failure {
    pub fn network(why: impl Into<String>) -> Failure {
        Failure::Again { code: Code::Network, why: why.into(), after_ms: None }
    }
    pub fn integrity(why: impl Into<String>) -> Failure {
        Failure::Again { code: Code::Integrity, why: why.into(), after_ms: None }
    }

    /// The error that the caller gets once nothing has helped.
    pub fn error(self, url: &str) -> Error {
        match self {
            Failure::Stop(e) => e,
            Failure::Again { code, why, .. } => Error::new(code, format!("{url}: {why}. Load again")),
            Failure::Absent => Error::new(
                Code::Network,
                format!("there is no file {url}. Check the model's name, the revision and the address"),
            ),
            Failure::Changed | Failure::NoRanges => Error::new(
                Code::Integrity,
                format!("{url} has changed on the server since its download began. Load again"),
            ),
        }
    }
}

/// `Aborted` once the caller's signal has fired.
pub fn check(signal: Option<&AbortSignal>) -> Result<()> {
    match signal {
        Some(signal) if signal.aborted() => Err(Error::new(
            Code::Aborted,
            "loading was stopped; what has been stored is kept, and loading goes on from there",
        )),
        _ => Ok(()),
    }
}

/// Counts failed tries of one thing and waits between them.
pub struct Tries<'a> {
    url: &'a str,
    signal: Option<&'a AbortSignal>,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub fn new(url: &'a str, signal: Option<&'a AbortSignal>) -> Self {
        Tries { url, signal, failed: 0 }
    }

    /// Progress has been made: the next failure is the first one again.
    pub fn reset(&mut self) {
        self.failed = 0;
    }

    /// Waits before another try; returns the failure if there is to be none.
    pub async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
        check(self.signal)?;
        let Failure::Again { code, why, after_ms } = failure else { return Err(failure) };
        self.failed += 1;
        if self.failed == TRIES {
            let message = format!(
                "{} could not be downloaded: {why} ({TRIES} times). Check the connection and load again; what \
                 has been stored is kept",
                self.url
            );
            return Err(Error::new(code, message).into());
        }
        let backoff =
            FIRST_WAIT_MS * f64::from(1 << (self.failed - 1)) * (1.0 + 0.2 * js_sys::Math::random());
        let until = Date::now() + after_ms.unwrap_or(backoff).clamp(0.0, LONGEST_WAIT_MS);
        // In slices, so that an abort is noticed.
        while Date::now() < until {
            gloo::timers::future::TimeoutFuture::new((until - Date::now()).clamp(1.0, 50.0) as u32).await;
            check(self.signal)?;
        }
        Ok(())
    }
}

/// An answer with status 200 or 206. Dropping it ends the request.
pub struct Answer {
    response: Response,
    body: Option<Bytes>,
    _abort: AbortOnDrop,
}

/// Asks for a file, or for `range` (first byte, one past the last) of it. `token`: the visitor's for the Hub. It
/// goes to the origin of `url` alone: fetch drops it where a redirect leads elsewhere (Fetch standard, HTTP-redirect fetch).
pub async fn get(
    url: &str,
    range: Option<(u64, u64)>,
    token: Option<&str>,
    signal: Option<&AbortSignal>,
) -> Result<Answer, Failure> {
    check(signal)?;
    let abort = AbortOnDrop::new(signal).map_err(|e| Failure::network(text(&e)))?;
    let init = RequestInit::new();
    init.set_signal(Some(&abort.controller.signal()));
    // The browser's own cache would keep the bytes a second time.
    init.set_cache(RequestCache::NoStore);
    let headers = web_sys::Headers::new().map_err(|e| Failure::network(text(&e)))?;
    let set = |name, value: &str| headers.set(name, value).map_err(|e| Failure::network(text(&e)));
    if let Some(token) = token {
        // The browser refuses characters that a header cannot have.
        headers.set("Authorization", &format!("Bearer {token}")).map_err(|_| {
            Failure::Stop(Error::invalid("token has characters that no access token has; copy it again"))
        })?;
    }
    if let Some((begin, end)) = range {
        // No If-Range: unlike Range it would need a preflight, which file servers refuse. The answer's ETag
        // is compared instead.
        set("Range", &format!("bytes={begin}-{}", end.saturating_sub(1)))?;
    }
    init.set_headers(&headers);
    let response = JsFuture::from(js_fetch(url, &init)).await;
    check(signal)?;
    // The browser does not tell a page which of these it was.
    let unread = |e: JsValue| {
        Failure::network(format!(
            "no answer came that this page may read ({}): there is no connection, the server does not allow other \
             sites (CORS), or its redirects go in a circle",
            text(&e)
        ))
    };
    let response: Response = response.map_err(unread)?.unchecked_into();
    let answer = Answer { response, body: None, _abort: abort };
    let status = answer.response.status();
    let stop = |message: String| Err(Failure::Stop(Error::new(Code::Network, message)));
    match status {
        200 | 206 => Ok(answer),
        404 | 410 => Err(Failure::Absent),
        401 | 403 if token.is_none() => stop(format!(
            "{url} is not open to everyone (HTTP {status}). Check the model's name. If the model is gated, accept its \
             licence on its page while signed in, and load it with an access token; or name a copy that is open"
        )),
        401 => {
            stop(format!("{url}: the access token is not valid (HTTP 401). Copy it again, or make a new one"))
        }
        403 => stop(format!(
            "{url} is not open to this access token (HTTP 403). Accept the model's licence on its page with the \
             account of the token, and give the token the right to read gated models"
        )),
        416 => Err(Failure::Changed),
        408 | 425 | 429 | 500.. => Err(Failure::Again {
            code: Code::Network,
            why: format!("the server answered with HTTP {status}"),
            after_ms: answer.header("Retry-After").and_then(|v| retry_after_ms(&v)),
        }),
        _ => stop(format!("{url} was answered with HTTP {status}. Check the address")),
    }
}

/// Milliseconds to wait, from a Retry-After in seconds or a date.
fn retry_after_ms(value: &str) -> Option<f64> {
    let ms = match value.trim().parse::<f64>() {
        Ok(seconds) => seconds * 1000.0,
        Err(_) => Date::parse(value) - Date::now(),
    };
    ms.is_finite().then_some(ms)
}

impl Answer {
    /// A header, if it is there and the server shows it to this page.
    pub fn header(&self, name: &str) -> Option<String> {
        self.response.headers().get(name).ok().flatten().filter(|v| !v.is_empty())
    }

    /// Whether this is the part that was asked for, rather than the whole file.
    pub fn partial(&self) -> bool {
        self.response.status() == 206
    }

    /// Identifies this version of the file: the ETag (weak or not), else the date.
    pub fn tag(&self) -> Option<String> {
        let tag = self.header("ETag").or_else(|| self.header("Last-Modified"))?;
        Some(tag.strip_prefix("W/").unwrap_or(&tag).to_string())
    }

    /// SHA-256 of the file, where the server names it as the Hub does: in X-Linked-ETag, and in the ETag of what the Hub
    /// itself (`hub`) sends. Elsewhere, and so after a redirect, a plain ETag may be any hash.
    pub fn sha256(&self, hub: bool) -> Option<String> {
        let own = || self.header("ETag").filter(|_| hub && !self.response.redirected());
        let tag = self.header("X-Linked-ETag").or_else(own)?;
        let hex = tag.trim_start_matches("W/").trim_matches('"');
        (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hex.to_ascii_lowercase())
    }

    /// Length of the whole body, unless it is compressed on the way.
    pub fn content_length(&self) -> Option<u64> {
        if self.header("Content-Encoding").is_some_and(|e| e != "identity") {
            return None;
        }
        self.header("Content-Length")?.trim().parse().ok()
    }

    /// First byte, one past the last, and the file's length, from `Content-Range: bytes 0-9/100`.
    pub fn content_range(&self) -> Option<(u64, u64, u64)> {
        let header = self.header("Content-Range")?;
        let (range, total) = header.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let last: u64 = last.trim().parse().ok()?;
        Some((first.trim().parse().ok()?, last.checked_add(1)?, total.trim().parse().ok()?))
    }

    /// Fills `chunk` with the body's next bytes. Returns how many: fewer than fit only at the body's end. `came` gets the
    /// length of each part as it comes.
    pub async fn fill(
        &mut self,
        chunk: &mut Chunk,
        signal: Option<&AbortSignal>,
        mut came: impl FnMut(u32),
    ) -> Result<u32, Failure> {
        let lost = |e: JsValue| Failure::network(format!("the connection broke ({})", text(&e)));
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let Some(stream) = self.response.body() else { return Ok(0) };
                self.body.insert(Bytes::of(stream).map_err(lost)?)
            }
        };
        let mut filled = 0;
        while filled < chunk.length() {
            let read = body.read(chunk, filled).await;
            check(signal)?;
            match read.map_err(lost)? {
                0 => break,
                n => {
                    filled += n;
                    came(n);
                }
            }
        }
        Ok(filled)
    }
}

/// Ends a request when dropped, or when the caller's signal fires.
struct AbortOnDrop {
    controller: AbortController,
    listening: Option<(AbortSignal, Function)>,
}

impl AbortOnDrop {
    fn new(signal: Option<&AbortSignal>) -> Result<Self, JsValue> {
        let controller = AbortController::new()?;
        let mut listening = None;
        if let Some(signal) = signal {
            let abort: Function = Reflect::get(&controller, &"abort".into())?.dyn_into()?;
            let abort = abort.bind0(&controller);
            signal.add_event_listener_with_callback("abort", &abort)?;
            listening = Some((signal.clone(), abort));
        }
        Ok(AbortOnDrop { controller, listening })
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some((signal, abort)) = &self.listening {
            let _ = signal.remove_event_listener_with_callback("abort", abort);
        }
        self.controller.abort();
    }
}

/// The message of a JavaScript error.
fn text(e: &JsValue) -> String {
    e.dyn_ref::<js_sys::Error>().map_or_else(|| format!("{e:?}"), |e| e.message().into())
}

/// Lets a few requests through at a time.
pub struct Gate {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Gate {
    pub fn new(free: usize) -> Gate {
        Gate { free: Cell::new(free), waiting: RefCell::default() }
    }

    /// Waits for a place, which is given back when the pass is dropped.
    pub async fn enter(&self) -> Pass<'_> {
        poll_fn(|context| match self.free.get() {
            0 => {
                self.waiting.borrow_mut().push_back(context.waker().clone());
                Poll::Pending
            }
            free => {
                self.free.set(free - 1);
                Poll::Ready(Pass(self))
            }
        })
        .await
    }
}

/// A place in a [`Gate`].
pub struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        // All of them: the first may belong to a read that has been given up.
        self.0.waiting.take().into_iter().for_each(Waker::wake);
    }
}
