//! Checkpoint files: packing against an f64 reference on files that the `safetensors` crate wrote, cut in
//! every way. Headers that lie: `tests/headers.rs`.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/heap.rs"]
mod heap;
#[path = "support/unpack.rs"]
mod unpack;

use browser_diffusion::checkpoint::{Bits, FileUnpacker, Layout, Target, TensorInfo, names, packed, shards};
use browser_diffusion::{Code, Error, Result};
use half::{bf16, f16};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use safetensors::tensor::{Dtype as FileDtype, TensorView, serialize};
use std::collections::BTreeMap;
use unpack::{Collect, refused, unpack, with_header};

/// One tensor of a test file: values exact in f64, their bytes in the file, and their layout.
struct Case {
    name: String,
    dtype: FileDtype,
    shape: Vec<usize>,
    values: Vec<f64>,
    bytes: Vec<u8>,
    layout: Layout,
}

impl Case {
    fn random(rng: &mut SmallRng, name: &str, dtype: FileDtype, shape: &[usize], layout: Layout) -> Case {
        let mut case = Case {
            name: name.into(),
            dtype,
            shape: shape.into(),
            values: Vec::new(),
            bytes: Vec::new(),
            layout,
        };
        for _ in 0..shape.iter().product() {
            // Every magnitude that f16 has, subnormals and zeros too, and ties of its rounding.
            let sign = if rng.random() { 1.0 } else { -1.0 };
            let v: f64 = match rng.random_range(0..4) {
                0 => sign * rng.random::<f64>() * 2f64.powi(rng.random_range(-28..16)),
                1 => sign * f64::from(rng.random_range(0..4096)) * 2f64.powi(rng.random_range(-26..4)),
                2 => f16::from_bits(rng.random_range(0..0x7b00)).to_f64(),
                _ => sign * rng.random::<f64>(),
            };
            match dtype {
                FileDtype::F16 => case.bytes.extend(f16::from_f64(v).to_le_bytes()),
                FileDtype::BF16 => case.bytes.extend(bf16::from_f64(v).to_le_bytes()),
                FileDtype::F32 => case.bytes.extend((v as f32).to_le_bytes()),
                _ => case.bytes.extend(v.to_le_bytes()),
            }
            case.values.push(match dtype {
                FileDtype::F16 => f16::from_f64(v).to_f64(),
                FileDtype::BF16 => bf16::from_f64(v).to_f64(),
                FileDtype::F32 => f64::from(v as f32),
                _ => v,
            });
        }
        case
    }

    /// What must come out, by definition of the layout and of rounding.
    fn expected(&self, grid: &Grid) -> Vec<u16> {
        let (rows, inner, taps) = match self.layout {
            Layout::Matrix { rows, inner, taps } => (rows, inner, taps),
            Layout::Vector { len } => (1, len, 1),
            Layout::Blocks { .. } => unreachable!("quantised blocks have a test of their own"),
        };
        let inner4 = inner.div_ceil(4) * 4;
        let mut out = vec![0; rows * taps * inner4];
        for o in 0..rows {
            for i in 0..inner {
                for t in 0..taps {
                    out[(o * taps + t) * inner4 + i] = grid.nearest(self.values[(o * inner + i) * taps + t]);
                }
            }
        }
        out
    }
}

/// All finite non-negative f16 values, from the format's definition: rounding without `half`.
struct Grid(Vec<f64>);

impl Grid {
    fn new() -> Grid {
        let value = |bits: u32| match (bits >> 10, bits & 0x3ff) {
            (0, m) => f64::from(m) * 2f64.powi(-24),
            (e, m) => (1.0 + f64::from(m) / 1024.0) * 2f64.powi(e as i32 - 15),
        };
        Grid((0..0x7c00).map(value).collect())
    }

