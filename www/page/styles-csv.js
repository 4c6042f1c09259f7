/**
 * AUTOMATIC1111's styles.csv: comma-separated values as Python's csv module reads and writes them, and what is in them.
 */
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';

/** @typedef {{ name: string, prompt: string, negative: string }} Style */

/** What stands for the prompt within a style's words. */
const PLACE = '{prompt}';

/**
 * Quotes hold commas, line breaks and, doubled, quotes. Spaces behind a comma do not count.
 * @param {string} text with or without a byte order mark
 * @returns {string[][]} rows; empty lines are none
 * @throws {DiffusionError} where a quote is not closed
 */
export function readCsv(text) {
  const rows = /** @type {string[][]} */ ([]);
  let row = /** @type {string[]} */ ([]);
  // A value in quotes, or one without; then what ends it.
  const value = / *(?:"((?:[^"]|"")*)"([^,\r\n]*)|([^,\r\n]*))(,|\r\n|\r|\n|$)/y;
  value.lastIndex = text.startsWith('\ufeff') ? 1 : 0;
  while (value.lastIndex < text.length) {
    const found = value.exec(text);
    const [, quoted, behind = '', plain = '', end] = found ?? [];
    if (!found || plain.startsWith('"')) throw new PageError('invalid-option', t('styles.open'));
    row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"') + behind);
    if (end === ',' && value.lastIndex < text.length) continue;
    if (end === ',') row.push('');
    if (row.length > 1 || row[0] !== '') rows.push(row);
    row = [];
  }
  return rows;
}

/** @param {string[][]} rows */
const writeCsv = (rows) => rows.map((row) => `${row.map(quote).join(',')}\r\n`).join('');

/** @param {string} value */
const quote = (value) => (/[",\r\n]|^ /.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/**
 * A prompt with a style's words, as A1111 joins them.
 * @param {string} words @param {string} style
 */
export const joined = (words, style) =>
  (style.includes(PLACE) ? style.replaceAll(PLACE, () => words)
    : [words.trim(), style.trim()].filter(Boolean).join(', '));

/**
 * @param {string} text of a styles.csv
 * @returns {Style[] | undefined} nothing where it has no such columns
 * @throws {DiffusionError} where it is no CSV
 */
export function readStyles(text) {
  const [head = [], ...rows] = readCsv(text);
  const at = (/** @type {string[]} */ ...names) => head.findIndex((column) => names.includes(column.trim()));
  // Its first versions called the words "text".
  const [name, prompt, negative] = [at('name'), at('prompt', 'text'), at('negative_prompt')];
  if (name < 0 || prompt < 0) return undefined;
  return rows.filter((row) => row[name]).map((row) =>
    ({ name: row[name], prompt: row[prompt] ?? '', negative: row[negative] ?? '' }));
}

/** With a byte order mark, as A1111 writes it. @param {Style[]} styles */
export const writeStyles = (styles) => `\ufeff${writeCsv([
  ['name', 'prompt', 'negative_prompt'], ...styles.map(({ name, prompt, negative }) => [name, prompt, negative]),
])}`;
