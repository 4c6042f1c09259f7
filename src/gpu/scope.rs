//! Which part of a model is being recorded: what names of weights begin with.

use super::plan::Recorder;
use std::fmt::{Display, Write};
use std::ops::{Deref, DerefMut};

impl Recorder {
    /// This recorder, within the part of the model called `name`: names of weights are relative to it until the scope
    /// is dropped.
    pub fn scope(&mut self, name: impl Display) -> Scope<'_> {
        let outer = self.scope.len();
        // A String takes whatever is written to it.
        let _ = write!(self.scope, "{name}.");
        Scope { recorder: self, outer }
    }

    /// The whole name of what is called `name` in this scope.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.scope)
    }

    /// Records what stands in no part of the model: names of weights are relative to `name` alone.
    pub fn apart<T>(&mut self, name: &str, record: impl FnOnce(&mut Self) -> T) -> T {
        let scope = std::mem::replace(&mut self.scope, format!("{name}."));
        let made = record(self);
        self.scope = scope;
        made
    }
}

/// A [`Recorder`] within a part of a model (see [`Recorder::scope`]).
pub struct Scope<'a> {
    recorder: &'a mut Recorder,
    /// Bytes of the scope around this one.
    outer: usize,
}

impl Deref for Scope<'_> {
    type Target = Recorder;

    fn deref(&self) -> &Recorder {
        self.recorder
    }
}

impl DerefMut for Scope<'_> {
    fn deref_mut(&mut self) -> &mut Recorder {
        self.recorder
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.recorder.scope.truncate(self.outer);
    }
}