    /// Bits of the nearest f16, the even one of two equally near.
    fn nearest(&self, v: f64) -> u16 {
        let sign = if v.is_sign_negative() { 0x8000 } else { 0 };
        let above = self.0.partition_point(|&g| g < v.abs());
        let bits = match (above.checked_sub(1).map(|i| self.0[i]), self.0.get(above)) {
            (Some(lo), Some(hi)) => {
                let (down, up) = (v.abs() - lo, hi - v.abs());
                if down < up || (down == up && above % 2 == 1) { above - 1 } else { above }
            }
            (None, _) => above,
            (_, None) => above - 1,
        };
        sign | bits as u16
    }
}

/// A file with these tensors, written by the `safetensors` crate.
fn file(cases: &[Case]) -> Vec<u8> {
    let views = cases.iter().map(|c| {
        (c.name.clone(), TensorView::new(c.dtype, c.shape.clone(), &c.bytes).expect("a well-formed tensor"))
    });
    let metadata = Some([("format".to_string(), "pt".to_string())].into());
    serialize(views, metadata).expect("a well-formed file")
}

fn layouts(cases: &[Case]) -> BTreeMap<String, Layout> {
    cases.iter().map(|c| (c.name.clone(), c.layout)).collect()
}

fn check(got: &Collect, cases: &[Case]) {
    let grid = Grid::new();
    for case in cases {
        let got: Vec<u16> =
            got.written[&case.name].as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect();
        let expected = case.expected(&grid);
        assert_eq!(Some(2 * got.len() as u64), case.layout.packed_bytes(), "{}: length", case.name);
        let wrong = got.iter().zip(&expected).position(|(g, e)| g != e);
        assert_eq!(wrong, None, "{} ({:?}, {:?}): first wrong value", case.name, case.dtype, case.layout);
    }
}

const FLOATS: [FileDtype; 4] = [FileDtype::F16, FileDtype::BF16, FileDtype::F32, FileDtype::F64];

fn matrix(rows: usize, inner: usize, taps: usize) -> Layout {
    Layout::Matrix { rows, inner, taps }
}

#[test]
fn packs_every_dtype_and_layout() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut cases = Vec::new();
    for (d, dtype) in FLOATS.into_iter().enumerate() {
        let mut add = |name: &str, shape: &[usize], layout| {
            cases.push(Case::random(&mut rng, &format!("{name}{d}"), dtype, shape, layout));
        };
        add("conv", &[5, 7, 3, 3], matrix(5, 7, 9));
        add("conv_aligned", &[3, 8, 3, 3], matrix(3, 8, 9));
        add("point", &[6, 5, 1, 1], matrix(6, 5, 1));
        add("linear", &[9, 12], matrix(9, 12, 1));
        add("linear_odd", &[4, 13], matrix(4, 13, 1));
        add("table", &[50, 6], matrix(50, 6, 1));
        add("bias", &[11], Layout::Vector { len: 11 });
        add("scalar", &[], Layout::Vector { len: 1 });
        add("empty", &[0], Layout::Vector { len: 0 });
        // More than one piece of output, of both ways through the packer.
        add("large", &[700, 1000], matrix(700, 1000, 1));
        add("large_odd", &[500, 1021], matrix(500, 1021, 1));
        add("large_conv", &[90, 701, 3, 3], matrix(90, 701, 9));
    }
    let bytes = file(&cases);
    let mut got = unpack([&bytes[..]], &layouts(&cases)).expect("a good file");
    got.written.extend((0..4).map(|d| (format!("empty{d}"), Vec::new())));
    check(&got, &cases);
    assert!(got.longest <= (1 << 20) + 2 * 9 * 704, "a piece has at most 1 MiB and a row: {}", got.longest);
    // 4 MiB at a time, as the store hands them on.
    let got = unpack(bytes.chunks(4 << 20), &layouts(&cases)).expect("a good file");
    check(&got, &cases.into_iter().filter(|c| !c.name.starts_with("empty")).collect::<Vec<_>>());
}

