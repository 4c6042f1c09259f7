/** Says below a Chinese prompt how the embedded model will read it, and reads it so. */
import { language } from '../messages/index.js';
import { ChineseReader, halfWidth, isChinese, readLexicon } from './chinese.js';
import { EMBEDDED } from './model.js';
import { any } from './ui.js';

/** @type {Promise<ChineseReader> | undefined} */
let reader;
let showing = 0;

/** The reader, once it is needed. */
async function ready() {
  reader ??= readLexicon().then((lexicon) => new ChineseReader(lexicon));
  // Without a network another try may find it.
  reader.catch(() => { reader = undefined; });
  return reader;
}

/**
 * Who writes on the Chinese page may type brackets, colons and commas as a Chinese keyboard does, where they mean anything;
 * elsewhere they are text, as in AUTOMATIC1111.
 * @param {string} prompt
 * @param {string} [syntax] of brackets and weights
 */
export const asTyped = (prompt, syntax = 'plain') =>
  (language === 'zh' && syntax !== 'plain' ? halfWidth(prompt) : prompt);

/**
 * Whether a prompt is Chinese that the embedded model reads, as far as it knows the words.
 * @param {string} prompt @param {string} source
 */
export const halfRead = (prompt, source) => source === EMBEDDED && isChinese(prompt);

/**
 * A prompt as a model is to read it: itself, but for the embedded model, where it is Chinese that the lexicon knows,
 * the English of that.
 * @param {string} prompt @param {string} source the model's
 * @param {string} [syntax] of brackets and weights
 */
export async function asRead(prompt, source, syntax) {
  const typed = asTyped(prompt, syntax);
  if (!halfRead(prompt, source)) return typed;
  try {
    return (await ready()).english(prompt) ?? typed;
  } catch {
    return typed; // the lexicon did not come: the model reads what it can
  }
}

/** Says below a prompt how it will be read, where that is not as it stands. @param {string} prompt @param {string} source */
export async function showReading(prompt, source) {
  const mine = ++showing;
  const read = await asRead(prompt, source);
  if (mine !== showing) return;
  any('half-read').hidden = !halfRead(read, source);
  any('read-as').hidden = read === prompt;
  any('read-as-words').textContent = read;
}
