/** What the scripts of learn.html say, in the page's language. */
import { language, translator } from '../messages/index.js';

const { messages } = language === 'zh'
  ? await import('../messages/learn/zh.js') : await import('../messages/learn/en.js');

export const t = translator(/** @type {typeof import('../messages/learn/en.js').messages} */ (messages));
