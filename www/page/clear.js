/** Takes all words away; pressed again, brings them back. */
import { t } from '../messages/index.js';
import { button } from './ui.js';

/** @typedef {{ prompt: string, negative: string }} Words */

/** @param {{ read: () => Words, set: (words: Words) => void, typed: (listener: () => void) => void }} words of the form */
export function clears({ read, set, typed }) {
  const clear = button('clear-words');
  const empties = clear.textContent;
  /** @type {Words | undefined} */
  let gone;
  const forget = () => {
    const { prompt, negative } = read();
    if (!prompt && !negative) return;
    gone = undefined;
    clear.textContent = empties;
  };
  clear.onclick = () => {
    if (gone) {
      set(gone);
      forget();
      return;
    }
    const words = read();
    set({ prompt: '', negative: '' });
    if (!words.prompt && !words.negative) return;
    gone = words;
    clear.textContent = t('words.bringBack');
  };
  typed(forget);
}
