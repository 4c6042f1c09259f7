//! Python's pickle, as `torch.save` writes it, read by a stack machine that executes nothing.
//!
//! A pickle is a program. This machine knows its data: numbers, texts, tuples, lists, dictionaries. A class or
//! function that it names stays text. Of calls it understands those that rebuild tensors and dictionaries;
//! what training scripts leave besides (numpy scalars, callbacks) becomes an opaque value, and a call of
//! anything else refuses the file by that name. Objects live in arenas and point by index, so that
//! neither cycles nor depth cost anything, and a budget bounds their number.
//!
//! Opcodes: CPython's `Lib/pickletools.py`. What torch calls: `torch/_utils.py`, `torch/serialization.py`.

use super::header::Dtype;
use std::collections::{HashMap, HashSet};

/// Longest pickle that is read: SD 1.5's takes 200 KB, a training checkpoint's some MB.
pub(super) const MAX_PICKLE: usize = 32 << 20;
/// Values that one pickle may make; a training checkpoint of SDXL with its optimiser makes under a million.
const BUDGET: u32 = 2_000_000;
/// Dictionaries and lists within each other, as far as tensors are looked for.
const MAX_DEPTH: usize = 32;
/// Longest path to a tensor.
const MAX_NAME: usize = 256;
/// Four times what a training checkpoint of SDXL has.
const MAX_TENSORS: usize = 30_000;
/// Places that wait for a visit while tensors are looked for.
const MAX_WAITING: usize = 200_000;
const MAX_RANK: usize = 16;

/// Why a pickle was not read.
#[derive(Debug)]
pub(super) enum Fail {
    /// It goes on behind the bytes given.
    Short,
    /// It is refused; the message names what and why.
    Bad(String),
}

type Result<T> = std::result::Result<T, Fail>;

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(Fail::Bad(message.into()))
}

/// A storage: a run of bytes elsewhere in the file.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub key: String,
    pub dtype: Dtype,
    /// Elements.
    pub numel: u64,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug)]
pub(super) struct TensorView {
    /// Index into [`Pickle::storages`].
    pub storage: usize,
    /// Elements of the storage before the first.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// Elements from one index to the next, of each dimension.
    pub strides: Vec<u64>,
}

impl TensorView {
    /// Whether the elements lie one after the other in row-major order.
    pub fn contiguous(&self) -> bool {
        let mut due = 1;
        for (&d, &s) in self.shape.iter().zip(&self.strides).rev() {
            if d == 0 {
                return true;
            }
            if d > 1 && s != due {
                return false;
            }
            due *= d;
        }
        true
    }
}

/// What a pickle holds, as far as it matters here.
#[derive(Debug)]
pub(super) struct Pickle {
    /// Tensors by their path through dictionaries and lists (`state_dict.conv.weight`), in the pickle's order.
    pub tensors: Vec<(String, TensorView)>,
    pub storages: Vec<Storage>,
    /// Where the root is a list of texts: those texts.
    pub texts: Vec<String>,
    /// Where the root is a whole number: that number.
    pub int: Option<i64>,
    /// Where the root is a dictionary: whether it has `little_endian` = False.
    pub big_endian: bool,
    /// Bytes up to and with the end.
    pub len: usize,
}