#[test]
fn packs_as_f32_where_f16_is_too_small() {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut cases = Vec::new();
    for (d, dtype) in FLOATS.into_iter().enumerate() {
        for (name, shape, layout) in [
            ("conv", &[5, 7, 3, 3][..], matrix(5, 7, 9)),
            ("linear", &[9, 13], matrix(9, 13, 1)),
            ("large", &[700, 1000], matrix(700, 1000, 1)),
            ("bias", &[11], Layout::Vector { len: 11 }),
        ] {
            let mut case = Case::random(&mut rng, &format!("{name}{d}"), dtype, shape, layout);
            if dtype == FileDtype::F32 {
                case.values.iter_mut().for_each(|v| *v = f64::from((*v * 1e30) as f32));
                case.bytes = case.values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
            }
            cases.push(case);
        }
    }
    let bytes = file(&cases);
    for size in [4 << 20, 70_001] {
        let mut target = Collect { layouts: layouts(&cases), wide: true, ..Collect::default() };
        let mut unpacker = FileUnpacker::new("weights.safetensors");
        for part in bytes.chunks(size) {
            unpacker.push(part, &mut target).expect("a good file");
        }
        unpacker.finish().expect("a good file");
        for case in &cases {
            let (rows, inner, taps) = match case.layout {
                Layout::Vector { len } => (1, len, 1),
                Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                    (rows, inner, taps)
                }
            };
            let inner4 = inner.next_multiple_of(4);
            let mut due = vec![0f32; rows * taps * inner4];
            for (at, &v) in case.values.iter().enumerate() {
                let (row, i, tap) = (at / (inner * taps), at / taps % inner, at % taps);
                due[(row * taps + tap) * inner4 + i] = v as f32;
            }
            let due: Vec<u8> = due.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(due.len() as u64, case.layout.wide_bytes());
            assert!(target.written[&case.name] == due, "{} in {size}", case.name);
        }
    }
}

