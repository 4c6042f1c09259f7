// matmul.wgsl for narrow subgroups of a known size (SUBGROUP lanes): no workgroup memory and no barrier. A software GPU
// went from 10 to 62 GFLOP/s of products.
//
// Tiling: a subgroup makes ROWS rows by 4 * SUBGROUP channels. A lane owns four neighbouring channels, so that it
// stores whole vectors, and all ROWS rows of them: ROWS * 4 sums in registers. For four k it reads one vector of A in
// each of SLOTS rows and four of W, and gives its A to the other lanes by broadcast: ROWS * 16 products for SLOTS + 4
// vectors read, none of them from workgroup memory. A workgroup is SX x SY subgroups, which share their reads through
// the cache.
#if DIRECTIVES
enable subgroups;
#endif

@compute @workgroup_size(SUBGROUP * SX * SY)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let subgroup = thread / SUBGROUP;
  let m_first = p.m_base + (group.y * SY + subgroup / SX) * ROWS;
  let column = (group.x * SX + subgroup % SX) * SUBGROUP + lane;
#for i 4
  let row_$i = row_of(column * 4u + $iu);
#endfor
#for i SLOTS
  let origin_$i = origin_of(min(m_first + $iu * LANES + lane % LANES, p.m - 1u));
#if LAYER_NORM
  let moments_$i = moments_of(origin_$i.row);
#endif
#for j LANES
  var sum_$i_$j = vec4f(0.0);
#endfor
#endfor

  for (var r = 0u; r < RUNS$one; r++) {
    let run = run_of(r);
#for i SLOTS
    let place_$i = place_of(origin_$i, run);
#endfor
    for (var c = 0u; c < run.c4; c++) {
#for i SLOTS
      var read_$i: stored4;
#endfor
#for s INPUTS
      if run.source == $su {
#for i SLOTS
        read_$i = input_$s[place_$i.at + c];
#endfor
      }
#endfor
#for i SLOTS
#if LAYER_NORM
      let a_$i = normed(read_$i, moments_$i, c);
#else
      let a_$i = or_zero(read_$i, place_$i.inside);
#endif
#endfor
#for i 4
      let w_$i = to_weights(read_w(row_$i, run, c));
#endfor
#for i SLOTS
#for j LANES
      sum_$i_$j = products(subgroupBroadcast(a_$i, $ju), w_0, w_1, w_2, w_3, sum_$i_$j);
#endfor
#endfor
    }
  }

  if column < n4() {
    let b = biases(column);
    var fits = true;
    // What a store is made of (additions, activations, f16, bounds) stands once and not for each of ROWS rows: of the
    // convolution of 16 rows lavapipe's compiler took 3.5 s, now 0.4 s, and a step is as fast. The sums move on by one at
    // each turn, the last falls out.
    var row = m_first + ROWS;
    while row > m_first {
      row--;
      var last = vec4f(0.0);
#for i SLOTS
#for j LANES
      {
        let next = sum_$i_$j;
        sum_$i_$j = last;
        last = next;
      }
#endfor
#endfor
      if row < p.m {
        fits = store(row, column, last + b) && fits;
      }
    }
    report(fits);
  }
}
