//! What is loaded beside a model: ControlNets, adapters.

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

    pub fn get(&self, key: &str) -> Option<Rc<T>> {
        self.0.borrow().iter().find(|(own, _)| own == key).map(|(_, one)| one.clone())
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<(String, Rc<T>)> {
        self.0.borrow().clone()
    }

    pub fn add(&self, key: &str, one: T) {
        self.0.borrow_mut().push((key.to_owned(), Rc::new(one)));
    }

    /// Whether [`Loaded::keep`] lets one go.
    pub fn has_others(&self, keys: &[String]) -> bool {
        self.0.borrow().iter().any(|(own, _)| !keys.contains(own))
    }

    /// Lets all go but those of `keys`.
    pub fn keep(&self, keys: &[String]) {
        self.0.borrow_mut().retain(|(own, _)| keys.contains(own));
    }
}
