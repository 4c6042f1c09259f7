//! Python's pickle, as `torch.save` writes it, read by a stack machine that executes nothing.
//!
//! A pickle is a program. This machine knows its data: numbers, texts, tuples, lists, dictionaries. A class or
//! function that it names stays text. Of calls it understands those that rebuild tensors and dictionaries;
//! what training scripts leave besides (numpy scalars, callbacks) becomes an opaque value, and a call of
//! anything else refuses the file by that name. Objects live in arenas and point by index, so that
//! neither cycles nor depth cost anything, and a budget bounds their number.
//!
//! Opcodes: CPython's `Lib/pickletools.py`. What torch calls: `torch/_utils.py`, `torch/serialization.py`.

use super::objects::{Fail, Objects, Result, Storage, TensorView, Value, bad};
use super::opcode::*;
use std::collections::HashMap;

/// Longest pickle that is read: SD 1.5's takes 200 KB, a training checkpoint's some MB.
pub(super) const MAX_PICKLE: usize = 32 << 20;

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
        objects: Objects::new(),
    };
    let root = machine.run()?;
    let tensors = machine.objects.collect(root)?;
    let texts = match root {
        Value::List(list) => {
            machine.objects.lists[list as usize].iter().filter_map(|v| machine.objects.text(*v)).collect()
        }
        _ => Vec::new(),
    };
    let big_endian = match root {
        Value::Dict(d) => machine.objects.dicts[d as usize]
            .iter()
            .any(|(k, v)| matches!((k, v), (Value::Text(b"little_endian"), Value::False))),
        _ => false,
    };
    let int = if let Value::Int(n) = root { Some(n) } else { None };
    Ok(Pickle { tensors, texts, int, big_endian, len: machine.at, storages: machine.objects.storages })
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Objects<'a>,
}