/// Runs the pickle that `input` begins with.
pub(super) fn parse(input: &[u8]) -> Result<Pickle> {
    let mut machine = Machine {
        input,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        lists: Vec::new(),
        dicts: Vec::new(),
        globals: Vec::new(),
        storages: Vec::new(),
        keys: HashMap::new(),
        tensors: Vec::new(),
        budget: BUDGET,
    };
    let root = machine.run()?;
    let tensors = machine.collect(root)?;
    let texts = match root {
        Value::List(list) => machine.lists[list as usize].iter().filter_map(|v| machine.text(*v)).collect(),
        _ => Vec::new(),
    };
    let big_endian = match root {
        Value::Dict(d) => machine.dicts[d as usize]
            .iter()
            .any(|(k, v)| matches!((k, v), (Value::Text(b"little_endian"), Value::False))),
        _ => false,
    };
    let int = if let Value::Int(n) = root { Some(n) } else { None };
    Ok(Pickle { tensors, texts, int, big_endian, len: machine.at, storages: machine.storages })
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    /// None, True, fractions, and objects that hold no tensors.
    Opaque,
    False,
    Int(i64),
    /// str or bytes.
    Text(&'a [u8]),
    /// Tuple, list or set.
    List(u32),
    Dict(u32),
    /// A class or a function: never more than its name.
    Global(u32),
    Storage(u32),
    Tensor(u32),
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    lists: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    globals: Vec<(&'a str, &'a str)>,
    storages: Vec<Storage>,
    keys: HashMap<&'a [u8], u32>,
    tensors: Vec<TensorView>,
    budget: u32,
}

impl<'a> Machine<'a> {
    fn spend(&mut self, n: u32) -> Result<()> {
        match self.budget.checked_sub(n) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => bad("its pickle makes more objects than any checkpoint has"),
        }
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        self.spend(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        // What lies below a mark is out of reach.
        if self.marks.last().is_some_and(|&m| self.stack.len() <= m) {
            return bad("its pickle takes more from its stack than there is");
        }
        self.stack.pop().ok_or_else(|| Fail::Bad("its pickle takes more from its stack than there is".into()))
    }

    /// What was pushed since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let Some(mark) = self.marks.pop() else { return bad("its pickle misses a mark") };
        if mark > self.stack.len() {
            return bad("its pickle misses a mark");
        }
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let bytes = self.input.get(self.at..).and_then(|rest| rest.get(..n)).ok_or(Fail::Short)?;
        self.at += n;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Fail::Short)
    }

    /// A text that a length of `N` bytes stands before.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let mut len = [0; 8];
        for (to, from) in len.iter_mut().zip(self.array::<N>()?) {
            *to = from;
        }
        match usize::try_from(u64::from_le_bytes(len)) {
            // No file that is read here is that long: do not ask for more of it.
            Ok(n) if n <= MAX_PICKLE => self.take(n),
            _ => bad("its pickle has a text longer than any checkpoint's"),
        }
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let n = rest.iter().position(|&b| b == b'\n').ok_or(Fail::Short)?;
        self.at += n + 1;
        Ok(rest.get(..n).unwrap_or_default())
    }

    fn list(&mut self, items: Vec<Value<'a>>) -> Result<Value<'a>> {
        self.spend(1 + items.len() as u32)?;
        self.lists.push(items);
        Ok(Value::List(self.lists.len() as u32 - 1))
    }

    fn dict(&mut self, items: &[Value<'a>]) -> Result<Value<'a>> {
        self.spend(1)?;
        self.dicts.push(Vec::new());
        let dict = Value::Dict(self.dicts.len() as u32 - 1);
        self.set_items(dict, items)?;
        Ok(dict)
    }

    fn set_items(&mut self, to: Value<'a>, items: &[Value<'a>]) -> Result<()> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return bad("its pickle gives a dictionary a key without a value");
        };
        match to {
            Value::Dict(d) => {
                self.spend(items.len() as u32)?;
                self.dicts[d as usize].extend(pairs.iter().map(|&[k, v]| (k, v)));
                Ok(())
            }
            Value::Opaque => Ok(()),
            _ => bad("its pickle sets items of what is no dictionary"),
        }
    }

    fn append(&mut self, to: Value<'a>, items: &[Value<'a>]) -> Result<()> {
        match to {
            Value::List(l) => {
                self.spend(items.len() as u32)?;
                self.lists[l as usize].extend_from_slice(items);
                Ok(())
            }
            Value::Opaque => Ok(()),
            _ => bad("its pickle appends to what is no list"),
        }
    }

    fn items(&self, value: Value<'a>) -> &[Value<'a>] {
        match value {
            Value::List(l) => &self.lists[l as usize],
            _ => &[],
        }
    }

    fn text(&self, value: Value<'a>) -> Option<String> {
        match value {
            Value::Text(t) => std::str::from_utf8(t).ok().map(str::to_owned),
            _ => None,
        }
    }

    fn global(&mut self, module: &'a [u8], name: &'a [u8]) -> Result<()> {
        let (Ok(module), Ok(name)) = (std::str::from_utf8(module), std::str::from_utf8(name)) else {
            return bad("its pickle names a class that is no text");
        };
        self.spend(2)?;
        self.globals.push((module, name));
        self.push(Value::Global(self.globals.len() as u32 - 1))
    }

    fn memoize(&mut self, index: u32) -> Result<()> {
        self.spend(2)?;
        let top = self.pop()?;
        self.stack.push(top);
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<()> {
        match self.memo.get(&index) {
            Some(&value) => self.push(value),
            None => bad("its pickle recalls what it never stored"),
        }
    }

    /// Runs to the end; the value that is left is the root.
    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            let [op] = self.array()?;
            match op {
                0x80 => _ = self.take(1)?, // PROTO
                0x95 => _ = self.take(8)?, // FRAME: a hint to readers of streams
                b'.' => return self.pop(),
                b'(' => {
                    self.spend(1)?;
                    self.marks.push(self.stack.len());
                }
                b'0' => {
                    // As Python does, POP takes a mark where that is on top.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.pop()?;
                    self.stack.push(top);
                    self.push(top)?;
                }
                // Numbers, None, True, False.
                b'N' | 0x88 => self.push(Value::Opaque)?,
                0x89 => self.push(Value::False)?,
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'K' => {
                    let [n] = self.array()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Opaque)?;
                }
                b'F' => {
                    self.line()?;
                    self.push(Value::Opaque)?;
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    let line = std::str::from_utf8(line).unwrap_or("").trim_end_matches('L');
                    let value = match line {
                        "00" => Value::False,
                        "01" => Value::Opaque,
                        n => n.parse().map_or(Value::Opaque, Value::Int),
                    };
                    self.push(value)?;
                }
                0x8a => {
                    let bytes = self.counted::<1>()?;
                    self.push(long(bytes))?;
                }
                0x8b => {
                    let bytes = self.counted::<4>()?;
                    self.push(long(bytes))?;
                }
                // Texts and bytes.
                b'X' | b'T' | b'B' => {
                    let text = self.counted::<4>()?;
                    self.push(Value::Text(text))?;
                }
                0x8c | b'U' | b'C' => {
                    let text = self.counted::<1>()?;
                    self.push(Value::Text(text))?;
                }
                0x8d | 0x8e | 0x96 => {
                    let text = self.counted::<8>()?;
                    self.push(Value::Text(text))?;
                }
                b'V' | b'S' => {
                    let line = self.line()?;
                    let quoted = |q: u8| line.strip_prefix(&[q])?.strip_suffix(&[q]);
                    let text = if op == b'V' { Some(line) } else { quoted(b'\'').or_else(|| quoted(b'"')) };
                    // Escapes stand for no character of a tensor's name.
                    let text = text.filter(|t| !t.contains(&b'\\'));
                    self.push(text.map_or(Value::Opaque, Value::Text))?;
                }
                // Tuples, lists, sets, dictionaries.
                b')' | b']' | 0x8f => {
                    let list = self.list(Vec::new())?;
                    self.push(list)?;
                }
                b't' | b'l' | 0x91 => {
                    let items = self.pop_mark()?;
                    let list = self.list(items)?;
                    self.push(list)?;
                }
                0x85..=0x87 => {
                    let mut items = Vec::new();
                    for _ in 0x84..op {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    let list = self.list(items)?;
                    self.push(list)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    let list = self.pop()?;
                    self.append(list, &[item])?;
                    self.stack.push(list);
                }
                b'e' | 0x90 => {
                    let items = self.pop_mark()?;
                    let list = self.pop()?;
                    self.append(list, &items)?;
                    self.stack.push(list);
                }
                b'}' => {
                    let dict = self.dict(&[])?;
                    self.push(dict)?;
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let dict = self.dict(&items)?;
                    self.push(dict)?;
                }
                b's' => {
                    let (value, key, dict) = (self.pop()?, self.pop()?, self.pop()?);
                    self.set_items(dict, &[key, value])?;
                    self.stack.push(dict);
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    let dict = self.pop()?;
                    self.set_items(dict, &items)?;
                    self.stack.push(dict);
                }
                // The memo.
                b'q' => {
                    let [i] = self.array()?;
                    self.memoize(i.into())?;
                }
                b'r' => {
                    let i = u32::from_le_bytes(self.array()?);
                    self.memoize(i)?;
                }
                b'p' | b'g' => {
                    let line = self.line()?;
                    let Some(i) = std::str::from_utf8(line).ok().and_then(|l| l.parse().ok()) else {
                        return bad("its pickle's memo has a place that is no number");
                    };
                    if op == b'p' { self.memoize(i)? } else { self.recall(i)? }
                }
                0x94 => self.memoize(self.memo.len() as u32)?,
                b'h' => {
                    let [i] = self.array()?;
                    self.recall(i.into())?;
                }
                b'j' => {
                    let i = u32::from_le_bytes(self.array()?);
                    self.recall(i)?;
                }
                // Names, and what is to be called.
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => self.global(module, name)?,
                    _ => return bad("its pickle names a class that is no text"),
                },
                b'R' | 0x81 => {
                    let (args, callee) = (self.pop()?, self.pop()?);
                    let value = self.call(callee, args)?;
                    self.push(value)?;
                }
                0x92 => {
                    let (_, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                    let value = self.call(class, args)?;
                    self.push(value)?;
                }
                b'i' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let args = self.pop_mark()?;
                    self.global(module, name)?;
                    let class = self.pop()?;
                    let args = self.list(args)?;
                    let value = self.call(class, args)?;
                    self.push(value)?;
                }
                b'o' => {
                    let mut args = self.pop_mark()?;
                    if args.is_empty() {
                        return bad("its pickle makes an object of no class");
                    }
                    let class = args.remove(0);
                    let args = self.list(args)?;
                    let value = self.call(class, args)?;
                    self.push(value)?;
                }
                // BUILD: an object's state, such as the versions that an OrderedDict of tensors carries.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage)?;
                }
                other => {
                    return bad(format!("its pickle has the opcode 0x{other:02x}, which torch never writes"));
                }
            }
        }
    }

    /// What a call gives, for the few that are understood.
    fn call(&mut self, callee: Value<'a>, args: Value<'a>) -> Result<Value<'a>> {
        let Value::Global(callee) = callee else {
            return match callee {
                // Whatever an opaque object makes is opaque.
                Value::Opaque => Ok(Value::Opaque),
                _ => bad("its pickle calls what is no function"),
            };
        };
        let (module, name) = self.globals[callee as usize];
        match (module, name) {
            (
                "collections" | "builtins" | "__builtin__",
                "OrderedDict" | "dict" | "defaultdict" | "Counter",
            ) => {
                // Python 2 gives OrderedDict a list of its pairs.
                let pairs = self.items(args).first().map_or(&[][..], |list| self.items(*list));
                let pairs = pairs.iter().map(|p| self.items(*p));
                let flat: Vec<Value> = pairs.filter(|p| p.len() == 2).flatten().copied().collect();
                self.dict(&flat)
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => self.tensor(args),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                match self.items(args).first() {
                    Some(&tensor @ Value::Tensor(_)) => Ok(tensor),
                    _ => bad("its pickle makes a parameter of what is no tensor"),
                }
            }
            // (function, class, its arguments, state): a tensor with attributes.
            ("torch._tensor", "_rebuild_from_type_v2") => match *self.items(args) {
                [Value::Global(inner), _, inner_args, ..] if inner != callee => {
                    let nested = self.globals[inner as usize] == ("torch._tensor", "_rebuild_from_type_v2");
                    if nested {
                        return bad("its pickle rebuilds a tensor within a tensor");
                    }
                    self.call(Value::Global(inner), inner_args)
                }
                _ => bad("its pickle rebuilds a tensor without saying how"),
            },
            ("torch", "Size") => Ok(self.items(args).first().copied().unwrap_or(Value::Opaque)),
            ("torch._utils", _) if name.starts_with("_rebuild") => bad(format!(
                "its pickle holds a tensor of a kind that is not read here ({name}). Save plain tensors, best \
                 as .safetensors"
            )),
            _ if harmless(module, name) => Ok(Value::Opaque),
            _ => bad(format!(
                "its pickle asks to call {module}.{name}, which no weights need: it may be malicious. Nothing \
                 was executed. Take a .safetensors file from a source that you trust"
            )),
        }
    }

    /// `(storage, offset, shape, strides, ...)`.
    fn tensor(&mut self, args: Value<'a>) -> Result<Value<'a>> {
        let whole = |list: &[Value]| -> Option<Vec<u64>> {
            let one = |v: &Value| match *v {
                Value::Int(n) => u64::try_from(n).ok(),
                _ => None,
            };
            list.iter().map(one).collect()
        };
        let [
            Value::Storage(storage),
            Value::Int(offset),
            shape @ Value::List(_),
            strides @ Value::List(_),
            ..,
        ] = *self.items(args)
        else {
            return bad("its pickle rebuilds a tensor of something else than a storage, an offset and sizes");
        };
        let rank = self.items(shape).len();
        if rank > MAX_RANK || self.items(strides).len() != rank {
            return bad(format!("its pickle has a tensor of {rank} dimensions and other strides"));
        }
        let (Some(shape), Some(strides), Ok(offset)) =
            (whole(self.items(shape)), whole(self.items(strides)), u64::try_from(offset))
        else {
            return bad("its pickle has a tensor with a size below zero");
        };
        let numel = self.storages[storage as usize].numel;
        // One past the last element that the tensor reaches.
        let reach = || {
            // Nothing may overflow later: all dimensions together first.
            shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d.max(1)))?;
            if shape.contains(&0) {
                return Some(offset);
            }
            shape
                .iter()
                .zip(&strides)
                .try_fold(offset.checked_add(1)?, |n, (&d, &s)| n.checked_add((d - 1).checked_mul(s)?))
        };
        if reach().is_none_or(|reach| reach > numel) {
            return bad(format!("its pickle has a tensor of shape {shape:?} in a storage of {numel} values"));
        }
        self.spend(8)?;
        self.tensors.push(TensorView { storage: storage as usize, offset, shape, strides });
        Ok(Value::Tensor(self.tensors.len() as u32 - 1))
    }

    /// A persistent id, `("storage", class, key, device, numel)`; older files add the view's place.
    fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>> {
        let (class, key, numel) = match *self.items(id) {
            [Value::Text(b"storage"), Value::Global(class), Value::Text(key), _, Value::Int(numel)]
            | [
                Value::Text(b"storage"),
                Value::Global(class),
                Value::Text(key),
                _,
                Value::Int(numel),
                Value::Opaque,
            ] => (class, key, numel),
            // Legacy files carry the source text of module classes along.
            [Value::Text(b"module"), ..] => return Ok(Value::Opaque),
            _ => return bad("its pickle refers to something that is not a storage of this file"),
        };
        let (module, class) = self.globals[class as usize];
        let dtype = match (module, class) {
            ("torch" | "torch.cuda", "FloatStorage") => Dtype::F32,
            ("torch" | "torch.cuda", "HalfStorage") => Dtype::F16,
            ("torch" | "torch.cuda", "BFloat16Storage") => Dtype::BF16,
            ("torch" | "torch.cuda", "DoubleStorage") => Dtype::F64,
            ("torch" | "torch.cuda", "LongStorage") => Dtype::I64,
            ("torch" | "torch.cuda", "IntStorage") => Dtype::I32,
            ("torch" | "torch.cuda", "ShortStorage") => Dtype::I16,
            ("torch" | "torch.cuda", "CharStorage") => Dtype::I8,
            ("torch" | "torch.cuda", "ByteStorage") => Dtype::U8,
            ("torch" | "torch.cuda", "BoolStorage") => Dtype::BOOL,
            _ => return bad(format!("its tensors are stored as {module}.{class}, which is not read here")),
        };
        let Ok(numel) = u64::try_from(numel) else { return bad("its pickle has a storage below zero") };
        let Ok(text) = std::str::from_utf8(key) else {
            return bad("its pickle has a storage without a name");
        };
        if let Some(&known) = self.keys.get(key) {
            let storage = &self.storages[known as usize];
            if (storage.dtype, storage.numel) != (dtype, numel) {
                return bad(format!("its pickle has two storages of the name {text:?}"));
            }
            return Ok(Value::Storage(known));
        }
        if text.len() > MAX_NAME {
            return bad("its pickle has a storage with a name longer than any torch writes");
        }
        self.spend(8)?;
        self.storages.push(Storage { key: text.into(), dtype, numel });
        let index = self.storages.len() as u32 - 1;
        self.keys.insert(key, index);
        Ok(Value::Storage(index))
    }

    /// All tensors that the root leads to, with their paths. Each dictionary and list is entered once, however
    /// often it is referred to.
    fn collect(&self, root: Value<'a>) -> Result<Vec<(String, TensorView)>> {
        let mut found: Vec<(String, TensorView)> = Vec::new();
        let mut names = HashSet::new();
        let mut entered = HashSet::new();
        // To be visited, the next one last.
        let mut todo = vec![(root, String::new(), 0)];
        while let Some((value, path, depth)) = todo.pop() {
            let is_dict = matches!(value, Value::Dict(_));
            match value {
                Value::Tensor(t) => {
                    if found.len() == MAX_TENSORS {
                        return bad(format!("it has more than {MAX_TENSORS} tensors"));
                    }
                    // Two ways to one place (`a.b` as a name, and `b` in `a`).
                    if !names.insert(path.clone()) {
                        return bad(format!("the tensor {path:?} stands there twice"));
                    }
                    found.push((path, self.tensors[t as usize].clone()));
                }
                Value::Dict(n) | Value::List(n) if depth < MAX_DEPTH && entered.insert((is_dict, n)) => {
                    let join = |key: &str| {
                        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
                    };
                    let begin = todo.len();
                    let mut add = |key: &str, value: Value<'a>| {
                        let leads_on = matches!(value, Value::Tensor(_) | Value::Dict(_) | Value::List(_));
                        if leads_on && path.len() + key.len() < MAX_NAME && todo.len() < MAX_WAITING {
                            todo.push((value, join(key), depth + 1));
                        }
                    };
                    if is_dict {
                        // Of equal keys the last holds.
                        let mut last = HashMap::new();
                        let dict = &self.dicts[n as usize];
                        for (i, (key, _)) in dict.iter().enumerate() {
                            match key {
                                Value::Text(t) => _ = last.insert(*t, i),
                                Value::Int(_) => {}
                                _ => continue,
                            }
                        }
                        for (i, (key, value)) in dict.iter().enumerate() {
                            match key {
                                Value::Text(t) if last.get(t) == Some(&i) => {
                                    if let Ok(key) = std::str::from_utf8(t) {
                                        add(key, *value);
                                    }
                                }
                                Value::Int(n) => add(&n.to_string(), *value),
                                _ => {}
                            }
                        }
                    } else {
                        for (i, value) in self.lists[n as usize].iter().enumerate() {
                            add(&i.to_string(), *value);
                        }
                    }
                    if todo.len() == MAX_WAITING {
                        return bad("it has more lists and dictionaries than any checkpoint");
                    }
                    todo[begin..].reverse();
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Classes and functions that training scripts leave beside the weights; what they would make is ignored.
fn harmless(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or(module);
    match package {
        "torch" | "numpy" | "pytorch_lightning" | "lightning" | "lightning_fabric" | "omegaconf"
        | "collections" | "pathlib" | "datetime" | "argparse" | "enum" => true,
        "_codecs" => name == "encode",
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "builtins" | "__builtin__" => [
            "set",
            "frozenset",
            "bytearray",
            "bytes",
            "list",
            "tuple",
            "int",
            "float",
            "complex",
            "slice",
            "range",
        ]
        .contains(&name),
        _ => false,
    }
}

/// A little-endian two's complement number; beyond 64 bits it is none that matters here.
fn long(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
