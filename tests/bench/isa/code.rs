//! Machine code as Mesa's compilers print it: its loops, and what stands in them.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What an instruction does, as far as it is counted.
#[derive(Clone, Copy, Debug, Default)]
struct Instruction {
    /// Cycles of the vector unit that it issues from, nops included.
    issue: f64,
    /// It does two products in f16, through a pipe of half the rate.
    paired: bool,
    /// Multiply-adds of a lane, and products that begin a sum, or are none.
    multiply_adds: f64,
    products: f64,
    /// Bytes of a lane, from and to workgroup memory.
    loaded: f64,
    stored: f64,
    /// A load from a buffer.
    global: bool,
    /// Waits until such a load is there.
    waits: bool,
}

/// What a loop does for each time around, loops within it included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    pub issue: f64,
    /// Cycles of the pipe for pairs in f16.
    paired: f64,
    pub multiply_adds: f64,
    pub products: f64,
    pub loaded: f64,
    /// Vectors of four words.
    pub stores: f64,
    /// Between the first and the last of its loads from buffers.
    pub waits: u32,
    pub loads: u32,
    /// How often it waits for loads at all, and how often where branches are predicated.
    pub rounds: f64,
    pub predicated: f64,
    /// How often workgroup memory is filled.
    pub fills: f64,
}

impl Slice {
    /// With the cycles of the pipe that is busiest.
    fn bound(self) -> Self {
        Self { issue: self.issue.max(self.paired), ..self }
    }
}

/// Machine code: instructions, and the loops as the places of theirs.
pub struct Code {
    instructions: Vec<Instruction>,
    loops: Vec<BTreeSet<usize>>,
}

