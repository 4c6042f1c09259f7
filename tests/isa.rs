//! How `./build.sh bench --isa` reads the machine code that Mesa's compilers print: loops, counted by hand here.

#[path = "bench/isa/code.rs"]
mod code;

use code::{Code, Slice};
use serde_json::json;

/// The slice of a program called as its driver calls it, in which a thread computes so many multiply-adds.
fn slice(called: &str, text: &str, multiply_adds: f64) -> Slice {
    let said = json!({ "code": { called: text } });
    Code::read(&said).unwrap().slice(multiply_adds, 1.0).unwrap()
}

fn holds(slice: Slice, issue: f64, multiply_adds: f64, loaded: f64, stores: f64, [waits, loads]: [u32; 2]) {
    let counted = (slice.issue, slice.multiply_adds + slice.products, slice.loaded, slice.stores);
    assert_eq!(counted, (issue, multiply_adds, loaded, stores));
    assert_eq!([slice.waits, slice.loads], [waits, loads]);
}

/// The way out (block 2) stands before the loop's body (block 3), which the second load's address waits in.
#[test]
fn nvidia() {
    let text = "block.u 0 L2 [] -> {
      r1        = mov 0x0                                   // delay=1
} -> [1]
block.u 1 L1 [0, 3] -> {
                  bra !up0 L4                               // delay=1
} -> [2, 3]
block.u 2 L5 [1] -> {
      r9        = ffma.ftz r1 r2 r3                         // delay=1
                  exit                                      // delay=1
} -> []
block.u 3 L4 [1] -> {
      r2..4     = ld.global.a64.constant.b64 [r6..8+rZ], pT // delay=2 wr:0
      r5        = iadd3 r2 0x4 rZ                           // delay=4 wt=000001
      r6..8     = ld.global.a64.constant.b64 [r5..7+rZ], pT // delay=2 wr:1
                  st.shared.strong.cta.b128 [r5] r4..8      // delay=2 wt=000010
      r8..12    = ld.shared.strong.cta.b128 [r5]            // delay=2 wr:2
      r1        = ffma.ftz r8 r9 r1                         // delay=1 wt=000100
      r1        = ffma.ftz r10 r11 r1                       // delay=1
                  bra pT L1                                 // delay=1
} -> [1]";
    holds(slice("NAK assembly", text, 2.0), 9.0, 2.0, 16.0, 1.0, [1, 2]);
}

/// The inner loop turns twice: four of eight multiply-adds each time. Vector instructions issue, two of `v_dual` as one.
#[test]
fn amd() {
    let text = "\ts_mov_b32 s0, 0   ; 00
BB1:
\tbuffer_load_b64 v[2:3], v1, s[0:3], 0 offen ; 00
\tbuffer_load_b64 v[4:5], v1, s[0:3], 0 offen ; 00
\ts_waitcnt vmcnt(0) ; 00
\tds_store_b128 v1, v[2:5] ; 00
BB2:
\tds_load_b64 v[6:7], v1 ; 00
\tv_dual_fmac_f32 v8, v6, v7 :: v_dual_fmac_f32 v9, v6, v7 ; 00
\tv_fma_f32 v8, v6, v7, v8 ; 00
\tv_mul_f32_e32 v8, v6, v7 ; 00
\ts_cbranch_scc1 BB2 ; 00
\ts_branch BB1 ; 00
BB3:
\ts_endpgm ; 00";
    holds(slice("Assembly", text, 8.0), 6.0, 8.0, 16.0, 1.0, [0, 2]);
}

/// Repeats and nops take their cycles.
#[test]
fn adreno() {
    let text = "mov.u32u32 r0.x, 0
l2:
(sy)isam.v.base0 (u32)(xy)r1.x, r2.x, s#0, t#1
(sy)add.u r2.x, r1.x, r2.y
isam.v.base0 (u32)(xy)r3.x, r2.x, s#0, t#1
(sy)stl.u32 l[r1.x], r3.x, 4
ldl.u32 r4.x, l[r1.x+16], 4
(ss)(rpt1)mad.f32 r5.x, (r)r4.x, (r)r4.z, (r)r5.x
(nop2) mul.f r6.x, r4.x, r4.y
br p0.x, #l9
jump #l2
l9:
end ";
    holds(slice("IR3 Assembly", text, 3.0), 12.0, 3.0, 16.0, 1.0, [1, 2]);
}

/// The shorter program behind the main one runs once a dispatch, before it.
#[test]
fn apple() {
    let text = "shader: MESA_SHADER_COMPUTE
   0: f2050000               mov      $r1, threadgroup_in_grid_x
   4: 0501                   load     r2_r3, du0, 5, lsl 2, i32, xy, a
   6: 3800                   wait     a
   8: 0501                   load     r4_r5, du0, 5, lsl 2, i32, xy, a
   a: 3800                   wait     a
   c: 29d1                   lstore   r2_r3_r4_r5, r80h, 0, i32, xyzw
  10: 69b1                   lload    r2_r3_r4_r5, r81l, 0, i32, xyzw
  14: bad9                   ffma     $r54, $r2, $r4, r54
  1c: bad9                   ffma     $r54, $r3, $r5, r54
  24: 00c0                   jmp_any  -32
  2a: 8800                   stop
   0: 0501                   load     r0_r1, du0, 5, lsl 2, i32, xy, a
   2: 8800                   stop";
    holds(slice("printed", text, 2.0), 9.0, 2.0, 16.0, 1.0, [1, 2]);
}
