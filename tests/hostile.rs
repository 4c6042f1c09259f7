//! Checkpoint files that mean harm. Whatever they say, nothing is executed (there is nothing in here that could be),
//! none hangs, and none takes more than 256 MiB.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/heap.rs"]
mod heap;

use browser_diffusion::checkpoint::{ReadAt, Table, ldm};
use browser_diffusion::{Code, Error, Result};
use cpu::cpu;
use heap::{heap, heap_peak};
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::path::PathBuf;
use std::time::Duration;

const MEMORY: usize = 256 << 20;
const TIME: Duration = Duration::from_secs(20);

/// Bytes, then zeros up to a length that need not be there.
struct Sparse {
    head: Vec<u8>,
    size: u64,
}

impl ReadAt for Sparse {
    async fn size(&self) -> Result<u64> {
        Ok(self.size)
    }
    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.size) {
            return Err(Error::new(Code::BadCheckpoint, "truncated"));
        }
        let mut out = vec![0; len];
        if let Some(rest) = usize::try_from(offset).ok().and_then(|at| self.head.get(at..)) {
            let n = rest.len().min(len);
            out[..n].copy_from_slice(&rest[..n]);
        }
        Ok(out)
    }
}

/// Opens a file and reads all that is in it, as far as that is not more than a visitor's model would be asked for.
fn use_it(file: &Sparse) -> Result<usize> {
    let table = block_on(Table::open(file))?;
    // Whatever sorting says, it must come back.
    let _ = ldm::sort(&table).map(|c| c.configs(&Default::default()));
    let mut tensors = 0;
    for tensor in &table.tensors {
        if tensor.bytes() <= 8 << 20 && tensors < 1000 {
            block_on(table.values(file, tensor))?;
        }
        tensors += 1;
    }
    Ok(tensors)
}

/// Runs attacks and counts them.
#[derive(Default)]
struct Attacks {
    files: usize,
    worst_memory: usize,
    worst_time: Duration,
}

impl Attacks {
    fn run(&mut self, what: &str, file: &Sparse) -> Result<usize> {
        self.files += 1;
        let before = heap();
        let begin = cpu();
        let result = use_it(file);
        let (time, memory) = (cpu() - begin, heap_peak() - before);
        assert!(time < TIME, "{what}: {time:?}");
        assert!(memory < MEMORY, "{what}: {} MiB", memory >> 20);
        self.worst_memory = self.worst_memory.max(memory);
        self.worst_time = self.worst_time.max(time);
        if let Err(e) = &result {
            assert_eq!(e.code, Code::BadCheckpoint, "{what}: {}", e.message);
        }
        result
    }

    /// It must be refused, with a message that says `says`.
    fn refused(&mut self, what: &str, file: Vec<u8>, says: &str) {
        let size = file.len() as u64;
        self.refused_sparse(what, Sparse { head: file, size }, says);
    }

    fn refused_sparse(&mut self, what: &str, file: Sparse, says: &str) {
        let error = self.run(what, &file).expect_err(what);
        assert!(error.message.contains(says), "{what}: {}", error.message);
    }

    /// It may be read or refused.
    fn survived(&mut self, what: &str, file: Vec<u8>) {
        let size = file.len() as u64;
        let _ = self.run(what, &Sparse { head: file, size });
    }
}

// ---- pickles ---------------------------------------------------------------------------------------------------

fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

fn int(n: i64) -> Vec<u8> {
    [b"\x8a\x08", &n.to_le_bytes()[..]].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", items.concat().as_slice(), b"t"].concat()
}

fn storage(class: &str, key: &str, numel: i64) -> Vec<u8> {
    let id = tuple(&[text("storage"), global("torch", class), text(key), text("cpu"), int(numel)]);
    [id, b"Q".to_vec()].concat()
}

/// The storage of `numel` f32.
fn floats(numel: i64) -> Vec<u8> {
    storage("FloatStorage", "0", numel)
}

fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let sizes = |s: &[i64]| tuple(&s.iter().map(|&n| int(n)).collect::<Vec<_>>());
    let args = tuple(&[storage, int(offset), sizes(shape), sizes(strides), b"\x89".to_vec(), b"}".to_vec()]);
    [global("torch._utils", "_rebuild_tensor_v2"), args, b"R".to_vec()].concat()
}

fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(k, v)| [text(k), v.clone()].concat()).collect();
    [b"}(", items.as_slice(), b"u"].concat()
}

// ---- files -----------------------------------------------------------------------------------------------------

/// What an entry of an archive says of itself.
#[derive(Clone)]
struct Entry {
    name: String,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    plain: Option<u32>,
}

fn entry(name: &str, data: impl Into<Vec<u8>>) -> Entry {
    Entry { name: name.into(), data: data.into(), method: 0, flags: 0, plain: None }
}

fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for e in entries {
        let at = file.len() as u32;
        let (stored, plain) = (e.data.len() as u32, e.plain.unwrap_or(e.data.len() as u32));
        let common = [
            &20u16.to_le_bytes()[..],
            &e.flags.to_le_bytes(),
            &e.method.to_le_bytes(),
            &[0; 8],
            &stored.to_le_bytes(),
            &plain.to_le_bytes(),
            &(e.name.len() as u16).to_le_bytes(),
            &0u16.to_le_bytes(),
        ]
        .concat();
        file.extend([b"PK\x03\x04", common.as_slice(), e.name.as_bytes(), &e.data].concat());
        let rest = [&[0; 10][..], &at.to_le_bytes(), e.name.as_bytes()].concat();
        directory.extend([b"PK\x01\x02\x14\0", common.as_slice(), &rest].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (start, bytes) = ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &bytes, &start, &[0, 0]].concat());
    file
}

fn zipped(object: &[u8], storages: &[(&str, usize)]) -> Vec<u8> {
    let mut entries = vec![entry("archive/data.pkl", pickle(object))];
    entries.extend(storages.iter().map(|(key, n)| entry(&format!("archive/data/{key}"), vec![0; *n])));
    zip(&entries)
}

const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

fn legacy(object: &[u8], keys: &[&str], data: &[u8]) -> Vec<u8> {
    let keys: Vec<u8> = keys.iter().flat_map(|k| text(k)).collect();
    let keys = [b"](", keys.as_slice(), b"e"].concat();
    let system = dict(&[("little_endian", b"\x88".to_vec())]);
    [MAGIC, &pickle(b"M\xe9\x03"), &pickle(&system), &pickle(object), &pickle(&keys), data].concat()
}