#[test]
fn what_is_kept_of_quantised_weights_comes_back_or_is_refused() {
    let tensors = [
        ("a", Layout::Blocks { rows: 40, inner: 64, taps: 9, bits: Bits::Q8 }, false),
        ("b", Layout::Vector { len: 5 }, false),
        ("c", Layout::Blocks { rows: 3, inner: 32, taps: 1, bits: Bits::Q4 }, true),
    ];
    let mut rng = SmallRng::seed_from_u64(8);
    let mut writer = packed::Writer::default();
    let (mut data, mut kept) = (BTreeMap::new(), Vec::new());
    for (name, layout, wide) in tensors {
        writer.tensor(name, layout, wide);
    }
    for (name, layout, wide) in tensors {
        let bytes = if wide { layout.wide_bytes() } else { layout.packed_bytes().expect("small") };
        let bytes: Vec<u8> = (0..bytes).map(|_| rng.random()).collect();
        for part in bytes.chunks(4096) {
            writer.write(part);
            kept.extend(writer.take(10_000, false).into_iter().flatten());
        }
        data.insert(name.to_owned(), bytes);
    }
    while let Some(rest) = writer.take(10_000, true) {
        kept.extend(rest);
    }

    let read = |kept: &[u8], cut: usize, known: &[(&str, Layout, bool)]| -> Result<Option<_>> {
        let mut reader = packed::Reader::default();
        let mut got = BTreeMap::<String, Vec<u8>>::new();
        let layout = |name: &str| known.iter().find(|t| t.0 == name).map(|t| (t.1, t.2));
        for part in kept.chunks(cut) {
            reader.push(part, layout, |name, offset, bytes| {
                let all = got.entry(name.into()).or_default();
                assert_eq!(offset, all.len() as u64);
                all.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        Ok(reader.complete().then_some(got))
    };
    for cut in [4, 12, 4096, kept.len()] {
        assert_eq!(read(&kept, cut, &tensors).expect("as it was written"), Some(data.clone()));
    }
    assert_eq!(
        read(&kept[..kept.len() - 4], 4096, &tensors).expect("no lie yet"),
        None,
        "the end is missing"
    );
    // Whatever is not what was written for these layouts is refused, and nothing panics.
    let other = [tensors[0], ("b", Layout::Vector { len: 6 }, false), tensors[2]];
    assert_eq!(read(&kept, 4096, &other).map_err(|e| e.code), Err(Code::BadCheckpoint));
    let narrower = [tensors[0], tensors[1], ("c", tensors[2].1, false)];
    assert_eq!(
        read(&kept, 4096, &narrower).map_err(|e| e.code),
        Err(Code::UnsupportedModel),
        "it lies as f32"
    );
    assert_eq!(
        read(&[kept.as_slice(), &[0; 4]].concat(), 4096, &tensors).map_err(|e| e.code),
        Err(Code::BadCheckpoint)
    );
    // (What the data are is held against their hash, by the store.)
    let header = 8 + u64::from_le_bytes(kept[..8].try_into().expect("8 bytes")) as usize;
    for at in 0..header {
        let mut wrong = kept.clone();
        wrong[at] ^= 1 << (at % 8);
        if let Ok(Some(got)) = read(&wrong, 4096, &tensors) {
            assert!(got == data, "a changed byte {at} of the header");
        }
    }
}

#[test]
fn packs_whatever_the_cuts() {
    let mut rng = SmallRng::seed_from_u64(2);
    let mut cases = Vec::new();
    for (d, dtype) in FLOATS.into_iter().enumerate() {
        cases.push(Case::random(&mut rng, &format!("c{d}"), dtype, &[2, 3, 2, 1], matrix(2, 3, 2)));
        cases.push(Case::random(&mut rng, &format!("m{d}"), dtype, &[2, 5], matrix(2, 5, 1)));
        cases.push(Case::random(&mut rng, &format!("v{d}"), dtype, &[4], Layout::Vector { len: 4 }));
    }
    // A tensor that nobody wants, between the others.
    let mut all = layouts(&cases);
    all.remove("m1");
    let bytes = file(&cases);
    cases.retain(|c| c.name != "m1");
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        check(&unpack([a, b], &all).expect("a good file"), &cases);
    }
    for size in [1, 2, 3, 5, 7, 11] {
        check(&unpack(bytes.chunks(size), &all).expect("a good file"), &cases);
    }
    for _ in 0..300 {
        let mut rest = &bytes[..];
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(rng.random_range(0..=rest.len().min(40)));
            parts.push(part);
            rest = more;
        }
        check(&unpack(parts, &all).expect("a good file"), &cases);
    }
    // Every truncation is seen.
    for len in 0..bytes.len() {
        let e = unpack([&bytes[..len]], &all).err().unwrap_or_else(|| panic!("cut to {len} bytes"));
        assert_eq!(e.code, Code::BadCheckpoint, "{e}");
        assert!(e.message.starts_with("weights.safetensors: truncated"), "{e}");
    }
    let longer = [&bytes[..], &[0]].concat();
    refused(&longer, "follow");
}

#[test]
fn refuses_values_that_are_not_finite_in_f16() {
    let one = |dtype, bytes: Vec<u8>, at: usize, layout, says: &str| {
        let n = bytes.len() / (FileDtype::bitsize(&dtype) / 8);
        let shape = match layout {
            Layout::Vector { len } => vec![len],
            Layout::Matrix { rows, inner, taps } | Layout::Blocks { rows, inner, taps, .. } => {
                vec![rows, inner, taps]
            }
        };
        assert_eq!(n, shape.iter().product::<usize>());
        let case = Case { name: "mid.w".into(), dtype, shape, values: Vec::new(), bytes, layout };
        let bytes = file(std::slice::from_ref(&case));
        for size in [1, 7, 4096, bytes.len()] {
            let e = unpack(bytes.chunks(size), &layouts(std::slice::from_ref(&case))).err().expect("refused");
            assert_eq!(e.code, Code::BadCheckpoint, "{e}");
            for part in ["weights.safetensors", "\"mid.w\"", &format!("(value {at})"), says] {
                assert!(e.message.contains(part), "{part:?} in {e}");
            }
        }
    };
    let layout = matrix(3, 2500, 1);
    for (bad, says) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        for at in [0, 1, 4095, 4096, 7499] {
            let put = |i| if i == at { bad } else { 1.5 };
            let all = 0..7500;
            one(
                FileDtype::F16,
                all.clone().flat_map(|i| f16::from_f64(put(i)).to_le_bytes()).collect(),
                at,
                layout,
                says,
            );
            one(
                FileDtype::BF16,
                all.clone().flat_map(|i| bf16::from_f64(put(i)).to_le_bytes()).collect(),
                at,
                layout,
                says,
            );
            one(
                FileDtype::F32,
                all.clone().flat_map(|i| (put(i) as f32).to_le_bytes()).collect(),
                at,
                layout,
                says,
            );
            one(
                FileDtype::F64,
                all.clone().flat_map(|i| put(i).to_le_bytes()).collect(),
                at,
                matrix(3, 500, 5),
                says,
            );
        }
    }
    // 65504 is the largest f16, 65520 the first that rounds to infinity.
    let vector = Layout::Vector { len: 2 };
    let f32s = |v: f32| [0f32.to_le_bytes(), v.to_le_bytes()].concat();
    one(FileDtype::F32, f32s(65520.0), 1, vector, "6.552e4");
    one(FileDtype::F32, f32s(-1e30), 1, vector, "more than f16 can");
    one(FileDtype::F64, [0f64.to_le_bytes(), 1e300f64.to_le_bytes()].concat(), 1, vector, "made for f16");
    one(
        FileDtype::BF16,
        [bf16::ZERO.to_le_bytes(), bf16::MAX.to_le_bytes()].concat(),
        1,
        vector,
        "more than f16",
    );
    let case = Case {
        name: "w".into(),
        dtype: FileDtype::F32,
        shape: vec![2],
        values: vec![0.0, 65519.99],
        bytes: f32s(65519.99),
        layout: vector,
    };
    let cases = [case];
    check(&unpack([&file(&cases)[..]], &layouts(&cases)).expect("the largest that fits"), &cases);
}

