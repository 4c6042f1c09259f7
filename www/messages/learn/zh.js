/** What the scripts of learn.html say, in Chinese. */

/** @type {typeof import('./en.js').messages} */
export const messages = /** @type {any} */ ({});