fn safetensors(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

/// Calls of what a file has no business to call, in every way that a pickle can call.
fn calls(a: &mut Attacks) {
    let victims = [
        "os system",
        "posix system",
        "nt system",
        "os popen",
        "os remove",
        "subprocess Popen",
        "subprocess check_output",
        "builtins eval",
        "builtins exec",
        "__builtin__ eval",
        "builtins __import__",
        "builtins getattr",
        "builtins open",
        "builtins compile",
        "importlib import_module",
        "runpy run_path",
        "webbrowser open",
        "socket socket",
        "ctypes CDLL",
        "pickle loads",
        "shutil rmtree",
        "operator attrgetter",
        "functools partial",
        "types FunctionType",
        "marshal loads",
        "code interact",
        "pty spawn",
        "sys exit",
        "urllib.request urlopen",
        "js eval",
        "window fetch",
    ];
    for victim in victims {
        let (module, name) = victim.split_once(' ').unwrap();
        let (class, command) = (global(module, name), text("touch /tmp/hostile-was-here"));
        let stack_global = [text(module), text(name), b"\x93".to_vec()].concat();
        let ways = [
            [class.clone(), b"(".to_vec(), command.clone(), b"tR".to_vec()].concat(),
            [stack_global, command.clone(), b"\x85R".to_vec()].concat(),
            [b"(".to_vec(), command.clone(), format!("i{module}\n{name}\n").into_bytes()].concat(),
            [b"(".to_vec(), class.clone(), command.clone(), b"o".to_vec()].concat(),
            [class.clone(), command.clone(), b"\x85\x81".to_vec()].concat(),
            [class.clone(), command.clone(), b"\x85}\x92".to_vec()].concat(),
            // Hidden behind a function that is understood.
            [
                global("torch._tensor", "_rebuild_from_type_v2"),
                tuple(&[class.clone(), b"N".to_vec(), tuple(std::slice::from_ref(&command)), b"}".to_vec()]),
                b"R".to_vec(),
            ]
            .concat(),
        ];
        for (i, body) in ways.into_iter().enumerate() {
            let what = format!("{victim}, way {i}");
            let says = format!("{module}.{name}");
            if i % 2 == 0 {
                a.refused(&what, zipped(&body, &[]), &says)
            } else {
                a.refused(&what, legacy(&body, &[], b""), &says)
            }
        }
    }
}

/// Opcodes that torch never writes: extension registries, buffers outside of the pickle, other persistent ids.
fn opcodes(a: &mut Attacks) {
    for op in (0u8..=255).filter(|op| {
        !b".(012NJKMGFILXTBUCVS)]tlae}dsuqrpghjcRiobQ".contains(op) && *op < 0x80
            || *op == 0x82
            || *op == 0x83
            || *op == 0x84
            || *op == 0x97
            || *op == 0x98
            || *op > 0x98
    }) {
        a.refused(&format!("opcode {op:#x}"), zipped(&[b"N", &[op][..], &[0; 16]].concat(), &[]), "opcode");
    }
}

/// Tensors that reach out of their storage, sizes that overflow, storages that are none.
fn tensors(a: &mut Attacks) {
    let max = i64::MAX;
    for (what, body) in [
        ("more than the storage", tensor(floats(4), 0, &[5], &[1])),
        ("behind the storage", tensor(floats(4), 4, &[1], &[1])),
        ("far behind", tensor(floats(4), max, &[1], &[1])),
        ("strides out", tensor(floats(4), 0, &[2, 2], &[3, 2])),
        ("strides overflow", tensor(floats(4), 0, &[3, 3], &[max, max])),
        ("shape overflows", tensor(floats(4), 0, &[1 << 32, 1 << 32], &[0, 0])),
        ("shape overflows beside zero", tensor(floats(4), 0, &[0, 1 << 40, 1 << 40], &[0, 0, 0])),
        ("below zero", tensor(floats(4), -1, &[1], &[1])),
        ("shape below zero", tensor(floats(4), 0, &[-1], &[1])),
        ("stride below zero", tensor(floats(4), 3, &[2], &[-1])),
        ("other strides", tensor(floats(4), 0, &[2, 2], &[1])),
        ("rank", tensor(floats(4), 0, &[1; 17], &[1; 17])),
        ("storage below zero", tensor(floats(-4), 0, &[1], &[1])),
        ("storage overflows", tensor(floats(max), 0, &[1], &[1])),
        ("storage of a class of its own", tensor(storage("EvilStorage", "0", 4), 0, &[1], &[1])),
        ("storage that is not there", tensor(storage("FloatStorage", "7", 4), 0, &[1], &[1])),
        ("storage outside", tensor(storage("FloatStorage", "../../../etc/passwd", 4), 0, &[1], &[1])),
        ("storage at an address", tensor(storage("FloatStorage", "https://example.org/", 4), 0, &[1], &[1])),
        (
            "storage twice, otherwise",
            [tensor(floats(4), 0, &[1], &[1]), tensor(floats(3), 0, &[1], &[1]), b"\x86".to_vec()].concat(),
        ),
        ("storage too short", tensor(floats(400), 0, &[400], &[1])),
        ("no storage", tensor(text("x"), 0, &[1], &[1])),
        ("an id that is none", [text("x"), b"Q".to_vec()].concat()),
        (
            "parameter of nothing",
            [global("torch._utils", "_rebuild_parameter"), b"N\x89N\x87R".to_vec()].concat(),
        ),
        ("quantised", [global("torch._utils", "_rebuild_qtensor"), b")R".to_vec()].concat()),
        (
            "a name twice",
            dict(&[
                ("a", dict(&[("b", tensor(floats(4), 0, &[1], &[1]))])),
                ("a.b", tensor(floats(4), 0, &[1], &[1])),
            ]),
        ),
    ] {
        a.refused(what, zipped(&body, &[("0", 16)]), "");
        let data = [&4u64.to_le_bytes()[..], &[0; 16]].concat();
        a.survived(what, legacy(&body, &["0"], &data));
    }
}

/// Machines out of order.
fn machines(a: &mut Attacks) {
    for (what, body) in [
        ("nothing", &b""[..]),
        ("pop", b"0"),
        ("no mark", b"t"),
        ("below the mark", b"N(\x85"),
        ("append to nothing", b"a"),
        ("items of a number", b"K\x01(NNu"),
        ("a key without a value", b"}(Nu"),
        ("append to a number", b"K\x01Na"),
        ("memo", b"h\x07"),
        ("memo far", b"j\xff\xff\xff\xff"),
        ("memo of words", b"Npx\n"),
        ("call of a number", b"K\x01)R"),
        ("object of no class", b"(o"),
        ("class without a name", b"NN\x93"),
        ("breaks off in a text", b"X\xff\0\0\0abc"),
        ("breaks off in a number", b"J\0"),
        ("breaks off in a line", b"cos"),
        ("text without end", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("long without end", b"\x8b\xff\xff\xff\xff"),
    ] {
        a.refused(what, zipped(body, &[]), "pickle");
        a.refused(what, legacy(body, &[], b""), "pickle");
    }
}

/// Floods and mazes.
fn floods(a: &mut Attacks) {
    let flood = |op: &[u8]| op.repeat((30 << 20) / op.len());
    for (what, body) in [
        ("lists", flood(b"]")),
        ("dictionaries", flood(b"}")),
        ("marks", flood(b"(")),
        ("numbers", flood(b"N")),
        ("copies", [b"N".to_vec(), flood(b"2")].concat()),
        (
            "memo",
            [b"N".to_vec(), (0..5_000_000u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat()).collect()]
                .concat(),
        ),
        ("memoize", [b"N".to_vec(), flood(b"\x94")].concat()),
        ("classes", flood(b"ca\nb\n")),
        ("appends to itself", [b"]q\0".to_vec(), flood(b"h\0a")].concat()),
        (
            "tensors",
            [floats(4), b"q\0".to_vec(), {
                let ints = [tuple(&[]), tuple(&[])].concat();
                let one =
                    [global("torch._utils", "_rebuild_tensor_v2"), b"(h\0K\0".to_vec(), ints, b"tR".to_vec()]
                        .concat();
                flood(&one)
            }]
            .concat(),
        ),
    ] {
        a.refused(what, zipped(&body, &[("0", 16)]), "more objects");
    }
    let depth = 400_000;
    a.survived("a deep list", zipped(&[b"]".repeat(depth), b"a".repeat(depth - 1)].concat(), &[]));
    a.survived("deep tuples", zipped(&[b"N".to_vec(), b"\x85".repeat(depth)].concat(), &[]));
    a.survived("a list in itself", zipped(b"]q\0h\0a", &[]));
    a.survived(
        "a dictionary in itself",
        zipped(&[b"}q\0".to_vec(), text("k"), b"h\0s".to_vec()].concat(), &[]),
    );
    let laughs = (0..60u8).map(|i| [b"](", [b'h', i].repeat(10).as_slice(), b"eq", &[i + 1]].concat());
    let laughs = [b"]q\0".to_vec(), laughs.collect::<Vec<_>>().concat()].concat();
    a.survived("a billion laughs", zipped(&laughs, &[]));
    let long = "n".repeat(100_000);
    let nested = (0..50).fold(tensor(floats(4), 0, &[4], &[1]), |inner, _| dict(&[(&long, inner)]));
    a.survived("long names", zipped(&nested, &[("0", 16)]));
    let wide: Vec<u8> =
        (0..250_000u32).flat_map(|i| [text(&format!("{i:0200}")), b"]".to_vec()].concat()).collect();
    a.survived("a wide dictionary", zipped(&[b"}(", &wide[..30 << 20], b""].concat(), &[]));
    let names: Vec<u8> =
        (0..120_000u32).flat_map(|i| [text(&format!("{i:0200}")), b"h\0".to_vec()].concat()).collect();
    let names = [tensor(floats(4), 0, &[4], &[1]), b"q\0}(".to_vec(), names, b"u".to_vec()].concat();
    a.refused("a tensor by many names", zipped(&names, &[("0", 16)]), "more");
}

/// Archives that lie.
fn archives(a: &mut Attacks) {
    let good = [
        entry("archive/data.pkl", pickle(&tensor(floats(4), 0, &[4], &[1]))),
        entry("archive/data/0", vec![0; 16]),
    ];
    assert_eq!(a.run("a good one", &Sparse { size: zip(&good).len() as u64, head: zip(&good) }).unwrap(), 1);
    let changed = |i: usize, change: &dyn Fn(&mut Entry)| {
        let mut entries = good.to_vec();
        change(&mut entries[i]);
        zip(&entries)
    };
    for i in 0..2 {
        a.refused("deflated", changed(i, &|e| e.method = 8), "compressed");
        a.refused("a bomb", changed(i, &|e| (e.method, e.plain) = (8, Some(0xffff_fff0))), "compressed");
        a.refused(
            "a bomb that says it is stored",
            changed(i, &|e| e.plain = Some(0xffff_fff0)),
            "compressed",
        );
        a.refused("encrypted", changed(i, &|e| e.flags = 1), "compressed or encrypted");
        for name in ["../../etc/passwd", "/etc/passwd", "C:\\x", "archive/data/", "", "\0", "archive/other"] {
            a.refused("a name", changed(i, &|e| e.name = name.into()), "");
        }
    }
    a.refused("two pickles", zip(&[good[0].clone(), good[0].clone()]), "several");
    a.refused("no entries", zip(&[]), "");
    a.refused("many entries", zip(&vec![entry("x", ""); 60_000]), "data.pkl");
    let file = zip(&good);
    let end = file.len() - 22;
    for (what, at, bytes) in [
        ("directory behind the file", end + 16, &b"\xf0\xff\xff\xff"[..]),
        ("directory in itself", end + 16, b"\0\0\0\0"),
        ("directory too long", end + 12, b"\xf0\xff\xff\x7f"),
        ("fewer entries", end + 8, b"\x01\0\x01\0"),
        ("zip64 without its record", end + 10, b"\xff\xff"),
        ("no end", end, b"XX"),
        ("entry elsewhere", end - 4 - "archive/data/0".len(), b"\x05\0\0\0"),
        ("entry behind the file", end - 4 - "archive/data/0".len(), b"\xff\xff\xff\x7f"),
    ] {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        a.refused(what, file, "");
    }
    let mut twice = file.clone();
    twice.extend_from_slice(&file);
    a.survived("an archive behind an archive", twice);
    // Sizes that only the directory has: nothing of them is allocated.
    let big = pickle(b"N");
    let head = [b"PK\x03\x04", big.as_slice()].concat();
    a.refused_sparse("a terabyte of zeros", Sparse { head, size: 1 << 40 }, "");
}

/// Legacy files that lie.
fn legacy_files(a: &mut Attacks) {
    let good = tensor(floats(4), 0, &[4], &[1]);
    let data = [&4u64.to_le_bytes()[..], &[0; 16]].concat();
    assert_eq!(
        a.run("a good one", &{
            let head = legacy(&good, &["0"], &data);
            Sparse { size: head.len() as u64, head }
        })
        .unwrap(),
        1
    );
    a.refused("no keys", legacy(&good, &[], b""), "");
    a.refused("a key of nothing", legacy(&good, &["1"], &data), "");
    a.refused("a key twice", legacy(&good, &["0", "0"], &[data.clone(), data.clone()].concat()), "");
    a.refused("too short", legacy(&good, &["0"], &data[..20]), "");
    a.refused("too long", legacy(&good, &["0"], &[data.clone(), data.clone()].concat()), "");
    a.refused("the magic alone", MAGIC.to_vec(), "");
    a.refused(
        "another protocol",
        [MAGIC, &pickle(b"K\x07"), &pickle(b"}"), &pickle(b"N"), &pickle(b"]")].concat(),
        "version",
    );
    let big_endian = dict(&[("little_endian", b"\x89".to_vec())]);
    a.refused(
        "big-endian",
        [MAGIC, &pickle(b"M\xe9\x03"), &pickle(&big_endian), &pickle(b"N"), &pickle(b"]")].concat(),
        "big-endian",
    );
    a.refused_sparse("a terabyte after the magic", Sparse { head: MAGIC.to_vec(), size: 1 << 40 }, "pickle");
    let huge = tensor(floats(1 << 61), 0, &[1 << 61], &[1]);
    a.refused("a storage of 2^63 bytes", legacy(&huge, &["0"], &data), "");
    a.refused("a bare pickle", pickle(b"N"), "torch.save");
}

/// .safetensors files that lie.
fn headers(a: &mut Attacks) {
    for (what, json, data) in [
        (
            "overlap",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                "b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
            6,
        ),
        (
            "the same bytes",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                "b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4,
        ),
        ("a hole", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
        ("backwards", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 8),
        ("behind the end", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4),
        ("too much", r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 8),
        ("overflow", r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}}"#, 4),
        (
            "overflow to zero",
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
            0,
        ),
        ("below zero", r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
        ("a type", r#"{"a":{"dtype":"EVIL","shape":[1],"data_offsets":[0,4]}}"#, 4),
        (
            "a name twice",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                "a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8,
        ),
        ("no map", "[[]]", 0),
        ("no json", "{{{{", 0),
    ] {
        a.refused(what, safetensors(json, data), "");
    }
    for length in [0, 1, 100_000_001, 1 << 32, 1 << 53, u64::MAX] {
        let head = [&length.to_le_bytes()[..], b"{}"].concat();
        a.refused_sparse("a length", Sparse { head, size: 1 << 40 }, "safetensors");
    }
    let deep = format!("{{\"a\":{}", "[".repeat(1 << 20));
    a.refused("deep json", safetensors(&deep, 0), "");
    // The longest header that is read at all.
    let head = [&100_000_000u64.to_le_bytes()[..], b"{\"a\":\""].concat();
    a.refused_sparse("a header of 100 MB", Sparse { head, size: 1 << 40 }, "");
    let many: Vec<String> = (0..500_000)
        .map(|i| format!("\"{i:0100}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}"))
        .collect();
    a.refused("many tensors", safetensors(&format!("{{{}}}", many.join(",")), 0), "more than");
}

#[test]
fn hostile_files() {
    let mut a = Attacks::default();
    for attack in [calls, opcodes, tensors, machines, floods, archives, legacy_files, headers] {
        attack(&mut a);
    }
    println!(
        "{} hostile files: none executed, at most {} MiB and {:?}",
        a.files,
        a.worst_memory >> 20,
        a.worst_time
    );
    assert!(a.files >= 200);
    assert!(!std::path::Path::new("/tmp/hostile-was-here").exists());
}

/// Real files with bytes changed: read or refused, never worse.
#[test]
fn damaged_files() {
    let mut a = Attacks::default();
    let rng = &mut SmallRng::seed_from_u64(3);
    for name in ["zip.pt", "legacy.pt", "protocol4.pt"] {
        let path: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "tests/reference/data/single_file", name].iter().collect();
        let good = std::fs::read(path).unwrap();
        for i in 0..1500 {
            let mut file = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..file.len());
                file[at] = rng.random();
            }
            if i % 5 == 0 {
                file.truncate(rng.random_range(0..file.len()));
            }
            a.survived(&format!("{name} {i}"), file);
        }
    }
    println!("{} damaged files: at most {} MiB and {:?}", a.files, a.worst_memory >> 20, a.worst_time);
}