/// `prefix` followed by a number, anywhere in `line`.
fn number_after(line: &str, prefix: &str) -> Option<f64> {
    let rest = &line[line.find(prefix)? + prefix.len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

impl Code {
    /// From what a driver says of a pipeline.
    pub fn read(said: &Value) -> Option<Self> {
        let text = |name: &str| said["code"][name].as_str();
        match (text("NAK assembly"), text("Assembly"), text("IR3 Assembly"), text("printed")) {
            (Some(text), ..) => Some(Self::of_blocks(text)),
            (_, Some(text), ..) => Some(Self::of(text.lines(), aco)),
            (_, _, Some(text), _) => Some(Self::of(text.lines(), ir3)),
            (.., Some(text)) => Some(Self::of(agx_main(text).into_iter(), agx)),
            _ => None,
        }
    }

    fn of<'a>(
        lines: impl Iterator<Item = &'a str>,
        mut read: impl FnMut(&'a str, &mut Vec<&'a str>) -> Line<'a>,
    ) -> Self {
        let mut labels = BTreeMap::new();
        let (mut instructions, mut loops) = (Vec::new(), Vec::<(usize, usize)>::new());
        let mut pending = Vec::new();
        for line in lines {
            let Line { label, instruction, target } = read(line, &mut pending);
            if let Some(label) = label {
                labels.insert(label, instructions.len());
            }
            instructions.extend(instruction);
            if let Some(&start) = target.and_then(|t| labels.get(t.as_str())) {
                // The last of several jumps to its beginning ends a loop.
                let end = instructions.len() - 1;
                match loops.iter_mut().find(|known| known.0 == start) {
                    Some(known) => known.1 = end,
                    None => loops.push((start, end)),
                }
            }
        }
        let loops = loops.into_iter().map(|(from, to)| (from..=to).collect()).collect();
        Self { instructions, loops }
    }

    /// NVIDIA's, whose blocks do not stand in the order of the text: of a jump back to a block, all blocks from which it
    /// is reached without passing that.
    fn of_blocks(text: &str) -> Self {
        let (mut instructions, mut pending) = (Vec::new(), Vec::new());
        // Label, who comes before, first instruction.
        let mut blocks: Vec<(&str, Vec<usize>, usize)> = Vec::new();
        let mut jumps = Vec::new();
        for line in text.lines() {
            let Line { label, instruction, target } = nak(line, &mut pending);
            if let Some(label) = label {
                let before = line.split(['[', ']']).nth(1).unwrap_or("");
                let before = before.split(',').filter_map(|n| n.trim().parse().ok()).collect();
                blocks.push((label, before, instructions.len()));
            }
            instructions.extend(instruction);
            jumps.extend(target.map(|target| (blocks.len() - 1, target)));
        }
        let end = |i: usize| blocks.get(i + 1).map_or(instructions.len(), |next| next.2);
        let mut loops = BTreeMap::<usize, BTreeSet<usize>>::new();
        for (from, target) in jumps {
            let Some(head) = blocks.iter().position(|b| b.0 == target).filter(|&head| head <= from) else {
                continue;
            };
            let (mut members, mut open) = (BTreeSet::from([head]), vec![from]);
            while let Some(block) = open.pop() {
                if members.insert(block) {
                    open.extend(&blocks[block].1);
                }
            }
            // Where the text's beginning belongs to it, there is a way around the head, and it is no loop.
            if !members.contains(&0) {
                let places = members.iter().flat_map(|&i| blocks[i].2..end(i));
                loops.entry(head).or_default().extend(places);
            }
        }
        Self { instructions, loops: loops.into_values().collect() }
    }

    /// The loop over what is summed, for one time around: of the outermost ones that with the most multiply-adds, or the
    /// one within that does the same. `multiply_adds`: what a thread computes in that time, from which is known how often
    /// loops within turn. `outer`: how often the loop around it turns for that.
    pub fn slice(&self, multiply_adds: f64, outer: f64) -> Option<Slice> {
        let count = |places: &BTreeSet<usize>| -> f64 {
            places.iter().map(|&i| self.instructions[i].multiply_adds).sum()
        };
        let outermost = |l: &&BTreeSet<usize>| !self.loops.iter().any(|o| o != *l && o.is_superset(l));
        let most = self.loops.iter().filter(outermost).max_by(|a, b| count(a).total_cmp(&count(b)))?;
        let within: Vec<_> = self.inner(most).into_iter().filter(|l| count(l) > 0.0).collect();
        // Three quarters, since products that begin a sum are no multiply-adds.
        if let [within] = within[..]
            && outer < 1.0
            && count(within) >= 0.75 * multiply_adds
        {
            let mut slice = self.turn(within, multiply_adds);
            slice.issue += outer * (self.turn(most, 0.0).issue - self.turn(within, 0.0).issue);
            return Some(slice.bound());
        }
        Some(self.turn(most, multiply_adds).bound())
    }

    /// The loops in a loop, but not those in them.
    fn inner(&self, places: &BTreeSet<usize>) -> Vec<&BTreeSet<usize>> {
        let within = |l: &&BTreeSet<usize>| *l != places && places.is_superset(l);
        let direct = |l: &&BTreeSet<usize>| {
            within(l) && !self.loops.iter().any(|o| o != *l && within(&o) && o.is_superset(l))
        };
        self.loops.iter().filter(direct).collect()
    }

    fn turn(&self, places: &BTreeSet<usize>, multiply_adds: f64) -> Slice {
        let inner = self.inner(places);
        let mut slice = Slice::default();
        let (mut pending_wait, mut seen) = (false, false);
        for place in places.iter().filter(|place| !inner.iter().any(|l| l.contains(place))) {
            let x = self.instructions[*place];
            slice.issue += x.issue;
            slice.paired += if x.paired { 2.0 } else { 0.0 };
            slice.multiply_adds += x.multiply_adds;
            slice.products += x.products;
            slice.loaded += x.loaded;
            slice.stores += x.stored / 16.0;
            pending_wait |= x.waits && seen;
            if x.global {
                slice.waits += u32::from(pending_wait);
                slice.loads += 1;
                (pending_wait, seen) = (false, true);
            }
        }
        if slice.loads > 0 {
            slice.rounds = f64::from(slice.waits + 1);
            slice.predicated = if slice.waits >= 3 { 2.0 } else { 1.0 };
            slice.fills = 1.0;
        }
        let turns: Vec<Slice> = inner.iter().map(|l| self.turn(l, 0.0)).collect();
        let computing = turns.iter().filter(|t| t.multiply_adds > 0.0).count().max(1);
        let share = (multiply_adds - slice.multiply_adds).max(0.0) / computing as f64;
        for turn in turns {
            // One that computes nothing is taken to turn once.
            let times = if turn.multiply_adds > 0.0 { times(share, &turn) } else { 1.0 };
            slice.issue += times * turn.issue;
            slice.paired += times * turn.paired;
            slice.multiply_adds += times * turn.multiply_adds;
            slice.products += times * turn.products;
            slice.loaded += times * turn.loaded;
            slice.stores += times * turn.stores;
            slice.loads += times as u32 * turn.loads;
            slice.waits += times as u32 * turn.waits;
            slice.rounds += times * turn.rounds;
            slice.predicated += times * turn.predicated;
            slice.fills += times * turn.fills;
        }
        slice
    }
}

/// How often a loop turns that has to compute so many multiply-adds: between what they are with every product counted
/// and with none, the number that halves most often.
fn times(multiply_adds: f64, turn: &Slice) -> f64 {
    let least = (multiply_adds / (turn.multiply_adds + turn.products)).round().max(1.0) as u32;
    let most = (multiply_adds / turn.multiply_adds).round().max(1.0) as u32;
    f64::from((least..=most).max_by_key(|n| n.trailing_zeros()).unwrap_or(least))
}

#[derive(Default)]
struct Line<'a> {
    label: Option<&'a str>,
    instruction: Option<Instruction>,
    target: Option<String>,
}

