//! Kernels: WGSL text, specialised by named numbers, compiled once each.
//!
//! The preprocessor is our own: neither `wesl` nor `naga_oil` repeats lines, as `#for` does, and each brings a parser
//! of WGSL that every visitor would fetch (of `wesl` 0.4 1.4 MB of machine code, where this file is a few kilobytes).

use crate::error::{Error, Result};
use std::fmt::Write;

/// The text of a file in `shaders/`, without comments, indentation and blank lines: a visitor need not fetch them.
macro_rules! shader {
    ($file:literal) => {{
        const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file));
        const BYTES: [u8; $crate::gpu::bare_length(TEXT)] = $crate::gpu::bare(TEXT);
        const BARE: &str = match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => panic!("a shader is not UTF-8"),
        };
        BARE
    }};
}
pub(crate) use shader;

/// A kernel: a shader and what specialises it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    pub name: &'static str,
    /// Parts of its text, one behind the other.
    pub files: Vec<&'static str>,
    /// Every one becomes a WGSL `const` of type `u32`, and can steer `#if` and `#for` (see [`preprocess`]).
    pub defines: Vec<(&'static str, u32)>,
    /// Name and WGSL type of each parameter that a dispatch gives it; the [`super::Recorder`] takes them from there.
    pub(super) params: Vec<(&'static str, &'static str)>,
    /// Its text is for a software adapter (see [`preprocess`]).
    pub(crate) rolled: bool,
}

/// A parameter of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    U32(u32),
    I32(i32),
    F32(f32),
}

impl Scalar {
    /// 1 or 0.
    pub fn flag(on: bool) -> Self {
        Scalar::U32(u32::from(on))
    }

    /// As it lies in a uniform block.
    pub fn word(self) -> u32 {
        match self {
            Scalar::U32(v) => v,
            Scalar::I32(v) => v.cast_unsigned(),
            Scalar::F32(v) => v.to_bits(),
        }
    }

    pub(super) fn wgsl_type(self) -> &'static str {
        match self {
            Scalar::U32(_) => "u32",
            Scalar::I32(_) => "i32",
            Scalar::F32(_) => "f32",
        }
    }
}

/// Defines that say which of the weights that a kernel binds are f32 instead of f16, by their place among them.
pub(super) const F32_WEIGHTS: [&str; 4] = ["F32_WEIGHT_0", "F32_WEIGHT_1", "F32_WEIGHT_2", "F32_WEIGHT_3"];

/// What `#if` asks of a kernel whose text is for a software adapter. No define: other kernels' text says nothing of it.
const ROLLED: &str = "ROLLED";
/// The parameter of such kernels that is 1. A compiler that knew how often a loop is run would write it out itself, as
/// Mesa's does even where the bound is the lesser of a constant and a parameter.
pub(super) const ONE: &str = "one";
const TIMES_ONE: &str = " * p.one";

const PRELUDE: &str = shader!("prelude.wgsl");

impl Kernel {
    /// Its text, complete, for a device with shader-f16 or without.
    ///
    /// # Errors
    /// `unsupported-model` if its template does not expand.
    pub fn wgsl(&self, shader_f16: bool) -> Result<String> {
        let mut complete = self.clone();
        complete.defines.push(("SHADER_F16", shader_f16 as u32));
        for name in F32_WEIGHTS {
            if !complete.defines.iter().any(|(known, _)| *known == name) {
                complete.defines.push((name, 0));
            }
        }
        // naga has subgroups without WGSL's directive, and refuses it (wgpu#5555); browsers want it.
        complete.defines.push(("DIRECTIVES", cfg!(target_arch = "wasm32") as u32));
        preprocess(&complete, PRELUDE)
    }

    /// The kernel where weight `i` of those that it binds is f32.
    pub(super) fn with_f32_weight(mut self, i: usize) -> Self {
        if i == 0 {
            // A matrix, which is then neither quantised nor multiplied in f16, nor fits into workgroup memory as f16 does.
            let loads = self.value("W_LOADS").unwrap_or(1);
            for (name, value) in &mut self.defines {
                match *name {
                    "F16_ARITHMETIC" | "QUANTISED" | "Q4" => *value = 0,
                    "DEPTH" => *value = 2,
                    "BK4" | "A_LOADS" | "W_LOADS" => *value /= loads,
                    _ => {}
                }
            }
        }
        self.defines.extend(F32_WEIGHTS.get(i).map(|&name| (name, 1)));
        self
    }

