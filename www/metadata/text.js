/**
 * A1111's text taken apart: prompt, negative prompt and the fields of the last line, in a time that grows with its
 * length alone. What is read: `parse_generation_parameters` of A1111 1.10.
 */

/**
 * Fields by name. It has no prototype: names come from outside.
 * @typedef {Record<string, string>} Fields
 */

/** Characters of a line of fields; a longer one was not written by a program that draws. */
const LONGEST_LINE = 1 << 20;
/** A name of a field is at most so long. */
const LONGEST_NAME = 100;

const NEGATIVE = 'Negative prompt:';
const NAME_START = /[\p{L}\p{N}_]/u;
const NAME_CHARACTER = /[\p{L}\p{N}_ \-/]/u;
/** Names that a line of fields begins with. */
const BEGINS = /^(?:Steps|Size|Seed|Sampler|CFG scale|Model|Model hash|Version|Schedule type|Prompt|Width|Height): /;

/**
 * @param {string} text
 * @returns {{ prompt: string, negativePrompt: string, fields: Fields }}
 */
export function parseParameters(text) {
  const breaks = text.length < LONGEST_LINE ? text.replaceAll('\r\n', '\n') : text;
  const whole = withoutTemplates(breaks).trim();
  const { words, fields } = withoutFields(whole);
  const negative = negativeAt(words, !whole.includes('\n'));
  if (negative < 0) return { prompt: words.trim(), negativePrompt: '', fields };
  return {
    prompt: words.slice(0, negative).trim(),
    negativePrompt: words.slice(words.indexOf(NEGATIVE, negative) + NEGATIVE.length).trim(),
    fields,
  };
}

/** Where the negative prompt begins: at a line's start, or anywhere if all is one line. */
function negativeAt(/** @type {string} */ words, /** @type {boolean} */ oneLine) {
  return oneLine ? words.indexOf(NEGATIVE) : words.search(/^[^\S\n]*Negative prompt:/m);
}

/** What sd-dynamic-prompts writes below the fields: the templates of both prompts. @param {string} text */
function withoutTemplates(text) {
  const fields = text.startsWith('Steps: ') ? 0 : text.lastIndexOf('\nSteps: ') + 1;
  const end = text.indexOf('\n', fields);
  return /^\n(?:Negative )?Template: /.test(text.slice(end, end + 30)) ? text.slice(0, end) : text;
}

/**
 * The words before the last line and its fields. Where line breaks were lost, the fields begin in the middle of it, at
 * "Steps: ".
 * @param {string} whole
 */
function withoutFields(whole) {
  const line = whole.lastIndexOf('\n') + 1;
  const last = whole.slice(line).trim();
  if (last.length > LONGEST_LINE) return { words: whole, fields: none() };
  let start = 0;
  if (!BEGINS.test(last.slice(0, LONGEST_NAME))) {
    const steps = last.lastIndexOf(' Steps: ') + 1;
    if (/^Steps: \d+, /.test(last.slice(steps, steps + 20))) start = steps;
  }
  const fields = fieldsOf(last.slice(start));
  // A1111's own rule: a last line of fewer fields is still prompt.
  if (!fields) return { words: whole, fields: none() };
  return { words: whole.slice(0, whole.length - last.length + start), fields };
}

/** @returns {Fields} */
const none = () => Object.create(null);

/** The fields of a line, where it has three. @param {string} line @returns {Fields | undefined} */
function fieldsOf(line) {
  const fields = none();
  let count = 0;
  for (let from = 0, colon = line.indexOf(':'); colon >= 0; colon = line.indexOf(':', from)) {
    const name = nameBefore(line, from, colon);
    from = colon + 1;
    if (name === undefined) continue;
    const { value, end } = valueAt(line, from);
    fields[name] = value;
    count++;
    from = end;
  }
  return count >= 3 ? fields : undefined;
}

/** The name that ends at `colon` and does not begin before `from`. @param {string} line @param {number} from */
function nameBefore(line, from, /** @type {number} */ colon) {
  const first = Math.max(from, colon - LONGEST_NAME);
  let start = colon;
  while (start > first && NAME_CHARACTER.test(line[start - 1])) start--;
  while (start < colon && !NAME_START.test(line[start])) start++;
  return colon - start > 1 ? line.slice(start, colon) : undefined;
}

/**
 * A value and where it ends, behind its comma: a JSON string, or all up to a comma.
 * @param {string} line
 * @param {number} at
 */
function valueAt(line, at) {
  while (at < line.length && /\s/.test(line[at])) at++;
  if (line[at] === '"') {
    let quote = at + 1;
    while (quote < line.length && line[quote] !== '"') quote += line[quote] === '\\' ? 2 : 1;
    const behind = line[quote + 1];
    if (quote < line.length && quote > at + 1 && (behind === ',' || behind === undefined)) {
      return { value: unquoted(line.slice(at, quote + 1)), end: quote + 2 };
    }
  }
  const comma = line.indexOf(',', at);
  const end = comma < 0 ? line.length : comma;
  return { value: line.slice(at, end).trim(), end: end + 1 };
}

/** @param {string} value */
function unquoted(value) {
  try {
    return String(JSON.parse(value));
  } catch {
    return value;
  }
}