/// NVIDIA: `  r7 = ffma r8 r9 r7   // delay=1 wt=000001 wr:0`, blocks as `block 7 L10 [5, 6] -> {`. A load names the
/// scoreboard (`wr`) that it fills, and who reads it waits for that (`wt`, the lowest on the right).
fn nak<'a>(line: &'a str, pending: &mut Vec<&'a str>) -> Line<'a> {
    let (code, notes) = line.split_once("//").unwrap_or((line, ""));
    let words: Vec<&str> = code.split_whitespace().collect();
    if words.first().is_some_and(|w| w.starts_with("block")) {
        return Line { label: words.get(2).copied(), ..Line::default() };
    }
    if words.is_empty() || words[0].starts_with('}') {
        return Line::default();
    }
    let after = words.iter().position(|w| *w == "=").map_or(0, |at| at + 1);
    let name = words[after..].iter().find(|w| !w.starts_with('@')).copied().unwrap_or("");
    let bytes = number_after(name, ".b").unwrap_or(0.0) / 8.0;
    let waited = notes.split_once("wt=").map_or("", |(_, mask)| &mask[..mask.len().min(6)]);
    let waits = pending.iter().any(|board| {
        let board: usize = board.parse().unwrap_or(usize::MAX);
        waited.len() > board && waited.as_bytes()[waited.len() - 1 - board] == b'1'
    });
    if waits {
        pending.clear();
    }
    let global = name.starts_with("ld.global");
    if global && let Some((_, board)) = notes.split_once("wr:") {
        pending.push(&board[..1]);
    }
    let paired = name.starts_with("hfma2") || name.starts_with("hmul2");
    let instruction = Instruction {
        // Beside others, pairs cost a quarter more than these.
        issue: if paired { 1.25 } else { 1.0 },
        paired,
        multiply_adds: match name {
            name if name.starts_with("ffma") => 1.0,
            name if name.starts_with("hfma2") => 2.0,
            _ => 0.0,
        },
        products: match name {
            name if name.starts_with("fmul") => 1.0,
            name if name.starts_with("hmul2") => 2.0,
            _ => 0.0,
        },
        loaded: if name.starts_with("ld.shared") { bytes } else { 0.0 },
        stored: if name.starts_with("st.shared") { bytes } else { 0.0 },
        global,
        waits,
    };
    let target = if name == "bra" { words.last().map(|w| (*w).to_owned()) } else { None };
    Line { label: None, instruction: Some(instruction), target }
}

