// Attention without the score matrix (Dao et al. 2022), as shaders/attention.wgsl has it, for narrow subgroups of a
// known size: no workgroup memory and no barrier.
//
// Bindings: q, k, v, output.
// Parameters: as attention.wgsl's.
// Tiling: QROWS query rows a lane, their q and output in registers. A subgroup goes over the keys SUBGROUP at a time:
// each lane reads one key and one value, a vector at a time, and gives it to the other lanes by broadcast, so that a
// vector read serves SUBGROUP * QROWS products of vectors. The running maximum is renewed every SUBGROUP keys. With
// `causal`, keys after the query are left out (CLIP).
#if DIRECTIVES
enable subgroups;
#endif
@group(0) @binding($binding) var<storage, read> q: array<act4>;
@group(0) @binding($binding) var<storage, read> k: array<act4>;
@group(0) @binding($binding) var<storage, read> v: array<act4>;
@group(0) @binding($binding) var<storage, read_write> out: array<act4>;

const NEGATIVE = -3.0e38;

fn product(a: vec4f, b: vec4f, sum: f32) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let head = group.y;
  let picture = group.z;
  let first = p.first_row + group.x * (THREADS * QROWS) + thread / SUBGROUP * (SUBGROUP * QROWS) + lane;
#for r QROWS
  let row_$r = first + $ru * SUBGROUP;
  let q_at_$r = (picture * p.length_q + min(row_$r, p.length_q - 1u)) * p.q_stride + p.q_from + head * D4;
  let last_$r = select(p.length_k, min(p.length_k, row_$r + 1u), p.causal != 0u);
  var top_$r = NEGATIVE;
  var total_$r = 0.0;
#for d D4
  let q_$r_$d = from_act(q[q_at_$r + $du]) * p.scale;
  var o_$r_$d = vec4f(0.0);
#endfor
#endfor

  for (var k0 = 0u; k0 < p.length_k; k0 += SUBGROUP) {
    let key = picture * p.length_k + min(k0 + lane, p.length_k - 1u);
    let k_at = key * p.k_stride + p.k_from + head * D4;
    let v_at = key * p.v_stride + p.v_from + head * D4;
#for r QROWS
#for j SUBGROUP
    var s_$r_$j = 0.0;
#endfor
#endfor
#for d D4
    {
      let mine = from_act(k[k_at + $du]);
#for j SUBGROUP
      {
        let key4 = subgroupBroadcast(mine, $ju);
#for r QROWS
        s_$r_$j = product(q_$r_$d, key4, s_$r_$j);
#endfor
      }
#endfor
    }
#endfor
#for r QROWS
    var new_top_$r = top_$r;
#for j SUBGROUP
    s_$r_$j = select(NEGATIVE, s_$r_$j, k0 + $ju < last_$r);
    new_top_$r = max(new_top_$r, s_$r_$j);
#endfor
    let keep_$r = exp(top_$r - new_top_$r);
    top_$r = new_top_$r;
    total_$r *= keep_$r;
#for j SUBGROUP
    // Where no key has been seen yet, all are as far below as each other.
    let w_$r_$j = select(0.0, exp(s_$r_$j - top_$r), k0 + $ju < last_$r);
    total_$r += w_$r_$j;
#endfor
#endfor
#for d D4
    {
      let mine = from_act(v[v_at + $du]);
#for r QROWS
      o_$r_$d *= keep_$r;
#endfor
#for j SUBGROUP
      {
        let value4 = subgroupBroadcast(mine, $ju);
#for r QROWS
        o_$r_$d = fma(vec4f(w_$r_$j), value4, o_$r_$d);
#endfor
      }
#endfor
    }
#endfor
  }

  let width = p.heads * D4;
#for r QROWS
  if row_$r < p.length_q {
    let at = (picture * p.length_q + row_$r) * width + head * D4;
#for d D4
    out[at + $du] = to_act(o_$r_$d / total_$r);
#endfor
  }
#endfor
}
