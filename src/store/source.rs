//! What a caller names (`"stabilityai/sd-turbo"`, an address, `"embedded"`), resolved to addresses.

use crate::error::{Error, Result};

/// The Hub where the caller names none.
pub const DEFAULT_HUB: &str = "https://huggingface.co";

/// The options of `fromPretrained` that say where files are.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Hub revision: a branch, tag or commit. Default `main`.
    pub revision: Option<String>,
    /// The Hub's address, so that a mirror can stand in. Default [`DEFAULT_HUB`].
    pub hub: Option<String>,
    /// Address of the folder of the model that ships with the page.
    pub embedded: Option<String>,
    /// The visitor's access token for the Hub, for models that are gated.
    pub token: Option<String>,
}

/// A model in diffusers' folder layout, or in one file, somewhere on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    base: String,
    /// The file's name, if the model is one file, whose address `base` is.
    file: Option<String>,
    /// Whether `base` is of the Hub's origin.
    on_hub: bool,
    /// The visitor's access token, where `base` is of the Hub's origin.
    token: Option<String>,
    /// How the cache keeps its weights, if not as they come: `q8`.
    kept_as: Option<&'static str>,
}

/// The beginning of the addresses of models from the visitor's disk, which are their names in the cache.
const DISK: &str = "disk:";

/// How the names of checkpoint files end.
const CHECKPOINTS: [&str; 5] = [".safetensors", ".ckpt", ".pt", ".pth", ".bin"];

