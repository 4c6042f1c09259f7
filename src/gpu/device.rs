//! Opens the adapter that the platform prefers.

use super::adapter::{AdapterInfo, GpuOptions, Limits};
#[cfg(target_arch = "wasm32")]
use super::web_features::request_device;
use crate::error::{Code, Error, Result};

/// An open device.
pub(super) struct Opened {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: AdapterInfo,
    pub features: wgpu::Features,
    pub limits: Limits,
    /// Bytes that a workgroup may have: WebGPU's default, or [`WORKGROUP_MEMORY`].
    pub workgroup_memory: u32,
}

fn unavailable(what: String) -> Error {
    Error::new(
        Code::WebGpuUnavailable,
        format!(
            "{what} Update the browser and the graphics driver, or try Chrome, Edge, Safari 26 or Firefox 141 and \
             later."
        ),
    )
}

/// What some kernels need (`shaders/winograd.wgsl`); most GPUs have as much.
pub(super) const WORKGROUP_MEMORY: u32 = 32 << 10;

/// Opens the device with the features that our kernels use and with buffers as large as the adapter has them.
///
/// # Errors
/// `webgpu-unavailable` where there is no adapter or no device.
pub(super) async fn open(options: &GpuOptions) -> Result<Opened> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance
        .request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        })
        .await
        .map_err(|e| unavailable(format!("No WebGPU adapter was found ({e}).")))?;
    let mut wanted = wgpu::Features::TIMESTAMP_QUERY;
    wanted.set(wgpu::Features::SHADER_F16, !options.without_shader_f16);
    wanted.set(wgpu::Features::SUBGROUP, !options.without_subgroups);
    let features = adapter.features() & wanted;
    // WebGPU's defaults but for the size of buffers and what a workgroup has: plans fit the defaults where they can.
    let have = adapter.limits();
    let limits = wgpu::Limits {
        max_buffer_size: have.max_buffer_size,
        max_storage_buffer_binding_size: have.max_storage_buffer_binding_size,
        max_compute_workgroup_storage_size: have.max_compute_workgroup_storage_size.min(WORKGROUP_MEMORY),
        ..wgpu::Limits::default()
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("browser-diffusion"),
        required_features: features,
        required_limits: limits.clone(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (device, queue, info) = request_device(&adapter, &descriptor)
        .await
        .map_err(|e| unavailable(format!("The GPU could not be opened ({e}).")))?;
    let workgroup_memory = limits.max_compute_workgroup_storage_size;
    let limits = Limits {
        max_buffer_size: limits.max_buffer_size,
        max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size as u64,
    };
    Ok(Opened { device, queue, info, features, limits, workgroup_memory })
}

#[cfg(not(target_arch = "wasm32"))]
async fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> std::result::Result<(wgpu::Device, wgpu::Queue, AdapterInfo), wgpu::RequestDeviceError> {
    let (device, queue) = adapter.request_device(descriptor).await?;
    let info = adapter.get_info();
    let has_subgroups = descriptor.required_features.contains(wgpu::Features::SUBGROUP);
    let info = AdapterInfo {
        name: info.name,
        vendor: format!("{:#06x}", info.vendor),
        architecture: String::new(),
        subgroup_sizes: if has_subgroups { (info.subgroup_min_size, info.subgroup_max_size) } else { (0, 0) },
        fallback: info.device_type == wgpu::DeviceType::Cpu,
    };
    Ok((device, queue, info))
}
