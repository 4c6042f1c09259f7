/** How a prompt may go on: names that begin as what stands before the caret, and the lists that they come from. */
import { readCsv } from './styles-csv.js';

/** @typedef {{ name: string, others: string, count: number }} Tag others: lower case, with commas between */

/**
 * @typedef {object} Names
 * @property {string[]} loras
 * @property {string[]} words of textual inversion
 * @property {Tag[]} tags
 */
/** @typedef {{ label: string, text: string, typed: string }} Offer typed: it takes the place of this, before the caret */

const MOST = 8;
/** Fewer letters say too little. */
const LEAST = 2;

/**
 * @param {string} before the caret
 * @param {Names} names
 * @returns {Offer[]}
 */
export function offersFor(before, { loras, words, tags }) {
  const [network, begin] = /<lora:([^<>:]*)$/i.exec(before) ?? [];
  if (network !== undefined && begin !== undefined) {
    return loras.filter((name) => name.toLowerCase().startsWith(begin.toLowerCase())).slice(0, MOST)
      .map((name) => ({ label: name, text: `<lora:${name}:1>`, typed: network }));
  }
  const word = /[^\s,，()[\]{}|<>:]*$/u.exec(before)?.[0] ?? '';
  const own = word.length < LEAST ? [] : words.filter((name) =>
    name !== word && name.toLowerCase().startsWith(word.toLowerCase()))
    .map((name) => ({ label: name, text: name, typed: word }));
  const phrase = /[^,，\n()[\]{}|<>:]*$/u.exec(before)?.[0].trimStart() ?? '';
  const like = phrase.length < LEAST ? [] : tagsLike(tags, phrase, MOST);
  const tagged = like.filter(({ name }) => tagWords(name) !== phrase)
    .map(({ name }) => ({ label: name, text: `${tagWords(name)}, `, typed: phrase }));
  return [...own, ...tagged].slice(0, MOST);
}

/**
 * @param {string} text
 * @returns {Tag[]} the most used first
 * @throws {PageError} where it is no CSV
 */
export function readTags(text) {
  return readCsv(text).filter(([name, , count]) => name && /^\d+$/.test(count ?? ''))
    .map(([name, , count, others = '']) => ({ name, others: others.toLowerCase(), count: Number(count) }))
    .sort((a, b) => b.count - a.count);
}

/**
 * Those that begin with what is typed, and then those of which another name does.
 * @param {Tag[]} tags
 * @param {string} typed
 * @param {number} most
 */
export function tagsLike(tags, typed, most) {
  const begin = typed.toLowerCase().replaceAll(' ', '_');
  const named = /** @type {Tag[]} */ ([]), other = /** @type {Tag[]} */ ([]);
  for (const tag of tags) {
    if (named.length >= most) break;
    if (tag.name.toLowerCase().startsWith(begin)) named.push(tag);
    else if (other.length < most && `,${tag.others}`.includes(`,${begin}`)) other.push(tag);
  }
  return [...named, ...other].slice(0, most);
}

/** As it stands in a prompt: without underscores, and its brackets are text. @param {string} name */
export const tagWords = (name) => name.replaceAll('_', ' ').replace(/[()[\]]/g, '\\$&');