impl Source {
    /// Resolves what the caller named: a Hub id `owner/name`, the `http(s)` address of a diffusers folder
    /// or of a checkpoint file (with its query, where a server needs one; a Hub page of a file counts as the file),
    /// `disk:name` for files from disk that the cache has kept, or `embedded`.
    ///
    /// `UnsupportedModel` for a file of a kind that is not read, `InvalidOption` for anything else.
    pub fn resolve(source: &str, options: &SourceOptions) -> Result<Source> {
        let source = source.trim();
        if source == "embedded" {
            let Some(url) = &options.embedded else {
                return Err(Error::invalid("no embedded model ships with this page; name a Hub id or a URL"));
            };
            return Ok(Source::off_hub(source, folder(url)));
        }
        if let Some(name) = source.strip_prefix(DISK) {
            let single = CHECKPOINTS.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
            return Ok(Source::disk(name, single.then(|| name.to_owned())));
        }
        let http = source.starts_with("https://") || source.starts_with("http://");
        let hub = folder(options.hub.as_deref().unwrap_or(DEFAULT_HUB));
        let at = |base: String, hub: &str| {
            let on_hub = origin(&base) == origin(hub);
            let token = options.token.clone().filter(|_| on_hub);
            Source { on_hub, token, ..Source::off_hub(&base.clone(), base) }
        };
        let path = source.split(['?', '#']).next().unwrap_or(source);
        let lower = path.to_ascii_lowercase();
        if lower.ends_with(".gguf") {
            return Err(Error::unsupported(format!(
                "{source} is a GGUF file, which is not read here. Choose the model's .safetensors file"
            )));
        }
        if CHECKPOINTS.iter().any(|end| lower.ends_with(end)) {
            if !http {
                return Err(Error::invalid(format!(
                    "{source:?} is one file of a model: give its whole address (https://...)"
                )));
            }
            // The Hub shows a file at /blob/ and gives it at /resolve/.
            let base = source.split('#').next().unwrap_or(source).replacen("/blob/", "/resolve/", 1);
            let file = path.rsplit('/').next().unwrap_or(path).to_owned();
            let name = path.replacen("/blob/", "/resolve/", 1);
            return Ok(Source { name, file: Some(file), ..at(base, &hub) });
        }
        if http {
            if source.contains(['?', '#']) {
                return Err(Error::invalid(format!(
                    "{source} has a query or a fragment; name the address of the folder alone"
                )));
            }
            let base = folder(source);
            return Ok(at(base, &hub));
        }
        let (id, revision) = (source, options.revision.as_deref().unwrap_or("main"));
        let part = |s: &str| {
            !s.is_empty()
                && !s.starts_with('.')
                && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        match id.split_once('/') {
            Some((owner, name)) if part(owner) && part(name) => {}
            _ => {
                return Err(Error::invalid(format!(
                    "{source:?} is not a model: name a Hub id (\"owner/name\"), the http(s) URL of a diffusers \
                     folder, or \"embedded\""
                )));
            }
        }
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if revision.is_empty() || !revision.chars().all(safe) || revision.split('/').any(|s| s == "..") {
            return Err(Error::invalid(format!(
                "{revision:?} is not a revision; name a branch, tag or commit"
            )));
        }
        if !hub.starts_with("https://") && !hub.starts_with("http://") {
            return Err(Error::invalid(format!("hub {hub:?} is not an http(s) address")));
        }
        // A revision such as refs/pr/1 is one segment of the address.
        let revision_segment = revision.replace('/', "%2F");
        let name = if revision == "main" { id.into() } else { format!("{id}@{revision}") };
        Ok(Source { name, ..at(format!("{hub}/{id}/resolve/{revision_segment}"), &hub) })
    }

    /// Files from the visitor's disk, called `name` together. `file`: the name of the one file, if they are no folder.
    pub fn disk(name: &str, file: Option<String>) -> Source {
        Source { file, ..Source::off_hub(name, format!("{DISK}{name}")) }
    }

    fn off_hub(name: &str, base: String) -> Source {
        Source { name: name.into(), base, file: None, on_hub: false, token: None, kept_as: None }
    }

    /// Whether the files come from the visitor's disk, or came from there.
    pub fn on_disk(&self) -> bool {
        self.base.starts_with(DISK)
    }

    /// The same model with its weights kept quantised, as another model in the cache. `bits`: `q8`, `q4`.
    pub fn kept_as(self, bits: &'static str) -> Source {
        Source { kept_as: Some(bits), ..self }
    }

    /// Whether the cache keeps its weights quantised.
    pub fn keeps_packed(&self) -> bool {
        self.kept_as.is_some()
    }

    /// The same model with its weights kept as they come.
    pub fn unpacked(&self) -> Source {
        Source { kept_as: None, ..self.clone() }
    }

    /// What the model is called in the cache: its name, with `disk:` if it came from there, and `(q8)` if it is kept so.
    pub fn kept_name(&self) -> String {
        let name = if self.on_disk() { &self.base } else { &self.name };
        self.kept_as.map_or_else(|| name.clone(), |bits| format!("{name} ({bits})"))
    }

    /// What the model is called: the Hub id (with `@revision` unless it is `main`), the address, `embedded`, or the name
    /// of its file or folder on disk. A mirror's copy has the Hub's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's key in the cache: the address of its folder, and how its weights are kept.
    pub fn key(&self) -> String {
        self.with_kind(&self.base)
    }

    /// The cache's key of the file at `path`.
    pub fn file_key(&self, path: &str) -> String {
        self.with_kind(&self.url(path))
    }

    /// The cache's key of the packed copy of the weights at `path`.
    pub fn packed_key(&self, path: &str) -> String {
        format!("{}/{path}", self.key())
    }

    fn with_kind(&self, url: &str) -> String {
        // No address of a file has a fragment.
        self.kept_as.map_or_else(|| url.to_owned(), |bits| format!("{url}#{bits}"))
    }

    /// The model's one file, if it is not a folder.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Whether its files come from the Hub's own origin.
    pub fn on_hub(&self) -> bool {
        self.on_hub
    }

    /// The visitor's access token, to be sent with requests; there only where they go to the Hub's own origin.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The address of a file.
    pub fn url(&self, path: &str) -> String {
        if self.file.is_some() { self.base.clone() } else { format!("{}/{path}", self.base) }
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

/// An address without a slash at its end.
fn folder(url: &str) -> String {
    url.trim().trim_end_matches('/').to_string()
}
