/** What this browser keeps of a visitor's small things, by name. Storage may be forbidden: then nothing is kept. */

/** @param {string} name @returns {string | null} */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string} text @returns {boolean} whether it is kept: there may be no room, too */
export function remember(name, text) {
  try {
    localStorage.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}

/**
 * A list, but for what is none of its kind. To be read each time: another tab may have added some.
 * @param {string} name
 * @param {(one: any) => boolean} fits
 * @returns {any[]}
 */
export function recallList(name, fits) {
  try {
    return JSON.parse(recall(name) ?? '[]').filter(fits);
  } catch {
    return []; // it holds something else
  }
}
