//! AUTOMATIC1111's prompt language, version 1.10: what is drawn at which step, and how strongly.
//!
//! A prompt is read in this order, each stage seeing the text that the one before left:
//! 1. [`extra_networks`]: `<lora:name:weight>` is taken out.
//! 2. [`composition`]: `AND` between prompts, each with a weight `a : 0.5`.
//! 3. [`schedule`]: `[a:b:when]`, `[a:when]`, `[a::when]` and `[a|b]`: which text at which step.
//! 4. [`attention`]: `(x)`, `[x]`, `(x:1.2)`, escapes and `BREAK`: the pieces of a text and their weights.
//!
//! Nothing here is an error: as there, what does not parse stays as text.

/// The weight of a piece that is no text but the end of a chunk; its text is "BREAK".
pub const BREAK: f64 = -1.0;

/// `<type:argument:...>` of a prompt: type and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraNetwork {
    pub kind: String,
    pub arguments: Vec<String>,
}

impl ExtraNetwork {
    /// Arguments `name=value`, and the others in their order.
    pub fn named(&self) -> (Vec<(&str, &str)>, Vec<&str>) {
        let (mut named, mut placed) = (Vec::new(), Vec::new());
        for argument in &self.arguments {
            // One with a second `=` is no pair, as in A1111.
            match argument.split_once('=') {
                Some((name, value)) if !value.contains('=') => named.push((name, value)),
                _ => placed.push(argument.as_str()),
            }
        }
        (named, placed)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Takes every `<type:arguments>` out of a prompt (`modules/extra_networks.py`).
pub fn extra_networks(prompt: &str) -> (String, Vec<ExtraNetwork>) {
    let (mut text, mut found) = (String::new(), Vec::new());
    let mut rest = prompt;
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        match tag(rest) {
            Some((network, length)) => {
                found.push(network);
                rest = &rest[length..];
            }
            None => {
                text.push('<');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    (text, found)
}

/// `<\w+:[^>]+>` at the start of `text`, and its length.
fn tag(text: &str) -> Option<(ExtraNetwork, usize)> {
    let inner = text.strip_prefix('<')?;
    let end = inner.find(|c| !is_word(c))?;
    let (kind, arguments) = (&inner[..end], inner[end..].strip_prefix(':')?);
    let close = arguments.find('>')?;
    if kind.is_empty() || close == 0 {
        return None;
    }
    let arguments = arguments[..close].split(':').map(str::to_owned).collect();
    Some((ExtraNetwork { kind: kind.to_owned(), arguments }, end + close + 3))
}

/// The pieces of `text` between the word `word`, where that stands alone.
fn split_word<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(at) = text[from..].find(word).map(|i| i + from) {
        let end = at + word.len();
        let alone = !text[..at].chars().next_back().is_some_and(is_word)
            && !text[end..].chars().next().is_some_and(is_word);
        if alone {
            pieces.push(&text[start..at]);
            start = end;
        }
        from = end;
    }
    pieces.push(&text[start..]);
    pieces
}

/// The prompts between `AND` and their weights, 1 where none is given. At least one.
pub fn composition(prompt: &str) -> Vec<(String, f64)> {
    split_word(prompt, "AND")
        .into_iter()
        .map(|part| {
            let part = part.trim_end();
            let weighted = part.rsplit_once(':').and_then(|(text, number)| {
                let number = number.trim_start();
                let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
                let decimal = digits.chars().all(|c| c.is_ascii_digit() || c == '.')
                    && digits.contains(|c: char| c.is_ascii_digit());
                Some((text.trim_end(), decimal.then(|| number.parse().ok()).flatten()?))
            });
            let (text, weight) = weighted.unwrap_or((part, 1.0));
            (text.to_owned(), weight)
        })
        .collect()
}

/// A parsed prompt.
enum Node<'a> {
    Text(&'a str),
    /// Brackets that mean weight, kept as text for [`attention`].
    Group(Vec<Node<'a>>),
    /// `[before:after:when]`
    Scheduled {
        before: Vec<Node<'a>>,
        after: Vec<Node<'a>>,
        when: i64,
    },
    /// `[a|b|...]`
    Alternate(Vec<Vec<Node<'a>>>),
}

/// The texts of a prompt and the last step, from 1, of each: `[[5, "a cat"], [20, "a dog"]]`.
/// `[a:b:0.25]`: a number with a point is a fraction of `steps`.
pub fn schedule(prompt: &str, steps: usize) -> Vec<(usize, String)> {
    let Some(nodes) = Parser { text: prompt, steps }.document() else {
        return vec![(steps, prompt.to_owned())];
    };
    let mut ends = vec![steps];
    collect_ends(&nodes, steps, &mut ends);
    ends.sort_unstable();
    ends.dedup();
    ends.into_iter()
        .map(|end| {
            let mut text = String::new();
            at_step(&nodes, end, &mut text);
            (end, text)
        })
        .collect()
}

/// The entry of a [`schedule`] at a step, counted from 0. As in A1111, whose counter begins at 0 while its
/// schedules begin at 1, the first text lasts one step longer than its number says.
pub fn entry_at<T>(schedule: &[(usize, T)], step: usize) -> Option<&T> {
    schedule.iter().find(|(end, _)| step <= *end).or(schedule.first()).map(|(_, entry)| entry)
}

fn collect_ends(nodes: &[Node], steps: usize, ends: &mut Vec<usize>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Group(inner) => collect_ends(inner, steps, ends),
            Node::Scheduled { before, after, when } => {
                ends.extend(usize::try_from(*when).ok().filter(|&w| w >= 1));
                collect_ends(before, steps, ends);
                collect_ends(after, steps, ends);
            }
            Node::Alternate(options) => {
                ends.extend(1..=steps);
                options.iter().for_each(|option| collect_ends(option, steps, ends));
            }
        }
    }
}

fn at_step(nodes: &[Node], step: usize, out: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Group(inner) => at_step(inner, step, out),
            Node::Scheduled { before, after, when } => {
                at_step(if step as i64 <= *when { before } else { after }, step, out);
            }
            Node::Alternate(options) => at_step(&options[step.saturating_sub(1) % options.len()], step, out),
        }
    }
}

/// How deep brackets may be nested; deeper ones stay as text.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    text: &'a str,
    steps: usize,
}

