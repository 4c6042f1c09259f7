/**
 * What scripts say, in the language of the page that they are on: `t('key', ...args)`. Each language is a file of its
 * own with the same keys (tsc compares them with English), and a visitor fetches one of them.
 */

const catalogues = { en: () => import('./en.js'), zh: () => import('./zh.js') };

/** @typedef {keyof typeof catalogues} Language */

/** The page's, as BCP 47 has it. Some files are read outside of any page, by tests. */
const tag = globalThis.document?.documentElement.lang || 'en';

/** The page's. @type {Language} */
export const language = /** @type {Language[]} */ (Object.keys(catalogues))
  .find((name) => tag === name || tag.startsWith(`${name}-`)) ?? 'en';

/**
 * What says a catalogue's words.
 * @template {Record<string, string | ((...args: any[]) => string)>} M
 * @param {M} messages
 */
export const translator = (messages) =>
  /**
   * @template {keyof M} K
   * @param {K} key
   * @param {M[K] extends (...args: infer A) => string ? A : []} args
   * @returns {string}
   */
  (key, ...args) => {
    const message = messages[key];
    return typeof message === 'function' ? message(...args) : message;
  };

export const t = translator((await catalogues[language]()).messages);

const numbers = new Intl.NumberFormat(tag);
const lists = new Intl.ListFormat(tag, { type: 'conjunction' });

/** A whole number with its digits in groups. @param {number} value */
export const number = (value) => numbers.format(value);

/** "a, b and c". @param {string[]} items */
export const list = (items) => lists.format(items);