/// AMD: `v_fmac_f32_e32 v1, v2, v3    ; 56...`, labels as `BB3:`. Two of `v_dual_*` issue as one.
fn aco<'a>(line: &'a str, pending: &mut Vec<&'a str>) -> Line<'a> {
    let code = line.split(';').next().unwrap_or("").trim();
    if let Some(label) = code.strip_suffix(':') {
        return Line { label: Some(label), ..Line::default() };
    }
    let Some(name) = code.split_whitespace().next() else { return Line::default() };
    let bytes = |name: &str| {
        let words = match name {
            n if n.ends_with("b128") => 4.0,
            n if n.ends_with("b96") => 3.0,
            n if n.ends_with("b64") => 2.0,
            _ => 1.0,
        };
        4.0 * words
            * if name.contains("read2") || name.contains("write2") || name.contains("2addr") {
                2.0
            } else {
                1.0
            }
    };
    let op = |half: &'a str| half.trim().trim_start_matches("v_").trim_start_matches("dual_");
    let adds = |half: &'a str| match op(half) {
        op if op.starts_with("pk_fma") || op.starts_with("dot2") => 2.0,
        op if op.starts_with("fma") || op.starts_with("mad_") => 1.0,
        _ => 0.0,
    };
    let multiplies = |half: &'a str| match op(half) {
        op if op.starts_with("pk_mul_f16") => 2.0,
        op if op.starts_with("mul_f32") || op.starts_with("mul_f16") => 1.0,
        _ => 0.0,
    };
    let load = ["buffer_load", "global_load", "flat_load"].iter().any(|p| name.starts_with(p));
    let left = if name == "s_waitcnt" { number_after(code, "vmcnt(") } else { None };
    let waits = left.is_some_and(|left| pending.len() > left as usize);
    if let (true, Some(left)) = (waits, left) {
        pending.truncate(left as usize);
    }
    if load {
        pending.push(name);
    }
    let reads = name.starts_with("ds_load") || name.starts_with("ds_read");
    let writes = name.starts_with("ds_store") || name.starts_with("ds_write");
    let instruction = Instruction {
        paired: false,
        issue: f64::from(u8::from(name.starts_with("v_"))),
        multiply_adds: code.split("::").map(adds).sum(),
        products: code.split("::").map(multiplies).sum(),
        loaded: if reads { bytes(name) } else { 0.0 },
        stored: if writes { bytes(name) } else { 0.0 },
        global: load,
        waits,
    };
    let jumps = name.starts_with("s_cbranch") || name == "s_branch";
    let target = if jumps { code.split_whitespace().nth(1).map(str::to_owned) } else { None };
    Line { label: None, instruction: Some(instruction), target }
}