impl<'a> Parser<'a> {
    /// The whole prompt; brackets and colons that fit nowhere are text. `None` for a `|` or a lone `\` that
    /// fits nowhere: then nothing of the prompt is scheduled.
    fn document(&self) -> Option<Vec<Node<'a>>> {
        let mut nodes = Vec::new();
        let mut at = 0;
        while at < self.text.len() {
            let (element, end) = match self.element(at, 0) {
                Some(found) => found,
                None if self.text[at..].starts_with(['[', ']', '(', ')', ':']) => {
                    (Node::Text(&self.text[at..at + 1]), at + 1)
                }
                None => return None,
            };
            nodes.push(element);
            at = end;
        }
        Some(nodes)
    }

    /// Elements from `at` on, up to a character that begins none: `] ) : |`, or the end.
    fn elements(&self, mut at: usize, depth: usize) -> (Vec<Node<'a>>, usize) {
        let mut nodes = Vec::new();
        while let Some((node, end)) = self.element(at, depth) {
            nodes.push(node);
            at = end;
        }
        (nodes, at)
    }

    /// One element and where it ends.
    fn element(&self, at: usize, depth: usize) -> Option<(Node<'a>, usize)> {
        match self.text[at..].chars().next()? {
            '(' if depth < MAX_DEPTH => self.round(at, depth + 1),
            '[' if depth < MAX_DEPTH => self.square(at, depth + 1),
            '(' | '[' | ')' | ']' | ':' | '|' => None,
            _ => {
                let end = self.plain_end(at);
                (end > at).then(|| (Node::Text(&self.text[at..end]), end))
            }
        }
    }

    /// Where text without syntax ends; `\` takes the next character along, unless that is a line break.
    fn plain_end(&self, at: usize) -> usize {
        let mut characters = self.text[at..].char_indices();
        while let Some((i, c)) = characters.next() {
            match c {
                '(' | '[' | ')' | ']' | ':' | '|' => return at + i,
                '\\' if !matches!(characters.next(), Some((_, next)) if next != '\n') => return at + i,
                _ => {}
            }
        }
        self.text.len()
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// `(a)` or `(a:b)`.
    fn round(&self, at: usize, depth: usize) -> Option<(Node<'a>, usize)> {
        let mut nodes = vec![Node::Text(&self.text[at..at + 1])];
        let (inner, mut end) = self.elements(at + 1, depth);
        nodes.extend(inner);
        if self.byte(end) == Some(b':') {
            nodes.push(Node::Text(&self.text[end..end + 1]));
            let (weight, weight_end) = self.elements(end + 1, depth);
            nodes.extend(weight);
            end = weight_end;
        }
        (self.byte(end) == Some(b')')).then(|| {
            nodes.push(Node::Text(&self.text[end..end + 1]));
            (Node::Group(nodes), end + 1)
        })
    }

    /// `[a]`, `[a:when]`, `[a:b:when]` or `[a|b|...]`.
    fn square(&self, at: usize, depth: usize) -> Option<(Node<'a>, usize)> {
        let (first, end) = self.elements(at + 1, depth);
        match self.byte(end)? {
            b']' => {
                let mut nodes = vec![Node::Text(&self.text[at..at + 1])];
                nodes.extend(first);
                nodes.push(Node::Text(&self.text[end..end + 1]));
                Some((Node::Group(nodes), end + 1))
            }
            b'|' => {
                let (mut options, mut end) = (vec![first], end);
                while self.byte(end) == Some(b'|') {
                    let (option, option_end) = self.elements(end + 1, depth);
                    options.push(option);
                    end = option_end;
                }
                (self.byte(end) == Some(b']')).then(|| (Node::Alternate(options), end + 1))
            }
            b':' => {
                if let Some((when, end)) = self.when(end + 1) {
                    return Some((Node::Scheduled { before: Vec::new(), after: first, when }, end));
                }
                let (after, end) = self.elements(end + 1, depth);
                let (when, end) = self.when((self.byte(end) == Some(b':')).then_some(end + 1)?)?;
                Some((Node::Scheduled { before: first, after, when }, end))
            }
            _ => None,
        }
    }

    /// A number and `]`: the step, and what follows the bracket.
    fn when(&self, at: usize) -> Option<(i64, usize)> {
        let length = self.text[at..].find(']')?;
        let number = self.text[at..at + length].trim();
        let value: f64 = is_number(number).then(|| number.parse().ok()).flatten()?;
        let value = if number.contains('.') { value * self.steps as f64 } else { value };
        Some(((value as i64).min(self.steps as i64), at + length + 1))
    }
}