#[test]
fn refuses_tensors_that_the_model_does_not_have_room_for() {
    let case = |dtype, shape: &[usize], bytes: usize, layout| {
        let c = Case {
            name: "w".into(),
            dtype,
            shape: shape.into(),
            values: vec![],
            bytes: vec![0; bytes],
            layout,
        };
        unpack([&file(std::slice::from_ref(&c))[..]], &layouts(std::slice::from_ref(&c))).map(|_| ())
    };
    let code = |r: Result<()>| r.map_err(|e| e.code);
    assert_eq!(code(case(FileDtype::F16, &[2, 3], 12, matrix(2, 3, 1))), Ok(()));
    assert_eq!(code(case(FileDtype::F16, &[2, 3], 12, matrix(3, 2, 1))), Err(Code::BadCheckpoint));
    assert_eq!(code(case(FileDtype::F16, &[2, 3], 12, matrix(2, 4, 1))), Err(Code::BadCheckpoint));
    assert_eq!(code(case(FileDtype::F16, &[2, 3], 12, Layout::Vector { len: 5 })), Err(Code::BadCheckpoint));
    assert_eq!(code(case(FileDtype::I64, &[2], 16, Layout::Vector { len: 2 })), Err(Code::BadCheckpoint));
    assert_eq!(code(case(FileDtype::U8, &[2], 2, Layout::Vector { len: 2 })), Err(Code::BadCheckpoint));
    let huge = matrix(usize::MAX, usize::MAX, 9);
    assert_eq!((huge.elements(), huge.packed_bytes()), (None, None));
    assert_eq!(code(case(FileDtype::F16, &[2], 4, huge)), Err(Code::BadCheckpoint));
    // What the target refuses with comes through.
    struct Refuses;
    impl Target for Refuses {
        type Dest = ();
        fn want(&mut self, _: &TensorInfo) -> Result<Option<(Layout, ())>> {
            Err(Error::unsupported("not this one"))
        }
        fn write(&mut self, (): &(), _: u64, _: &[u8]) -> Result<()> {
            unreachable!("nothing was wanted")
        }
    }
    let bytes = with_header(r#"{"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, 4);
    let e = FileUnpacker::new("f").push(&bytes, &mut Refuses).expect_err("refused");
    assert_eq!((e.code, &*e.message), (Code::UnsupportedModel, "f: not this one"));
}

#[test]
fn names_are_those_of_today() {
    let clip = |n: &str| names::clip(n).map(|n| n.into_owned());
    let q = "encoder.layers.0.self_attn.q_proj.weight";
    assert_eq!(clip(&format!("text_model.{q}")).as_deref(), Some(q));
    assert_eq!(clip(q).as_deref(), Some(q));
    assert_eq!(clip("text_projection.weight").as_deref(), Some("text_projection.weight"));
    for ignored in [
        "text_model.embeddings.position_ids",
        "embeddings.position_ids",
        "position_ids",
        "logit_scale",
        "visual_projection.weight",
        "vision_model.post_layernorm.weight",
        "model_ema.decay",
    ] {
        assert_eq!(clip(ignored), None, "{ignored}");
    }
    let vae = |n: &str| names::vae(n).map(|n| n.into_owned());
    for side in ["encoder", "decoder"] {
        for kind in ["weight", "bias"] {
            let at = format!("{side}.mid_block.attentions.0");
            for (old, new) in [
                ("query", "to_q"),
                ("key", "to_k"),
                ("value", "to_v"),
                ("proj_attn", "to_out.0"),
                ("group_norm", "group_norm"),
            ] {
                let expected = format!("{at}.{new}.{kind}");
                assert_eq!(vae(&format!("{at}.{old}.{kind}")).as_ref(), Some(&expected));
                assert_eq!(vae(&expected).as_ref(), Some(&expected));
            }
        }
    }
    assert_eq!(vae("quant_conv.weight").as_deref(), Some("quant_conv.weight"));
    assert_eq!(vae("model_ema.decoder.conv_in.weight"), None);
    assert_eq!(names::unet("conv_in.weight").as_deref(), Some("conv_in.weight"));
    assert_eq!(names::unet("model_ema.num_updates"), None);
}

#[test]
fn reads_shard_indices() {
    let index = br#"{"metadata":{"total_size":12},"weight_map":{"b":"m-00002-of-00002.safetensors",
        "a":"m-00001-of-00002.safetensors","c":"m-00002-of-00002.safetensors"}}"#;
    let files = shards::files(index).expect("a good index");
    assert_eq!(files, ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]);
    for bad in [
        r#"{"weight_map":{}}"#,
        r#"{"weight_map":{"a":"../secret.safetensors"}}"#,
        r#"{"weight_map":{"a":"http://x/y.safetensors"}}"#,
        r#"{"weight_map":{"a":"m.bin"}}"#,
        r#"{"weight_map":{"a":1}}"#,
        r#"{"weight_map":[]}"#,
        "{}",
        "<!DOCTYPE html>",
        "",
    ] {
        assert_eq!(shards::files(bad.as_bytes()).map_err(|e| e.code), Err(Code::BadCheckpoint), "{bad}");
    }
}