/// Adreno: `(sy)(rpt2)mad.f32 r1.x, ...`, labels as `l486:`. `(sy)` waits for buffers and textures, `(rpt2)` is issued
/// three times, `(nop3)` waits for three.
fn ir3<'a>(line: &'a str, pending: &mut Vec<&'a str>) -> Line<'a> {
    let code = line.trim();
    if let Some(label) = code.strip_suffix(':') {
        return Line { label: Some(label), ..Line::default() };
    }
    if code.is_empty() || code.starts_with(';') || code.starts_with('@') {
        return Line::default();
    }
    let mut rest = code;
    while let Some((_, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
        rest = after.trim_start();
    }
    let name = rest.split([' ', ',']).next().unwrap_or("");
    let repeated = 1.0 + number_after(code, "(rpt").unwrap_or(0.0);
    // `ldl.u16 hr1.x, l[r0.x+8], 4`: four of two bytes each.
    let bytes = if name.contains("16") { 2.0 } else { 4.0 };
    let vector =
        |code: &str| bytes * code.rsplit(',').next().and_then(|n| n.trim().parse().ok()).unwrap_or(1.0);
    let waits = code.contains("(sy)") && !pending.is_empty();
    if waits {
        pending.clear();
    }
    let global = ["isam", "ldib", "ldg"].iter().any(|p| name.starts_with(p));
    if global {
        pending.push(name);
    }
    // Adreno's f16 is of double rate, by Qualcomm's figures, as `ort.md` counts it for onnxruntime-web's kernels.
    let half = ["mad.f16", "mul.f16", "add.f16"].contains(&name);
    let instruction = Instruction {
        paired: false,
        issue: repeated * if half { 0.5 } else { 1.0 } + number_after(code, "(nop").unwrap_or(0.0),
        multiply_adds: if name.starts_with("mad.f") { repeated } else { 0.0 },
        products: if name.starts_with("mul.f") { repeated } else { 0.0 },
        loaded: if name.starts_with("ldl") { vector(code) } else { 0.0 },
        stored: if name.starts_with("stl") { vector(code) } else { 0.0 },
        global,
        waits,
    };
    let target = (name == "br" || name == "jump").then(|| code.rsplit('#').next().unwrap_or("").to_owned());
    Line { label: None, instruction: Some(instruction), target }
}

/// The lines of the main program: `  840: 69b1...  lload r1_r2, ...`. A shorter program before it, which runs once a
/// draw, follows.
fn agx_main(printed: &str) -> Vec<&str> {
    let is_code =
        |line: &&str| line.split_once(": ").is_some_and(|(at, _)| u32::from_str_radix(at.trim(), 16).is_ok());
    let lines: Vec<&str> = printed.lines().filter(is_code).collect();
    let starts: Vec<usize> = (0..lines.len()).filter(|&i| lines[i].trim_start().starts_with("0: ")).collect();
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    let parts = starts.iter().zip(ends).map(|(&from, to)| &lines[from..to]);
    parts.max_by_key(|part| part.len()).unwrap_or_default().to_vec()
}

/// Apple: loads name the slot (`a`) that `wait a` waits for; every place is a label.
fn agx<'a>(line: &'a str, pending: &mut Vec<&'a str>) -> Line<'a> {
    let Some((at, code)) = line.trim().split_once(": ") else { return Line::default() };
    let mut words = code.split_whitespace().skip(1);
    let name = words.next().unwrap_or("");
    let rest = code.split_once(name).map_or("", |(_, rest)| rest).trim();
    let registers = rest.split(',').next().map_or(0, |first| first.split('_').count());
    let half = rest.split(',').next().is_some_and(|first| first.ends_with('l') || first.ends_with('h'));
    let bytes = registers as f64 * if half { 2.0 } else { 4.0 };
    let global = name == "load";
    let waits = name == "wait" && !pending.is_empty();
    if waits {
        pending.clear();
    }
    if global {
        pending.push(name);
    }
    let instruction = Instruction {
        paired: false,
        issue: 1.0,
        multiply_adds: f64::from(u8::from(["ffma", "hfma"].contains(&name))),
        products: f64::from(u8::from(["fmul", "hmul"].contains(&name))),
        loaded: if name == "lload" { bytes } else { 0.0 },
        stored: if name == "lstore" { bytes } else { 0.0 },
        global,
        waits,
    };
    // From where it stands.
    let target = || {
        let way: i64 = rest.split(',').next()?.trim().parse().ok()?;
        Some(format!("{:x}", i64::from_str_radix(at.trim(), 16).ok()? + way))
    };
    let target = if name.starts_with("jmp") { target() } else { None };
    Line { label: Some(at.trim()), instruction: Some(instruction), target }
}
