/** What this page says, in its language. */
import { language, translator } from '../messages/index.js';

const catalogues = { en: () => import('../messages/bench/en.js'), zh: () => import('../messages/bench/zh.js') };

export const t = translator((await catalogues[language]()).messages);
