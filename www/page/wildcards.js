/**
 * `__animal__` in a prompt: a line of the visitor's animal.txt, another one for each picture, until all had their turn. The
 * files are kept until they are forgotten.
 */
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';
import { CHOICE } from './variants.js';

const STORE = 'browser-diffusion wildcards';
const PART = String.raw`[\p{L}\p{N}][\p{L}\p{N} ./-]*`;
const WILDCARD = new RegExp(`__(${PART}(?:_${PART})*)__`, 'gu');
/** Lines within lines, before they are taken for ones that hold themselves. */
const DEEPEST = 20;

/** Lists by name. @typedef {Map<string, string[]>} Lists */

/** What a file offers: its lines, but those that are blank or begin with #. @param {string} text */
export const readLines = (text) =>
  text.replace(/^\uFEFF/, '').split(/\r\n?|\n/).map((line) => line.trim()).filter((line) => line && line[0] !== '#');

/** @param {string} prompt */
export const hasWildcards = (prompt) => prompt.search(WILDCARD) >= 0;

/**
 * What fills prompts in, from the first call to the last.
 * @param {Lists} lists
 * @param {() => number} [random] in [0, 1)
 * @returns {(prompt: string) => string}
 * @throws {PageError} where no list is called so, or one leads to itself
 */
export function filler(lists, random = Math.random) {
  /** What had no turn yet. @type {Map<string, string[]>} */
  const left = new Map();
  /** @template T @param {T[]} from @returns {T} taken out of it */
  const take = (from) => /** @type {T} */ (from.splice(Math.floor(random() * from.length), 1)[0]);
  /** @param {string} name */
  const line = (name) => {
    const list = lists.get(name);
    if (!list) throw new PageError('invalid-option', t('wildcards.unknown', name));
    const waiting = left.get(name)?.length ? /** @type {string[]} */ (left.get(name)) : [...list];
    left.set(name, waiting);
    let text = take(waiting);
    for (let choice = CHOICE.exec(text); choice; choice = CHOICE.exec(text))
      text = text.replace(choice[0], () => take(/** @type {any} */ (choice)[1].split('|')).trim());
    return text;
  };
  /** @param {string} prompt @param {number} depth @returns {string} */
  const fill = (prompt, depth) => prompt.replaceAll(WILDCARD, (_, /** @type {string} */ name) => {
    if (depth === DEEPEST) throw new PageError('invalid-option', t('wildcards.round', name));
    return fill(line(name), depth + 1);
  });
  return (prompt) => fill(prompt, 0);
}

/** @param {File[]} files @returns {Promise<number>} lines that were read */
export async function keepLists(files) {
  /** @type {[string, string, string[]][]} */
  const read = await Promise.all(files.map(async (file) => {
    const text = await file.text();
    return [file.name.replace(/\.txt$/i, ''), text, readLines(text)];
  }));
  for (const [name, , lines] of read) {
    if (lines.length === 0 || !hasWildcards(`__${name}__`))
      throw new PageError('invalid-option', t('wildcards.none', name));
  }
  const store = await caches.open(STORE);
  for (const [name, text] of read) await store.put(`/${encodeURIComponent(name)}`, new Response(text));
  return read.reduce((sum, [, , lines]) => sum + lines.length, 0);
}

/** @returns {Promise<Lists>} those that are kept */
export async function keptLists() {
  const store = await caches.open(STORE);
  const lists = await Promise.all((await store.keys()).map(async (request) => {
    const text = await (await store.match(request))?.text();
    const name = decodeURIComponent(new URL(request.url).pathname.slice(1));
    return /** @type {[string, string[]]} */ ([name, readLines(text ?? '')]);
  }));
  return new Map(lists);
}

export const forgetLists = () => caches.delete(STORE);
