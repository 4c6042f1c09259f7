// Rows by index.
//
//   EMBED: out[n, t, :] = table[ids[n, t], :] + positions[t, :]      bindings: ids, table, positions, output
//   EMBED, ONTO: the same, where positions is no weight
//   else:  out[n, :] = rows[n, index[n], :]                          bindings: index, rows, output
// Parameters: size: vectors written; length: rows a picture; rows: those of the table. An index past them reads the
// last one, with EMBED zeros.
// Tiling: one vector a thread, 64 threads a workgroup.
@group(0) @binding($binding) var<storage, read> ids: array<u32>;
#if EMBED
@group(0) @binding($binding) var<storage, read> table: array<weight4_0>;
#if ONTO
@group(0) @binding($binding) var<storage, read> positions: array<act4>;
#else
@group(0) @binding($binding) var<storage, read> positions: array<weight4_1>;
#endif
#else
@group(0) @binding($binding) var<storage, read> table: array<act4>;
#endif
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if i >= p.size {
    return;
  }
  let row = i / p.c4;
  let c = i % p.c4;
  let index = min(ids[row], p.rows - 1u);
#if EMBED
  let known = select(0.0, 1.0, index == ids[row]);
  let place = positions[row % p.length * p.c4 + c];
#if ONTO
  let onto = from_act(place);
#else
  let onto = from_weight_1(place);
#endif
  out[i] = to_act(known * from_weight_0(table[index * p.c4 + c]) + onto);
#else
  out[i] = table[(row * p.rows + index) * p.c4 + c];
#endif
}
