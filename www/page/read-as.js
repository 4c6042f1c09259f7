/** Says below a Chinese prompt how the embedded model will read it, and reads it so. */
import { ChineseReader, isChinese } from './chinese.js';
import { EMBEDDED } from './model.js';
import { any } from './ui.js';

/** @type {Promise<ChineseReader> | undefined} */
let reader;
let showing = 0;

/** The reader, once it is needed. */
async function ready() {
  reader ??= fetch(new URL('../lexicon-zh.json', import.meta.url)).then(async (answer) =>
    new ChineseReader(await answer.json()));
  // Without a network another try may find it.
  reader.catch(() => { reader = undefined; });
  return reader;
}

/**
 * A prompt as a model is to read it: itself, but for the embedded model, where it is Chinese that the lexicon knows,
 * the English of that.
 * @param {string} prompt @param {string} source the model's
 */
export async function asRead(prompt, source) {
  if (source !== EMBEDDED || !isChinese(prompt)) return prompt;
  try {
    return (await ready()).english(prompt) ?? prompt;
  } catch {
    return prompt; // the lexicon did not come: drawn as it stands, and the page says that it will not be understood
  }
}

/** Says below a prompt how it will be read, where that is not as it stands. @param {string} prompt @param {string} source */
export async function showReading(prompt, source) {
  const mine = ++showing;
  const read = await asRead(prompt, source);
  if (mine !== showing) return;
  any('read-as').hidden = read === prompt;
  any('read-as-words').textContent = read;
}