/// lark's `SIGNED_NUMBER`: sign, digits with a point somewhere or nowhere, exponent.
fn is_number(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let unsigned = |t: &str| t.strip_prefix(['+', '-']).map_or(t.to_owned(), str::to_owned);
    let text = unsigned(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(unsigned(exponent))),
        None => (text.as_str(), None),
    };
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            (digits(whole) && (fraction.is_empty() || digits(fraction)))
                || (whole.is_empty() && digits(fraction))
        }
        None => digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(|e| digits(&e))
}

/// The pieces of a text and the weight of each; runs of one weight are one piece. A piece ("BREAK",
/// [`BREAK`]) ends a chunk. Never empty. Weights are multiplied in A1111's order, so that they agree to the bit.
pub fn attention(text: &str) -> Vec<(String, f64)> {
    const ROUND: f64 = 1.1;
    const SQUARE: f64 = 1.0 / 1.1;
    let mut pieces: Vec<(String, f64)> = Vec::new();
    let (mut round, mut square) = (Vec::new(), Vec::new());
    fn multiply(pieces: &mut [(String, f64)], from: usize, by: f64) {
        pieces[from..].iter_mut().for_each(|(_, weight)| *weight *= by);
    }
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            '\\' => {
                let escaped = rest[1..].chars().next().filter(|c| "()[]\\".contains(*c));
                length += usize::from(escaped.is_some());
                pieces.push((escaped.map(String::from).unwrap_or_default(), 1.0));
            }
            '(' => round.push(pieces.len()),
            '[' => square.push(pieces.len()),
            ')' if !round.is_empty() => multiply(&mut pieces, round.pop().unwrap_or_default(), ROUND),
            ']' if !square.is_empty() => multiply(&mut pieces, square.pop().unwrap_or_default(), SQUARE),
            ':' if closing_weight(rest).is_some() => {
                let (weight, end) = closing_weight(rest).unwrap_or_default();
                length = end;
                match round.pop() {
                    Some(from) => multiply(&mut pieces, from, weight),
                    None => pieces.push((rest[..end].to_owned(), 1.0)),
                }
            }
            ':' | ')' | ']' => pieces.push((first.into(), 1.0)),
            _ => {
                length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                push_broken(&mut pieces, &rest[..length]);
            }
        }
        rest = &rest[length..];
    }
    round.into_iter().for_each(|from| multiply(&mut pieces, from, ROUND));
    square.into_iter().for_each(|from| multiply(&mut pieces, from, SQUARE));
    if pieces.is_empty() {
        pieces.push((String::new(), 1.0));
    }
    let mut merged: Vec<(String, f64)> = Vec::new();
    for (text, weight) in pieces {
        match merged.last_mut() {
            Some((last, w)) if *w == weight => last.push_str(&text),
            _ => merged.push((text, weight)),
        }
    }
    merged
}

/// `:1.2)` at the start of `text`: the weight, and its length.
fn closing_weight(text: &str) -> Option<(f64, usize)> {
    let close = text.find(')')?;
    let number = text[1..close].trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    Some((plain.then(|| number.parse().ok()).flatten()?, close + 1))
}

/// A text with every `BREAK` in it as a piece of its own; the white space around one is dropped.
fn push_broken(pieces: &mut Vec<(String, f64)>, text: &str) {
    let parts = split_word(text, "BREAK");
    let last = parts.len() - 1;
    for (i, part) in parts.iter().enumerate() {
        let part = if i > 0 { part.trim_start() } else { part };
        let part = if i < last { part.trim_end() } else { part };
        if i > 0 {
            pieces.push(("BREAK".into(), BREAK));
        }
        pieces.push((part.into(), 1.0));
    }
}
