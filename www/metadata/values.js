/** Values of JSON from outside, as what they are to be; anything else is undefined. */

/** A number, or one that is written in a text. @param {unknown} value */
export function number(value) {
  const read = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  return typeof read === 'number' && Number.isFinite(read) ? read : undefined;
}

/** @param {unknown} value */
export const text = (value) => (typeof value === 'string' ? value : undefined);

/** Characters of JSON: a graph of hundreds of nodes has fewer. */
const LONGEST = 1 << 20;

/** The object that a text is, if it is JSON. @param {string | undefined} source @returns {any} */
export function objectIn(source) {
  if (source === undefined || source.length > LONGEST || !/^\s*\{/.test(source)) return undefined;
  try {
    return JSON.parse(source);
  } catch {
    return undefined;
  }
}

/** An own value of an object, or nothing. @param {unknown} object @param {...string} names the first that it has */
export function own(object, ...names) {
  if (typeof object !== 'object' || object === null) return undefined;
  const name = names.find((each) => Object.hasOwn(object, each));
  return name === undefined ? undefined : /** @type {Record<string, unknown>} */ (object)[name];
}
