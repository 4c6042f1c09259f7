// matmul.wgsl for outputs too small to fill a GPU with tiles: a workgroup makes TM rows by four channels. Its WX
// threads take turns at k, so that neighbours read neighbouring vectors of A and of W, and add their sums at the end:
// until then nothing passes through workgroup memory. The 8x8 level of a UNet then has 128 workgroups and more.
var<workgroup> sums: array<vec4f, TM * WX>;

@compute @workgroup_size(WX)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let m0 = p.m_base + group.y * TM;
  let column = group.x;
#for i TM
  let origin_$i = origin_of(min(m0 + $iu, p.m - 1u));
  var sum_$i = vec4f(0.0);
#endfor
#for i 4
  let row_$i = row_of(column * 4u + $iu);
#endfor
#if LAYER_NORM
  find_moments(m0, thread);
#endif

  for (var k = thread; k < all_k4(); k += WX) {
    let run = run_of(run_at(k));
    let c = k - run.k;
#for i TM
    let place_$i = place_of(origin_$i, run);
    var read_$i: stored4;
#endfor
#for s INPUTS
    if run.source == $su {
#for i TM
      read_$i = input_$s[place_$i.at + c];
#endfor
    }
#endfor
#for i 4
    let w_$i = to_weights(read_w(row_$i, run, c));
#endfor
#for i TM
#if LAYER_NORM
    let a_$i = normed(read_$i, row_moments[$i], c);
#else
    let a_$i = or_zero(read_$i, place_$i.inside);
#endif
#endfor
#for i TM
    sum_$i = products(a_$i, w_0, w_1, w_2, w_3, sum_$i);
#endfor
  }

#for i TM
  sums[$iu * WX + thread] = sum_$i;
#endfor
#if ROLLED
  // Adding in turns is written out six times by Mesa, TM rows each, which took LLVM eight of nine seconds.
  workgroupBarrier();
  if thread < TM && m0 + thread < p.m {
    var sum = vec4f(0.0);
    for (var other = 0u; other < WX$one; other++) {
      sum += sums[thread * WX + other];
    }
    report(store(m0 + thread, column, sum + biases(column)));
  }
#else
  for (var others = WX / 2u; others > 0u; others /= 2u) {
    workgroupBarrier();
    if thread < others {
#for i TM
      sums[$iu * WX + thread] += sums[$iu * WX + thread + others];
#endfor
    }
  }
  workgroupBarrier();
  if thread < TM && m0 + thread < p.m {
    report(store(m0 + thread, column, sums[thread * WX] + biases(column)));
  }
#endif
}
