//! What is asked of an adapter, and what it says of itself.

/// How to open the device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Do not use shader-f16 even where the adapter has it: f16 values are unpacked from words, as on
    /// adapters without the feature.
    pub without_shader_f16: bool,
    /// Do not use subgroups even where the adapter has them.
    pub without_subgroups: bool,
}

/// The limits that the plans are checked against, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_buffer_size: u64,
    pub max_storage_buffer_binding_size: u64,
}

/// What the adapter says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct AdapterInfo {
    /// As the driver gives it; empty in most browsers.
    pub name: String,
    /// As `GPUAdapterInfo` has them ("nvidia", "ampere"); natively the vendor's PCI number, and nothing.
    pub vendor: String,
    pub architecture: String,
    /// Lanes of the smallest and of the largest subgroup; zeros where the device has none.
    pub subgroup_sizes: (u32, u32),
    /// The platform says that it is a processor.
    pub fallback: bool,
}