    pub fn new(name: &'static str, files: &[&'static str], defines: &[(&'static str, u32)]) -> Self {
        Self { name, files: files.to_vec(), defines: defines.to_vec(), params: Vec::new(), rolled: false }
    }

    fn value(&self, name: &str) -> Result<u32> {
        if let Ok(n) = name.parse() {
            return Ok(n);
        }
        if name == ROLLED {
            return Ok(u32::from(self.rolled));
        }
        self.defines
            .iter()
            .find(|(k, _)| *k == name)
            .map(|(_, v)| *v)
            .ok_or_else(|| Error::unsupported(format!("kernel {}: {name} is not defined", self.name)))
    }
}

/// The shader text of `kernel`: its defines as constants, its parameters as the uniform block `p`, then `prelude` and
/// its files with
/// - `#if NAME` ... `#else` ... `#endif`: kept where NAME is not zero (or, with `!NAME`, where it is);
/// - `#for i NAME` ... `#endfor`: repeated NAME times with `$i` replaced by 0, 1, ...: registers with names
///   instead of arrays indexed at run time, which GPUs would put into memory;
/// - `#for i NAME FROM`: the same, but in the text for a software adapter, where NAME is FROM or more, a loop of WGSL.
///   There each read of memory becomes a loop over lanes, and what is written out takes LLVM seconds;
/// - `#if ROLLED`: what else is told to a software adapter otherwise;
/// - `$one`: behind a loop's bound, so that it is none that a software adapter's compiler knows;
/// - `$binding`: the next binding number of group 0, from 1 (0 is the uniform block).
pub fn preprocess(kernel: &Kernel, prelude: &str) -> Result<String> {
    let lines: Vec<&str> =
        std::iter::once(&prelude).chain(&kernel.files).flat_map(|text| text.lines()).collect();
    let (mut out, mut body) = (String::new(), String::new());
    expand(kernel, &lines, &mut body)?;
    // Directives such as `enable f16;` must precede everything else.
    let (directives, rest): (Vec<&str>, Vec<&str>) =
        body.lines().partition(|l| l.trim_start().starts_with("enable "));
    for line in directives {
        out.push_str(line);
        out.push('\n');
    }
    for (name, value) in &kernel.defines {
        let _ = writeln!(out, "const {name} = {value}u;");
    }
    if !kernel.params.is_empty() {
        out.push_str("struct Params {\n");
        for (name, wgsl_type) in &kernel.params {
            let _ = writeln!(out, "{name}: {wgsl_type},");
        }
        out.push_str("}\n@group(0) @binding(0) var<uniform> p: Params;\n");
    }
    let mut binding = 0;
    for line in rest {
        match line.split_once("$binding") {
            Some((before, after)) => {
                binding += 1;
                let _ = writeln!(out, "{before}{binding}{after}");
            }
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

fn expand(kernel: &Kernel, lines: &[&str], out: &mut String) -> Result<()> {
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["#if", name] => {
                let (alternative, end) = block(kernel, lines, at, "#if", "#endif")?;
                let (name, wanted) = name.strip_prefix('!').map_or((*name, true), |n| (n, false));
                let taken = (kernel.value(name)? != 0) == wanted;
                let split = alternative.unwrap_or(end);
                if taken {
                    expand(kernel, &lines[at + 1..split], out)?;
                } else if alternative.is_some() {
                    expand(kernel, &lines[split + 1..end], out)?;
                }
                at = end + 1;
            }
            ["#for", variable, count, from @ ..] => {
                let (_, end) = block(kernel, lines, at, "#for", "#endfor")?;
                let mark = format!("${variable}");
                let turns = kernel.value(count)?;
                let rolled = match from {
                    [from] => kernel.rolled && turns >= kernel.value(from)?,
                    _ => false,
                };
                // In a loop of WGSL "$iu" is as good as "$i": its variable.
                let (number, names) = match rolled {
                    true => (format!("{mark}u"), vec![(*variable).to_owned()]),
                    false => (mark.clone(), (0..turns).map(|i| i.to_string()).collect()),
                };
                if rolled {
                    let bound = format!("{turns}u{TIMES_ONE}");
                    let _ = writeln!(out, "for (var {variable} = 0u; {variable} < {bound}; {variable}++) {{");
                }
                for i in names {
                    let copy = lines[at + 1..end].iter().map(|l| l.replace(&number, &i).replace(&mark, &i));
                    let copy: Vec<String> = copy.collect();
                    let copy: Vec<&str> = copy.iter().map(String::as_str).collect();
                    expand(kernel, &copy, out)?;
                }
                if rolled {
                    out.push_str("}\n");
                }
                at = end + 1;
            }
            _ => {
                out.push_str(&line.replace("$one", if kernel.rolled { TIMES_ONE } else { "" }));
                out.push('\n');
                at += 1;
            }
        }
    }
    Ok(())
}

/// The line of the `#else` (of an `#if`) and of the closing directive of the block opened at `start`.
fn block(
    kernel: &Kernel,
    lines: &[&str],
    start: usize,
    open: &str,
    close: &str,
) -> Result<(Option<usize>, usize)> {
    let (mut depth, mut alternative) = (0, None);
    for (i, line) in lines.iter().enumerate().skip(start) {
        let word = line.split_whitespace().next().unwrap_or("");
        if word == open {
            depth += 1;
        } else if word == "#else" && depth == 1 && open == "#if" {
            alternative = Some(i);
        } else if word == close {
            depth -= 1;
            if depth == 0 {
                return Ok((alternative, i));
            }
        }
    }
    Err(Error::unsupported(format!("kernel {}: {open} without {close}", kernel.name)))
}

/// Bytes of [`bare`].
pub(crate) const fn bare_length(text: &str) -> usize {
    let (mut at, mut length) = (0, 0);
    while at < text.len() {
        let [begin, end, next] = bare_line(text.as_bytes(), at);
        length += if end > begin { end - begin + 1 } else { 0 };
        at = next;
    }
    length
}

/// `text` without comments (WGSL has no strings that could hold `//`), indentation and blank lines.
pub(crate) const fn bare<const LENGTH: usize>(text: &str) -> [u8; LENGTH] {
    let bytes = text.as_bytes();
    let mut out = [b'\n'; LENGTH];
    let (mut at, mut length) = (0, 0);
    while at < bytes.len() {
        let [mut begin, end, next] = bare_line(bytes, at);
        length += (end > begin) as usize;
        while begin < end {
            out[length - 1] = bytes[begin];
            length += 1;
            begin += 1;
        }
        at = next;
    }
    out
}

/// Where the code of the line at `at` begins and ends, and where the next line begins.
const fn bare_line(bytes: &[u8], at: usize) -> [usize; 3] {
    let mut begin = at;
    while begin < bytes.len() && bytes[begin] == b' ' {
        begin += 1;
    }
    let mut end = begin;
    while end < bytes.len()
        && bytes[end] != b'\n'
        && !(bytes[end] == b'/' && end + 1 < bytes.len() && bytes[end + 1] == b'/')
    {
        end += 1;
    }
    let mut next = end;
    while next < bytes.len() && bytes[next] != b'\n' {
        next += 1;
    }
    while end > begin && bytes[end - 1] == b' ' {
        end -= 1;
    }
    [begin, end, next + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaders_lose_comments_and_nothing_else() {
        const TEXT: &str =
            "// What it does.\n\n#if A\n  let x = 1u / 2u;  // half\n#else\n    y();\n#endif // end\n}";
        const BARE: [u8; bare_length(TEXT)] = bare(TEXT);
        assert_eq!(std::str::from_utf8(&BARE), Ok("#if A\nlet x = 1u / 2u;\n#else\ny();\n#endif\n}\n"));
    }
}
