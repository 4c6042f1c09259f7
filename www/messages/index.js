/** The page's language, and what its scripts say in it. */

/** @type {'en' | 'zh'} */
export const language = document.documentElement.lang.startsWith('zh') ? 'zh' : 'en';

/**
 * @template {Record<string, string | ((...values: any[]) => string)>} M
 * @param {M} messages
 */
export const translator = (messages) =>
  /**
   * @template {keyof M} K
   * @param {K} key
   * @param {M[K] extends (...values: infer V) => string ? V : []} values
   * @returns {string}
   */
  (key, ...values) => {
    const message = messages[key];
    return typeof message === 'function' ? message(...values) : /** @type {string} */ (message);
  };