/// Numbers of eight bits are torch's own, bit for bit, as they are and times ComfyUI's scales (`tests/reference/fp8.py`);
/// what is not finite is refused by name. Files are cut at every size up to seven bytes.
#[test]
fn eight_bits() {
    const SCALES: [f32; 3] = [0.012345679, 1.7, 3.0517578e-05];
    let all = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/data/fp8.bin")).unwrap();
    let theirs: Vec<u16> = all.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect();
    let finite = |bits: &u16| bits & 0x7c00 != 0x7c00;
    let layouts = |n| BTreeMap::from([("a.weight".to_owned(), matrix(n / 2, 2, 1))]);
    let file = |tensors: &[(&str, FileDtype, &[usize], &[u8])]| {
        let views = tensors.iter().map(|&(name, dtype, shape, bytes)| {
            (name.to_owned(), TensorView::new(dtype, shape.to_vec(), bytes).unwrap())
        });
        serialize(views, None).unwrap()
    };
    let mut compared = 0;
    for (kind, theirs) in [FileDtype::F8_E4M3, FileDtype::F8_E5M2].into_iter().zip(theirs.chunks_exact(1024))
    {
        for (case, theirs) in theirs.chunks_exact(256).enumerate() {
            let good: Vec<u8> = (0..=255).filter(|&i| finite(&theirs[usize::from(i)])).collect();
            let n = good.len();
            let due: Vec<u16> = good.iter().map(|&i| theirs[usize::from(i)]).collect();
            let scale = case.checked_sub(1).map(|i| SCALES[i].to_le_bytes());
            for name in ["a.scale_weight", "a.weight_scale"] {
                let mut tensors: Vec<(&str, FileDtype, &[usize], &[u8])> =
                    vec![("a.weight", kind, &[0, 2], &good), ("scaled_fp8", kind, &[0], &[])];
                let shape = [n / 2, 2];
                tensors[0].2 = &shape;
                if let Some(scale) = &scale {
                    tensors.push((name, FileDtype::F32, &[], scale));
                }
                let bytes = file(&tensors);
                for cut in 1..8 {
                    let got = unpack(bytes.chunks(cut), &layouts(n)).unwrap();
                    let rows = got.written["a.weight"].as_chunks::<8>().0;
                    let got: Vec<u16> = rows
                        .iter()
                        .flat_map(|r| [[r[0], r[1]], [r[2], r[3]]].map(u16::from_le_bytes))
                        .collect();
                    assert_eq!(got, due, "{kind:?} case {case} cut {cut}");
                    compared += 1;
                }
                // One more, that is not finite: refused by the weight's name.
                for bad in (0..=255).filter(|&i| !finite(&theirs[usize::from(i)])) {
                    let pair = [0, bad];
                    let mut pairs = tensors.clone();
                    (pairs[0].2, pairs[0].3) = (&[1, 2], &pair);
                    let e = unpack([file(&pairs).as_slice()], &layouts(2)).err().unwrap();
                    assert_eq!(e.code, Code::BadCheckpoint);
                    assert!(e.message.contains("a.weight"), "{e}");
                }
            }
        }
    }
    assert_eq!(compared, 2 * 4 * 2 * 7);

    // One scale a row; other numbers of them, other kinds, and scales that come too late are refused by name.
    let rows = [2f32.to_le_bytes(), 0.5f32.to_le_bytes()].concat();
    let one = [0x38, 0x38, 0x38, 0x38]; // 1 in F8_E4M3
    let weight = ("a.weight", FileDtype::F8_E4M3, &[2usize, 2][..], &one[..]);
    let got =
        unpack([file(&[weight, ("a.scale_weight", FileDtype::F32, &[2, 1], &rows)]).as_slice()], &layouts(4));
    let got = &got.unwrap().written["a.weight"];
    let got: Vec<f32> = got.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
    assert_eq!(got, [2.0, 2.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
    let three = [rows.as_slice(), &[0; 4]].concat();
    for wrong in [
        file(&[weight, ("a.scale_weight", FileDtype::F32, &[3], &three)]),
        file(&[weight, ("a.scale_weight", FileDtype::F8_E8M0, &[1], &[127])]),
        [with_header(
            r#"{"a.weight":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]},
                    "a.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}"#,
            8,
        )]
        .concat(),
    ] {
        let e = unpack([wrong.as_slice()], &layouts(4)).err().unwrap();
        assert!(e.code == Code::BadCheckpoint && e.message.contains("a.scale_weight"), "{e}");
    }
}
