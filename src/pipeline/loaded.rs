//! What is loaded beside a model: ControlNets, adapters.

use super::residence::Residence;
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::rc::Rc;

/// Each under its key.
pub(super) struct Loaded<T>(RefCell<Vec<(String, Rc<T>)>>);

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Loaded<T> {
    pub fn has(&self, key: &str) -> bool {
        self.0.borrow().iter().any(|(own, _)| own == key)
    }

    /// `kind`: what such a file is called in messages.
    ///
    /// # Errors
    /// `invalid-option` for a key that was not loaded.
    pub fn get(&self, kind: &str, key: &str) -> Result<Rc<T>> {
        let found = self.0.borrow().iter().find(|(own, _)| own == key).map(|(_, one)| one.clone());
        found.ok_or_else(|| Error::invalid(format!("{kind} {key} was not loaded.")))
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<(String, Rc<T>)> {
        self.0.borrow().clone()
    }

    pub fn add(&self, key: &str, one: T) {
        self.0.borrow_mut().push((key.to_owned(), Rc::new(one)));
    }

    /// Lets all go but those of `keys`.
    pub fn keep(&self, keys: &[String]) {
        self.0.borrow_mut().retain(|(own, _)| keys.contains(own));
    }

    /// The same of what acts beside the UNet or in it: with one that goes, the UNet's plan goes, which is bound to its
    /// weights.
    pub fn keep_beside_unet(&self, residence: &Residence, keys: &[String]) {
        if self.0.borrow().iter().any(|(own, _)| !keys.contains(own)) {
            residence.drop_unet_plan();
            self.keep(keys);
        }
    }
}