impl<'a> Machine<'a> {
    fn push(&mut self, value: Value<'a>) -> Result<()> {
        self.objects.spend(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        // Nothing below a mark may be taken.
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

    fn global(&mut self, module: &'a [u8], name: &'a [u8]) -> Result<()> {
        let global = self.objects.global(module, name)?;
        self.push(global)
    }

    fn memoize(&mut self, index: u32) -> Result<()> {
        self.objects.spend(2)?;
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
    #[expect(clippy::too_many_lines, reason = "a table: what each opcode does")]
    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            let [op] = self.array()?;
            match op {
                PROTO => _ = self.take(1)?,
                FRAME => _ = self.take(8)?, // A hint to readers of streams.
                STOP => return self.pop(),
                MARK => {
                    self.objects.spend(1)?;
                    self.marks.push(self.stack.len());
                }
                POP => {
                    // As Python does, POP takes a mark where that is on top.
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                POP_MARK => drop(self.pop_mark()?),
                DUP => {
                    let top = self.pop()?;
                    self.stack.push(top);
                    self.push(top)?;
                }
                // Numbers, None, True, False.
                NONE | NEWTRUE => self.push(Value::Opaque)?,
                NEWFALSE => self.push(Value::False)?,
                BININT => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                BININT1 => {
                    let [n] = self.array()?;
                    self.push(Value::Int(n.into()))?;
                }
                BININT2 => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                BINFLOAT => {
                    self.take(8)?;
                    self.push(Value::Opaque)?;
                }
                FLOAT => {
                    self.line()?;
                    self.push(Value::Opaque)?;
                }
                INT | LONG => {
                    let line = self.line()?;
                    let line = std::str::from_utf8(line).unwrap_or("").trim_end_matches('L');
                    let value = match line {
                        "00" => Value::False,
                        "01" => Value::Opaque,
                        n => n.parse().map_or(Value::Opaque, Value::Int),
                    };
                    self.push(value)?;
                }
                LONG1 => {
                    let bytes = self.counted::<1>()?;
                    self.push(long(bytes))?;
                }
                LONG4 => {
                    let bytes = self.counted::<4>()?;
                    self.push(long(bytes))?;
                }
                // Texts and bytes.
                BINUNICODE | BINSTRING | BINBYTES => {
                    let text = self.counted::<4>()?;
                    self.push(Value::Text(text))?;
                }
                SHORT_BINUNICODE | SHORT_BINSTRING | SHORT_BINBYTES => {
                    let text = self.counted::<1>()?;
                    self.push(Value::Text(text))?;
                }
                BINUNICODE8 | BINBYTES8 | BYTEARRAY8 => {
                    let text = self.counted::<8>()?;
                    self.push(Value::Text(text))?;
                }
                UNICODE | STRING => {
                    let line = self.line()?;
                    let quoted = |q: u8| line.strip_prefix(&[q])?.strip_suffix(&[q]);
                    let text =
                        if op == UNICODE { Some(line) } else { quoted(b'\'').or_else(|| quoted(b'"')) };
                    // Escapes stand for no character of a tensor's name.
                    let text = text.filter(|t| !t.contains(&b'\\'));
                    self.push(text.map_or(Value::Opaque, Value::Text))?;
                }
                // Tuples, lists, sets, dictionaries.
                EMPTY_TUPLE | EMPTY_LIST | EMPTY_SET => {
                    let list = self.objects.list(Vec::new())?;
                    self.push(list)?;
                }
                TUPLE | LIST | FROZENSET => {
                    let items = self.pop_mark()?;
                    let list = self.objects.list(items)?;
                    self.push(list)?;
                }
                TUPLE1 | TUPLE2 | TUPLE3 => {
                    let mut items = Vec::new();
                    for _ in TUPLE1..=op {
                        items.push(self.pop()?);
                    }
                    items.reverse();
                    let list = self.objects.list(items)?;
                    self.push(list)?;
                }
                APPEND => {
                    let item = self.pop()?;
                    let list = self.pop()?;
                    self.objects.append(list, &[item])?;
                    self.stack.push(list);
                }
                APPENDS | ADDITEMS => {
                    let items = self.pop_mark()?;
                    let list = self.pop()?;
                    self.objects.append(list, &items)?;
                    self.stack.push(list);
                }
                EMPTY_DICT => {
                    let dict = self.objects.dict(&[])?;
                    self.push(dict)?;
                }
                DICT => {
                    let items = self.pop_mark()?;
                    let dict = self.objects.dict(&items)?;
                    self.push(dict)?;
                }
                SETITEM => {
                    let (value, key, dict) = (self.pop()?, self.pop()?, self.pop()?);
                    self.objects.set_items(dict, &[key, value])?;
                    self.stack.push(dict);
                }
                SETITEMS => {
                    let items = self.pop_mark()?;
                    let dict = self.pop()?;
                    self.objects.set_items(dict, &items)?;
                    self.stack.push(dict);
                }
                // The memo.
                BINPUT => {
                    let [i] = self.array()?;
                    self.memoize(i.into())?;
                }
                LONG_BINPUT => {
                    let i = u32::from_le_bytes(self.array()?);
                    self.memoize(i)?;
                }
                PUT | GET => {
                    let line = self.line()?;
                    let Some(i) = std::str::from_utf8(line).ok().and_then(|l| l.parse().ok()) else {
                        return bad("its pickle's memo has a place that is no number");
                    };
                    if op == PUT { self.memoize(i)? } else { self.recall(i)? }
                }
                MEMOIZE => self.memoize(self.memo.len() as u32)?,
                BINGET => {
                    let [i] = self.array()?;
                    self.recall(i.into())?;
                }
                LONG_BINGET => {
                    let i = u32::from_le_bytes(self.array()?);
                    self.recall(i)?;
                }
                // Names, and what is to be called.
                GLOBAL => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                STACK_GLOBAL => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => self.global(module, name)?,
                    _ => return bad("its pickle names a class that is no text"),
                },
                REDUCE | NEWOBJ => {
                    let (args, callee) = (self.pop()?, self.pop()?);
                    let value = self.objects.call(callee, args)?;
                    self.push(value)?;
                }
                NEWOBJ_EX => {
                    let (_, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                    let value = self.objects.call(class, args)?;
                    self.push(value)?;
                }
                INST => {
                    let (module, name) = (self.line()?, self.line()?);
                    let args = self.pop_mark()?;
                    self.global(module, name)?;
                    let class = self.pop()?;
                    let args = self.objects.list(args)?;
                    let value = self.objects.call(class, args)?;
                    self.push(value)?;
                }
                OBJ => {
                    let mut args = self.pop_mark()?;
                    if args.is_empty() {
                        return bad("its pickle makes an object of no class");
                    }
                    let class = args.remove(0);
                    let args = self.objects.list(args)?;
                    let value = self.objects.call(class, args)?;
                    self.push(value)?;
                }
                // An object's state, such as the versions that an OrderedDict of tensors carries.
                BUILD => {
                    let state = self.pop()?;
                    if let Some(&object) = self.stack.last() {
                        self.objects.build(object, state)?;
                    }
                }
                BINPERSID => {
                    let id = self.pop()?;
                    let storage = self.objects.storage(id)?;
                    self.push(storage)?;
                }
                other => {
                    return bad(format!("its pickle has the opcode 0x{other:02x}, which torch never writes"));
                }
            }
        }
    }
}

/// A little-endian two's complement number; none beyond 64 bits matters here.
fn long(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}
