//! What a caller names (`"stabilityai/sd-turbo"`, an address, `"embedded"`), resolved to addresses.

use crate::error::{Error, Result};

/// The Hub that stands in where none is named.
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
}

/// A model in diffusers' folder layout, somewhere on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    base: String,
}

impl Source {
    /// Resolves what the caller named: a Hub id `owner/name`, the `http(s)` address of a diffusers folder,
    /// or `embedded`.
    ///
    /// `UnsupportedModel` for a checkpoint of a single file, `InvalidOption` for anything else.
    pub fn resolve(source: &str, options: &SourceOptions) -> Result<Source> {
        let source = source.trim();
        if source == "embedded" {
            let Some(url) = &options.embedded else {
                return Err(Error::invalid("no embedded model ships with this page; name a Hub id or a URL"));
            };
            return Ok(Source { name: source.into(), base: folder(url) });
        }
        let path = source.split(['?', '#']).next().unwrap_or(source).to_ascii_lowercase();
        if [".safetensors", ".ckpt", ".pt", ".bin", ".gguf"].iter().any(|end| path.ends_with(end)) {
            return Err(Error::unsupported(format!(
                "{source} is one checkpoint file: single-file checkpoints come later. Name a model in \
                 diffusers' folder layout (a Hub id such as \"stabilityai/sd-turbo\", or the URL of the folder)"
            )));
        }
        if source.starts_with("https://") || source.starts_with("http://") {
            if source.contains(['?', '#']) {
                return Err(Error::invalid(format!(
                    "{source} has a query or a fragment; name the address of the folder alone"
                )));
            }
            let base = folder(source);
            return Ok(Source { name: base.clone(), base });
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
        let hub = folder(options.hub.as_deref().unwrap_or(DEFAULT_HUB));
        if !hub.starts_with("https://") && !hub.starts_with("http://") {
            return Err(Error::invalid(format!("hub {hub:?} is not an http(s) address")));
        }
        // A revision such as refs/pr/1 is one segment of the address.
        let revision_segment = revision.replace('/', "%2F");
        let name = if revision == "main" { id.into() } else { format!("{id}@{revision}") };
        Ok(Source { name, base: format!("{hub}/{id}/resolve/{revision_segment}") })
    }

    /// What the model is called in the cache and in messages: the Hub id (with `@revision` unless it is
    /// `main`), the address, or `embedded`. A mirror's copy has the Hub's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the folder: what tells two models of one name apart in the cache.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The address of a file.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// An address without a slash at its end.
fn folder(url: &str) -> String {
    url.trim().trim_end_matches('/').to_string()
}
