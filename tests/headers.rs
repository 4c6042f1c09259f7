//! Headers of .safetensors files that lie: each is refused as a bad checkpoint, quickly and without much memory.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/heap.rs"]
mod heap;
#[path = "support/unpack.rs"]
mod unpack;

use browser_diffusion::Code;
use browser_diffusion::checkpoint::{Dtype, Header};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use unpack::{refused, with_header};

/// Counts what was refused.
struct Lies(usize);

impl Lies {
    /// A file of this header and so many bytes of data is refused, with `says` in the message.
    fn refuse(&mut self, json: &str, data: usize, says: &str) {
        self.refuse_file(&with_header(json, data), says);
    }

    fn refuse_file(&mut self, bytes: &[u8], says: &str) {
        self.0 += 1;
        refused(bytes, says);
    }
}

/// A header of one tensor.
fn w(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

/// A header of two tensors.
fn two(a: &str, b: &str) -> String {
    let t = |o| format!(r#"{{"dtype":"F16","shape":[2],"data_offsets":{o}}}"#);
    format!(r#"{{"w":{},"v":{}}}"#, t(a), t(b))
}

fn good() -> String {
    w("F16", "[2]", "[0,4]")
}

/// Where the data lies.
fn offsets(lies: &mut Lies) {
    lies.refuse(&w("F16", "[2]", "[4,8]"), 8, "hole");
    lies.refuse(&w("F16", "[2]", "[4,0]"), 4, "overlap");
    lies.refuse(&two("[0,4]", "[0,4]"), 8, "overlap");
    lies.refuse(&two("[0,4]", "[2,6]"), 6, "overlap");
    lies.refuse(&two("[0,4]", "[5,9]"), 9, "hole");
    lies.refuse(&two("[0,4]", "[18446744073709551612,18446744073709551615]"), 8, "hole");
    for offsets in ["[0,2]", "[0,3]", "[0,5]", "[0,8]", "[0,18446744073709551615]", "[0,9223372036854775808]"]
    {
        lies.refuse(&w("F16", "[2]", offsets), 8, "shape");
    }
}

/// Shapes whose size overflows, back to the right one too; half a byte.
fn shapes(lies: &mut Lies) {
    let (big, half) = ("18446744073709551615", "9223372036854775808");
    for shape in [
        format!("[{big}]"),
        format!("[{big},{big}]"),
        format!("[{half},2]"),
        format!("[{half},2,2]"),
        "[4294967296,4294967296,2]".into(),
        "[2,4294967296,4294967296,0]".into(),
        "[0]".into(),
        "[1]".into(),
        "[3]".into(),
        "[2,2]".into(),
        "[]".into(),
    ] {
        lies.refuse(&w("F16", &shape, "[0,4]"), 4, "shape");
    }
    for dtype in ["F32", "F64", "U8", "BOOL", "I64", "C64", "F4", "F6_E2M3", "F8_E4M3"] {
        lies.refuse(&w(dtype, "[2]", "[0,4]"), 4, "shape");
    }
    // Half a byte.
    lies.refuse(&w("F4", "[1]", "[0,0]"), 0, "shape");
    lies.refuse(&w("F6_E2M3", "[2]", "[0,1]"), 1, "shape");
}

/// An entry that is none.
fn entries(lies: &mut Lies) {
    let long_shape = format!("[{}1]", "1,".repeat(20_000));
    let bad_entries = [
        r#""dtype":"F16","shape":[2]"#,
        r#""dtype":"F16","data_offsets":[0,4]"#,
        r#""shape":[2],"data_offsets":[0,4]"#,
        r#""dtype":"F16","dtype":"F16","shape":[2],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":[0,4],"data_offsets":[0,4]"#,
        r#""dtype":"F17","shape":[2],"data_offsets":[0,4]"#,
        r#""dtype":"f16","shape":[2],"data_offsets":[0,4]"#,
        r#""dtype":16,"shape":[2],"data_offsets":[0,4]"#,
        r#""dtype":null,"shape":[2],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":[-2],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":[2.0],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":[2e0],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":["2"],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":2,"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":null,"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":[18446744073709551616],"data_offsets":[0,4]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":[0]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":[0,4,4]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":[-4,0]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":[0,4.0]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":[0,1e300]"#,
        r#""dtype":"F16","shape":[2],"data_offsets":{"0":0}"#,
        r#""dtype":"F16","shape":[2],"data_offsets":null"#,
        &format!(r#""dtype":"F16","shape":{long_shape},"data_offsets":[0,2]"#),
        &format!(r#""dtype":"{}","shape":[2],"data_offsets":[0,4]"#, "F".repeat(100_000)),
    ];
    for entry in bad_entries {
        lies.refuse(&format!(r#"{{"w":{{{entry}}}}}"#), 4, "cannot be read");
    }
}

/// JSON that is none, or says something else.
fn texts(lies: &mut Lies) {
    let good = good();
    let inner = &good[1..good.len() - 1];
    for json in [
        "{}}".to_string(),
        "{,}".into(),
        "{\"w\"}".into(),
        "{\"w\":}".into(),
        "{\"w\":1}".into(),
        "{\"w\":[]}".into(),
        "{\"w\":null}".into(),
        "{\"w\":\"F16\"}".into(),
        "{1:2}".into(),
        "{{}}".into(),
        "{\"w\":{}}".into(),
        "{\u{0}}".into(),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("{good}\0"),
        format!("{{{inner},}}"),
        format!("{{{inner},{inner}}}"),
        format!("{{{inner},\"__metadata__\":{{}},\"__metadata__\":{{}}}}"),
        good.replace('"', "'"),
        good.replace(':', ","),
        good[..good.len() - 1].to_string(),
        format!("{{\"__metadata__\":{}}}", "[".repeat(400_000)),
        format!("{{\"w\":{}}}", "{\"a\":".repeat(100_000)),
        format!("{{\"w\":{{\"x\":{}", "[".repeat(400_000)),
        format!("{{\"{}", "a".repeat(400_000)),
        format!("{{\"w\\u12\":{}", &good[6..]),
        "{\"\\ud800\":1}".into(),
    ] {
        lies.refuse(&json, 4, "cannot be read");
    }
    for json in [" {}", "[]", "\"\"", "null", "12", "\u{feff}{}", "\0\0"] {
        lies.refuse(json, 0, "not JSON");
    }
}

/// Lengths that no header has: what they announce is never allocated.
fn lengths(lies: &mut Lies) {
    let good = good();
    for first in [0u64, 1, 100_000_001, 1 << 31, 1 << 32, 1 << 53, 1 << 63, u64::MAX, u64::MAX - 7] {
        lies.refuse_file(&[&first.to_le_bytes(), good.as_bytes()].concat(), "not a safetensors file");
    }
    for first in [3u64, 17, good.len() as u64 - 1] {
        lies.refuse_file(&[&first.to_le_bytes(), good.as_bytes(), &[0; 4]].concat(), "cannot be read");
    }
    for first in [good.len() as u64 + 5, 1 << 16, 100_000_000] {
        lies.refuse_file(&[&first.to_le_bytes(), good.as_bytes(), &[0; 4]].concat(), "truncated");
    }
    for (bytes, says) in [
        (&b"PK\x03\x04\x14\0\0\0archive/data.pkl"[..], ".ckpt"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "truncated"),
        (b"\x02\0\0", "truncated"),
    ] {
        lies.refuse_file(bytes, says);
    }
}

/// As good as it looks, but for one thing.
fn data(lies: &mut Lies) {
    let good = good();
    for data in [0, 1, 3] {
        lies.refuse(&good, data, "truncated");
    }
    lies.refuse(&good, 5, "follow");
    lies.refuse("{}", 1, "follow");
    // Metadata is skipped, however deep: this one fails for its data alone.
    let deep = format!("{{\"__metadata__\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    lies.refuse(&deep, 1, "follow");
    let many: String = (0..100_001)
        .map(|i| format!(r#","t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#))
        .collect();
    lies.refuse(&format!("{{{}}}", &many[1..]), 0, "more than");
}

/// One character replaced, at every place of a good header: refused, or still a good one.
fn characters(lies: &mut Lies) {
    let good = good();
    let mut rng = SmallRng::seed_from_u64(3);
    let parse = |json: &[u8]| Header::parse(json);
    assert_eq!(parse(good.as_bytes()).map(|h| h.data_len), Ok(4));
    for at in 0..good.len() {
        for _ in 0..20 {
            let mut json = good.clone().into_bytes();
            json[at] = rng.random_range(0..=255);
            match parse(&json) {
                Err(e) => {
                    assert_eq!(e.code, Code::BadCheckpoint);
                    lies.0 += 1;
                }
                Ok(h) => assert_eq!(h.tensors.iter().map(|t| t.end - t.begin).sum::<u64>(), h.data_len),
            }
        }
    }
}

#[test]
fn refuses_headers_that_lie() {
    let mut lies = Lies(0);
    for tell in [offsets, shapes, entries, texts, lengths, data, characters] {
        tell(&mut lies);
    }
    assert!(lies.0 > 200, "{} cases", lies.0);
}

#[test]
fn reads_files_over_four_gib() {
    // SDXL's UNet has 5.1 GB: offsets beyond 32 bits, on wasm32 too (where this parse is the same code).
    let json = r#"{"a":{"dtype":"F16","shape":[3000000000],"data_offsets":[0,6000000000]},
        "b":{"dtype":"F16","shape":[1],"data_offsets":[6000000000,6000000002]}}  "#;
    let header = Header::parse(json.as_bytes()).expect("a good header");
    assert_eq!((header.tensors[1].begin, header.data_len), (6_000_000_000, 6_000_000_002));
    assert_eq!(header.tensors[0].dtype, Dtype::F16);
}
