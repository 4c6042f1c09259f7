//! What a pickle makes: values, and the arenas that hold those of any size. Of calls only those are understood that
//! rebuild tensors and dictionaries.
//!
//! What torch calls: `torch/_utils.py`, `torch/serialization.py`.

use super::header::Dtype;
use std::collections::{HashMap, HashSet};

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

pub(super) type Result<T> = std::result::Result<T, Fail>;

pub(super) fn bad<T>(message: impl Into<String>) -> Result<T> {
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
    /// Its own, where the storage is of bytes alone.
    pub dtype: Option<Dtype>,
    /// Elements of the storage before the first.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// Elements from one index to the next, of each dimension.
    pub strides: Vec<u64>,
}

impl TensorView {
    /// Whether the elements follow each other in row-major order.
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

#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
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

/// The arenas. A value points into them by index.
pub(super) struct Objects<'a> {
    pub lists: Vec<Vec<Value<'a>>>,
    pub dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    globals: Vec<(&'a str, &'a str)>,
    pub storages: Vec<Storage>,
    keys: HashMap<&'a [u8], u32>,
    tensors: Vec<TensorView>,
    budget: u32,
}

impl<'a> Objects<'a> {
    pub fn new() -> Self {
        Objects {
            lists: Vec::new(),
            dicts: Vec::new(),
            globals: Vec::new(),
            storages: Vec::new(),
            keys: HashMap::new(),
            tensors: Vec::new(),
            budget: BUDGET,
        }
    }

    pub fn spend(&mut self, n: u32) -> Result<()> {
        match self.budget.checked_sub(n) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => bad("its pickle makes more objects than any checkpoint has"),
        }
    }

    pub fn list(&mut self, items: Vec<Value<'a>>) -> Result<Value<'a>> {
        self.spend(1 + items.len() as u32)?;
        self.lists.push(items);
        Ok(Value::List(self.lists.len() as u32 - 1))
    }

    pub fn dict(&mut self, items: &[Value<'a>]) -> Result<Value<'a>> {
        self.spend(1)?;
        self.dicts.push(Vec::new());
        let dict = Value::Dict(self.dicts.len() as u32 - 1);
        self.set_items(dict, items)?;
        Ok(dict)
    }

    pub fn set_items(&mut self, to: Value<'a>, items: &[Value<'a>]) -> Result<()> {
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

    /// Gives an object its state: a module that holds parameters alone (`ParameterDict`) becomes their dictionary.
    pub fn build(&mut self, object: Value<'a>, state: Value<'a>) -> Result<()> {
        let (Value::Dict(object), Value::Dict(state)) = (object, state) else { return Ok(()) };
        let own = |(key, value): &(Value<'a>, Value<'a>)| match (key, value) {
            (Value::Text(b"_parameters"), Value::Dict(parameters)) => Some(*parameters),
            _ => None,
        };
        let Some(parameters) = self.dicts[state as usize].iter().find_map(own) else { return Ok(()) };
        let pairs = self.dicts[parameters as usize].clone();
        self.spend(1 + 2 * pairs.len() as u32)?;
        self.dicts[object as usize].extend(pairs);
        Ok(())
    }

    pub fn append(&mut self, to: Value<'a>, items: &[Value<'a>]) -> Result<()> {
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

    pub fn items(&self, value: Value<'a>) -> &[Value<'a>] {
        match value {
            Value::List(l) => &self.lists[l as usize],
            _ => &[],
        }
    }

    pub fn text(&self, value: Value<'a>) -> Option<String> {
        match value {
            Value::Text(t) => std::str::from_utf8(t).ok().map(str::to_owned),
            _ => None,
        }
    }

    /// What a call gives, for the few that are understood.
    pub fn call(&mut self, callee: Value<'a>, args: Value<'a>) -> Result<Value<'a>> {
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
            ("torch.nn.modules.container", "ParameterDict") => self.dict(&[]),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => self.tensor(args, None),
            // Of types that have no storage class.
            ("torch._utils", "_rebuild_tensor_v3") => {
                let dtype = match self.items(args).get(6) {
                    Some(&Value::Global(dtype)) => self.globals[dtype as usize],
                    _ => ("", "what has no type"),
                };
                match dtype {
                    ("torch", "float8_e4m3fn") => self.tensor(args, Some(Dtype::F8_E4M3)),
                    ("torch", "float8_e5m2") => self.tensor(args, Some(Dtype::F8_E5M2)),
                    (_, other) => bad(format!(
                        "its pickle holds a tensor of {other}, which is not read here. Save it as float16"
                    )),
                }
            }
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

    /// `(storage, offset, shape, strides, ...)`, of a type of its own if its storage has none.
    fn tensor(&mut self, args: Value<'a>, dtype: Option<Dtype>) -> Result<Value<'a>> {
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
        let Storage { numel, dtype: stored, .. } = self.storages[storage as usize];
        // Both types that are read so take a byte.
        if dtype.is_some() && stored != Dtype::U8 {
            return bad("its pickle gives a tensor another type than its storage's");
        }
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
        self.tensors.push(TensorView { storage: storage as usize, dtype, offset, shape, strides });
        Ok(Value::Tensor(self.tensors.len() as u32 - 1))
    }

    /// A persistent id, `("storage", class, key, device, numel)`; older files add the view's place.
    pub fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>> {
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
            ("torch" | "torch.cuda", "ByteStorage") | ("torch.storage", "UntypedStorage") => Dtype::U8,
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
    pub fn collect(&self, root: Value<'a>) -> Result<Vec<(String, TensorView)>> {
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

    /// A class or a function, by its name.
    pub fn global(&mut self, module: &'a [u8], name: &'a [u8]) -> Result<Value<'a>> {
        let (Ok(module), Ok(name)) = (std::str::from_utf8(module), std::str::from_utf8(name)) else {
            return bad("its pickle names a class that is no text");
        };
        self.spend(2)?;
        self.globals.push((module, name));
        Ok(Value::Global(self.globals.len() as u32 - 1))
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
