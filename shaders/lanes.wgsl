// Do the threads of a workgroup lie in subgroups as our kernels take them to: subgroup i has threads i * SUBGROUP and
// the SUBGROUP - 1 behind it, in their order? WGSL promises nothing of the kind.
//
// Bindings: output, a word for each thread: 1 where it is so.
#if DIRECTIVES
enable subgroups;
#endif
@group(0) @binding($binding) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
  @builtin(subgroup_size) size: u32,
) {
  let first = subgroupBroadcast(thread, 0u);
  out[thread] = u32(size == SUBGROUP && thread % SUBGROUP == lane && first + lane == thread);
}
