// A 3x3 convolution of stride 1 by matmul.wgsl's rule, with 16 multiplies where that has 36: Winograd's F(2x2, 3x3)
// (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1).
//
// A tile of 2x2 outputs reads 4x4 inputs d. With the weights g, 3x3, of one input and one output channel
//
//   U = G g G^T,  V = B^T d B,  outputs = A^T (sum over input channels of U * V, place by place) A
//
//   G = 1    0   0       B^T = 1  0 -1  0       A^T = 1  1  1  0
//       1/2  1/2 1/2           0  1  1  0             0  1 -1 -1
//       1/2 -1/2 1/2           0 -1  1  0
//       0    0   1             0  1  0 -1
//
// so that each of 16 places is a product of its own: tiles by output channels over input channels.
//
// - All of it in one kernel. With U, V and their products in planes between kernels, a step moves 8.6 GB more, and
//   planes of f16 leave three times the error. Here all three are f32 and never leave a workgroup: the error is the
//   direct kernel's, and U, which would be 16/9 of the weights, needs no room and no making anew for a LoRA.
// - A workgroup of 256 threads makes a block of 8 x 4 tiles by 16 BLOCKS channels. It fetches inputs and weights of DEPTH
//   vectors of channels at once, each value once and neighbours side by side: a tile's own loads would fetch an input
//   four to eight times, each lane from a line of its own.
// - Then, a vector after the other, half of the threads make V and others U, each one row of four places, of one tile's
//   inputs or one channel's weights; and 16 threads multiply at each place, a thread of them 8 tiles by 4 BLOCKS
//   channels. With BLOCKS 2 that is as many multiply-adds a read of workgroup memory as in a tile of 64 x 64; with 1 there
//   are half as many sums to hold.
//
// m counts blocks here: those of a row, of a picture, of all pictures follow one another, blocks_w of them a row, `blocks`
// a picture.
const CHANNELS = 16u * BLOCKS;
// Inputs under a block, and how many across.
const ACROSS = 18u;
const UNDER = 180u;
// Threads that make V or U.
const MAKERS = 128u + 4u * CHANNELS;
// Taps between those that a thread fetches.
const TAPS_APART = 256u / DEPTH;
#if QUANTISED
alias fetched4 = vec4f;
fn to_fetched(w: Packed) -> fetched4 { return to_weights(w); }
fn from_fetched(w: fetched4) -> vec4f { return w; }
#else
alias fetched4 = weight;
fn to_fetched(w: weight) -> fetched4 { return w; }
fn from_fetched(w: fetched4) -> vec4f { return to_weights(w); }
#endif
var<workgroup> inputs: array<array<stored4, UNDER>, DEPTH>;
// Of a channel nine taps; the pad puts vectors into different banks.
var<workgroup> taps: array<array<fetched4, 9u * CHANNELS + 4u>, DEPTH>;
// V's 16 places of 32 tiles, then U's of up to 32 channels. At the end the sums of 8 tiles.
var<workgroup> places: array<array<array<vec4f, 4>, 8>, 32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let block = p.m_base + group.y;
  let picture = block / p.blocks;
  let y0 = block % p.blocks / p.blocks_w * 8u;
  let x0 = block % p.blocks_w * 16u;

  // As one that makes V or U: a row of places, and which tile's or channel's.
  let makes_v = thread < 128u;
  let column = thread % select(CHANNELS, 32u, makes_v);
  let row = thread % 128u / select(CHANNELS, 32u, makes_v);
  // V's row is that of two rows of inputs, the lower one negative but for row 1.
  let under = column / 8u * 2u * ACROSS + column % 8u * 2u;
  let upper = under + ACROSS * select(min(row, 1u), 2u, row == 2u);
  let lower = under + ACROSS * select(select(2u, 1u, row == 2u), 3u, row == 3u);
  let sign = select(-1.0, 1.0, row == 1u);
  // A thread multiplies by channels 4 across + 16 b + i, which lie at [4 b + i][across].
  let channel = 4u * (column % 4u) + column / 16u * 16u + column / 4u % 4u;
  // U's row is a row of the weights, or half of all three's sum.
  let halves = vec3f(0.5, select(0.5, -0.5, row == 2u), 0.5);
  let share = select(halves, vec3f(f32(row == 0u), 0.0, f32(row == 3u)), row % 3u == 0u);

  // As one that multiplies: a place, and which tiles and channels.
  let place = thread / 16u;
  let down = thread % 16u / 4u;
  let across = thread % 4u;
#for q 4
#for h 2
#for b BLOCKS
  var sum_$q_$h_$b = vec4f(0.0);
#endfor
#endfor
#endfor

  // As one that fetches: up to three inputs and five taps, each of the same vector of DEPTH.
  let vector = thread % DEPTH;
#for i 3
  let under_$i = (thread + $iu * 256u) / DEPTH;
  let y_$i = i32(y0 + under_$i / ACROSS) - 1;
  let x_$i = i32(x0 + under_$i % ACROSS) - 1;
  let inside_$i = in_picture(y_$i, p.bound_h) && in_picture(x_$i, p.bound_w);
  let from_$i = pixel(picture, y_$i, x_$i) * p.c4_0;
#endfor
  let tap = thread / DEPTH;
