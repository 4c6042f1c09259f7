/**
 * Ctrl and the arrows up and down, in a field of words: what is selected, or stands at the caret, counts more or less, as
 * in AUTOMATIC1111's page. (word:1.1) by tenths, <lora:file:0.8> by twentieths.
 */
import { language } from '../messages/index.js';
import { halfWidth } from './chinese.js';

const TENTH = 0.1;
const TWENTIETH = 0.05;
/** What one bracket without a number counts. */
const BRACKET = 1.1;
/** What ends a word. */
const DELIMITERS = '.,\\/!?%^*;:{}=`~() \r\n\t';

/** @typedef {{ text: string, start: number, end: number }} Selection from and to, in the text */

/**
 * @param {Selection} selection
 * @param {boolean} more
 * @returns {Selection | undefined} nothing where nothing there can be weighed
 */
export function weigh({ text, start, end }, more) {
  const chosen = start === end ? atCaret(text, start) : { start, end };
  if (!chosen) return undefined;
  const enclosed = chosen.start > 0 && '<(['.includes(text[chosen.start - 1]) ? text[chosen.start - 1] : '';
  const weighed = enclosed && text[chosen.end] === ':' ? { text, ...chosen } : bracket(text, chosen, enclosed);
  return weighed && turn(weighed, more);
}

/** What stands at the caret: within brackets, or the word. @param {string} text @param {number} caret */
function atCaret(text, caret) {
  for (const [open, close] of ['<>', '()', '[]']) {
    const before = unmatched([...text.slice(0, caret)].reverse(), open, close);
    const after = unmatched([...text.slice(caret)], close, open);
    if (before === undefined || after === undefined) continue;
    const start = caret - before, inner = text.slice(start, caret + after);
    const colon = inner.lastIndexOf(':');
    return { start, end: start + (colon >= 0 ? colon : inner.length) };
  }
  let start = caret, end = caret;
  while (start > 0 && !DELIMITERS.includes(text[start - 1])) start--;
  while (end < text.length && !DELIMITERS.includes(text[end])) end++;
  return start === end ? undefined : { start, end };
}

/**
 * How far it is to a bracket whose other one does not come before it.
 * @param {string[]} signs
 * @param {string} bracket
 * @param {string} other
 */
function unmatched(signs, bracket, other) {
  let depth = 0, at = 0;
  for (const sign of signs) {
    if (sign === bracket && depth-- === 0) return at;
    if (sign === other) depth++;
    at += sign.length;
  }
  return undefined;
}

/**
 * Brackets with a number, in place of those without, or of none.
 * @param {string} text
 * @param {{ start: number, end: number }} chosen
 * @param {string} enclosed by this bracket
 * @returns {Selection | undefined}
 */
function bracket(text, { start, end }, enclosed) {
  while (end > start && text[end - 1] === ' ') end--;
  if (start === end || enclosed === '<') return undefined;
  const close = enclosed === '(' ? ')' : ']';
  let depth = 0;
  if (enclosed) while (text[start - depth - 1] === enclosed && text[end + depth] === close) depth++;
  const power = enclosed === '(' ? BRACKET ** depth : BRACKET ** -depth;
  const weight = Math.round(power / TENTH) * TENTH;
  const inner = text.slice(start, end);
  const from = start - depth;
  return {
    text: `${text.slice(0, from)}(${inner}:${figure(weight)})${text.slice(end + depth)}`,
    start: from + 1,
    end: from + 1 + inner.length,
  };
}

/** @param {Selection} selection before a colon and a number @param {boolean} more @returns {Selection | undefined} */
function turn({ text, start, end }, more) {
  const network = text[start - 1] === '<';
  const close = text.indexOf(network ? '>' : ')', end);
  const said = text.slice(end + 1, close);
  if (close < 0 || !/^\s*-?\d*\.?\d+\s*$/.test(said)) return undefined;
  const step = network ? TWENTIETH : TENTH;
  const weight = Number(said) + (more ? step : -step);
  const inner = text.slice(start, end);
  if (!network && Math.abs(weight - 1) < 1e-9) {
    return { text: `${text.slice(0, start - 1)}${inner}${text.slice(close + 1)}`, start: start - 1, end: end - 1 };
  }
  return { text: `${text.slice(0, end + 1)}${figure(weight)}${text.slice(close)}`, start, end };
}

/** Without what floating point adds; a whole one with its ".0". @param {number} weight */
function figure(weight) {
  const rounded = Number(weight.toPrecision(12));
  return Number.isInteger(rounded) ? rounded.toFixed(1) : String(rounded);
}

/** Listens in a field. @param {HTMLInputElement | HTMLTextAreaElement} field */
export function weighsIn(field) {
  field.addEventListener('keydown', (event) => {
    const key = /** @type {KeyboardEvent} */ (event);
    const turns = (key.ctrlKey || key.metaKey) && ['ArrowUp', 'ArrowDown'].includes(key.key) && !key.isComposing;
    if (!turns) return;
    key.preventDefault();
    const { value, selectionStart: start, selectionEnd: end } = field;
    const text = language === 'zh' ? halfWidth(value) : value;
    const weighed = weigh({ text, start: start ?? 0, end: end ?? 0 }, key.key === 'ArrowUp');
    if (!weighed) return;
    // As if it had been typed, so that the browser's own undo takes it back.
    field.select();
    if (!document.execCommand('insertText', false, weighed.text)) {
      field.value = weighed.text;
      field.dispatchEvent(new Event('input', { bubbles: true }));
    }
    field.setSelectionRange(weighed.start, weighed.end);
  });
}
