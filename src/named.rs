//! Enums whose values a caller writes by name.

/// An enum that owns its names. The wasm surface reads options by these lists, and `tests/names.rs` compares
/// `www/names.js` and the types in `www/browser-diffusion.d.ts` with them.
pub trait Named: Copy + PartialEq + 'static {
    /// Every value and its name, in the order of the documentation.
    const NAMES: &'static [(&'static str, Self)];

    /// What this value is called.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }
}