#if !QUANTISED
  // Taps of a channel follow one another, and channels do. Past the last channel a read is out of bounds: WebGPU gives some
  // weight or zero, and what is made of that is no channel's.
  let from_tap = (group.x * CHANNELS * 9u + tap) * p.c4_0;
#endif

  for (var c0 = 0u; c0 < p.c4_0; c0 += DEPTH) {
    // Past the last vector the last one again, times zeros.
    let c = min(c0 + vector, p.c4_0 - 1u);
    let within = c0 + vector < p.c4_0;
#for i 3
    let d_$i = input_0[from_$i + c];
#endfor
#for i 5
#if QUANTISED
    let g_$i = read_w(
      row_of(group.x * CHANNELS + (tap + $iu * TAPS_APART) / 9u), run_of((tap + $iu * TAPS_APART) % 9u), c);
#else
    let g_$i = weights[from_tap + $iu * TAPS_APART * p.c4_0 + c];
#endif
#endfor
#for i 3
    if under_$i < UNDER {
      inputs[vector][under_$i] = select(stored4(), d_$i, inside_$i && within);
    }
#endfor
#for i 5
    if tap + $iu * TAPS_APART < 9u * CHANNELS {
      taps[vector][tap + $iu * TAPS_APART] = to_fetched(g_$i);
    }
#endfor
    for (var k = 0u; k < DEPTH$one; k++) {
      workgroupBarrier();
      if makes_v {
#for i 4
        let r_$i = fma(vec4f(sign), to_f32(inputs[k][lower + $iu]), to_f32(inputs[k][upper + $iu]));
#endfor
        places[4u * row][column / 4u][column % 4u] = r_0 - r_2;
        places[4u * row + 1u][column / 4u][column % 4u] = r_1 + r_2;
        places[4u * row + 2u][column / 4u][column % 4u] = r_2 - r_1;
        places[4u * row + 3u][column / 4u][column % 4u] = r_1 - r_3;
      } else if thread < MAKERS {
#for t 9
        let w_$t = from_fetched(taps[k][channel * 9u + $tu]);
#endfor
        let r_0 = fma(share.xxxx, w_0, fma(share.yyyy, w_3, share.z * w_6));
        let r_1 = fma(share.xxxx, w_1, fma(share.yyyy, w_4, share.z * w_7));
        let r_2 = fma(share.xxxx, w_2, fma(share.yyyy, w_5, share.z * w_8));
        let ends = 0.5 * (r_0 + r_2);
        places[16u + 4u * row][column / 4u][column % 4u] = r_0;
        places[16u + 4u * row + 1u][column / 4u][column % 4u] = fma(vec4f(0.5), r_1, ends);
        places[16u + 4u * row + 2u][column / 4u][column % 4u] = fma(vec4f(-0.5), r_1, ends);
        places[16u + 4u * row + 3u][column / 4u][column % 4u] = r_2;
      }
      workgroupBarrier();
#for b BLOCKS
#for i 4
      let w_$b_$i = places[16u + place][4u * $bu + $iu][across];
#endfor
#endfor
#for q 4
#for h 2
      {
        let v = places[place][$qu * 2u + $hu][down];
#for b BLOCKS
        sum_$q_$h_$b = products(v, w_$b_0, w_$b_1, w_$b_2, w_$b_3, sum_$q_$h_$b);
#endfor
      }
#endfor
#endfor
    }
  }

  // A row of tiles at a time, of which a thread makes one output of four channels: 16 threads have its sums.
  let out_column = thread % (4u * BLOCKS);
  let out_tile = thread / (4u * BLOCKS) % 8u;
  let dx = thread / (32u * BLOCKS) % 2u;
  let dy = thread / (64u * BLOCKS);
  let sign_y = select(1.0, -1.0, dy == 1u);
  let sign_x = select(1.0, -1.0, dx == 1u);
  let n = group.x * 4u * BLOCKS + out_column;
  let out_x = x0 + 2u * out_tile + dx;
  var fits = true;
#for q 4 1
#if ROLLED
  // The sums move on by one at each turn.
#for h 2
#for b BLOCKS
  let sum_q_$h_$b = sum_0_$h_$b;
  sum_0_$h_$b = sum_1_$h_$b;
  sum_1_$h_$b = sum_2_$h_$b;
  sum_2_$h_$b = sum_3_$h_$b;
#endfor
#endfor
#endif
  workgroupBarrier();
#for h 2
#for b BLOCKS
  places[place * BLOCKS + $bu][down * 2u + $hu][across] = sum_$q_$h_$b;
#endfor
#endfor
  workgroupBarrier();
  {
    let out_y = y0 + 2u * $qu + dy;
    if dy < 2u && out_y < p.bound_h && out_x < p.bound_w && n < n4() {
      let from_tile = out_tile % 4u * 2u + out_tile / 4u;
#for r 3
#for s 3
      let sum_$r_$s = places[(4u * (dy + $ru) + dx + $su) * BLOCKS + out_column / 4u][from_tile][out_column % 4u];
#endfor
      let line_$r = sum_$r_0 + sign_x * (sum_$r_1 + sum_$r_2);
#endfor
      let row = picture * p.out_positions + out_y * p.out_w + out_x;
      fits = store(row, n, line_0 + sign_y * (line_1 + line_2) + biases(n)) && fits;
    }
  }
#endfor
  report(fits);
}
