//! How long the GPU is at something.

use super::context::{Gpu, MemoryKind};
use crate::error::Result;
use wgpu::BufferUsages as Usage;

/// A query set of `count` timestamps.
pub(super) fn stamps(gpu: &Gpu, count: u32) -> wgpu::QuerySet {
    let ty = wgpu::QueryType::Timestamp;
    gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count })
}

/// Stamps 2i and 2i + 1 around a pass.
pub(super) fn between(query_set: &wgpu::QuerySet, i: u32) -> wgpu::ComputePassTimestampWrites<'_> {
    wgpu::ComputePassTimestampWrites {
        query_set,
        beginning_of_pass_write_index: Some(2 * i),
        end_of_pass_write_index: Some(2 * i + 1),
    }
}

/// Submits, and reads how many nanoseconds lie between the stamps of each pair.
pub(super) async fn spans(
    gpu: &Gpu,
    mut encoder: wgpu::CommandEncoder,
    set: &wgpu::QuerySet,
    count: u32,
) -> Result<Vec<f64>> {
    let size = count as u64 * 8;
    let resolved = gpu.buffer(MemoryKind::Staging, size, Usage::QUERY_RESOLVE | Usage::COPY_SRC);
    let staging = gpu.buffer(MemoryKind::Staging, size, Usage::MAP_READ | Usage::COPY_DST);
    encoder.resolve_query_set(set, 0..count, &resolved.raw, 0);
    encoder.copy_buffer_to_buffer(&resolved.raw, 0, &staging.raw, 0, size);
    gpu.queue.submit([encoder.finish()]);
    let bytes = gpu.map(&staging, size).await?;
    let period = gpu.queue.get_timestamp_period() as f64;
    let stamp = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    Ok(bytes
        .chunks_exact(16)
        .map(|pair| stamp(&pair[8..]).saturating_sub(stamp(&pair[..8])) as f64 * period)
        .collect())
}
