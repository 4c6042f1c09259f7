//! Kernels: WGSL text, specialised by named numbers, compiled once each.

use crate::error::{Error, Result};
use std::fmt::Write;

/// A kernel: one shader file and the numbers that specialise it.
///
/// Every define becomes a WGSL `const` of type `u32`, and can steer `#if` and `#for` (see [`preprocess`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    pub name: &'static str,
    pub source: &'static str,
    pub defines: Vec<(&'static str, u32)>,
}

/// Defines that say how the weights lie that a kernel binds, at most two: f32 instead of f16.
pub(super) const F32_WEIGHTS: [&str; 2] = ["F32_WEIGHT_0", "F32_WEIGHT_1"];

impl Kernel {
    /// The kernel for a weight number `i` (of those it binds) that lies as f32.
    pub(super) fn with_f32_weight(mut self, i: usize) -> Self {
        if i == 0 {
            // A matrix is then read as it is, and multiplied in f32.
            for (name, value) in &mut self.defines {
                if ["F16_ARITHMETIC", "QUANTISED", "Q4"].contains(name) {
                    *value = 0;
                }
            }
        }
        self.defines.extend(F32_WEIGHTS.get(i).map(|&name| (name, 1)));
        self
    }

    pub fn new(name: &'static str, source: &'static str, defines: &[(&'static str, u32)]) -> Self {
        Self { name, source, defines: defines.to_vec() }
    }

    fn value(&self, name: &str) -> Result<u32> {
        if let Ok(n) = name.parse() {
            return Ok(n);
        }
        self.defines
            .iter()
            .find(|(k, _)| *k == name)
            .map(|(_, v)| *v)
            .ok_or_else(|| Error::unsupported(format!("kernel {}: {name} is not defined", self.name)))
    }
}

/// The shader text of `kernel`: its defines as constants, then `prelude`, then the source with
/// - `#if NAME` ... `#else` ... `#endif`: kept where NAME is not zero (or, with `!NAME`, where it is);
/// - `#for i NAME` ... `#endfor`: repeated NAME times with `$i` replaced by 0, 1, ...: registers with names
///   instead of arrays indexed at run time, which GPUs would put into memory;
/// - `$binding`: the next binding number of group 0, from 1 (0 is the uniform block).
pub fn preprocess(kernel: &Kernel, prelude: &str) -> Result<String> {
    let mut out = String::with_capacity(prelude.len() + kernel.source.len() * 2);
    // Directives such as `enable f16;` must precede everything else.
    let lines: Vec<&str> = prelude.lines().chain(kernel.source.lines()).collect();
    let mut body = String::new();
    expand(kernel, &lines, &mut body)?;
    let (directives, rest): (Vec<&str>, Vec<&str>) =
        body.lines().partition(|l| l.trim_start().starts_with("enable "));
    for line in directives {
        out.push_str(line);
        out.push('\n');
    }
    for (name, value) in &kernel.defines {
        let _ = writeln!(out, "const {name} = {value}u;");
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
            ["#for", variable, count] => {
                let (_, end) = block(kernel, lines, at, "#for", "#endfor")?;
                let mark = format!("${variable}");
                for i in 0..kernel.value(count)? {
                    let copy: Vec<String> =
                        lines[at + 1..end].iter().map(|l| l.replace(&mark, &i.to_string())).collect();
                    let copy: Vec<&str> = copy.iter().map(String::as_str).collect();
                    expand(kernel, &copy, out)?;
                }
                at = end + 1;
            }
            _ => {
                out.push_str(line);
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
