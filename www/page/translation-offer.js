/** Fetches translate.js, which few need: for Chinese words, in a browser that translates by itself. */
import { isChinese } from './chinese.js';

/** @typedef {import('./translate.js').Words} Words */

export class TranslationOffer {
  #words;
  #source = '';
  #known = '';
  /** @type {Promise<import('./translate.js').Translation> | undefined} */
  #translation;

  /** @param {{ read: () => Words, set: (words: Words) => void }} words of the form */
  constructor(words) {
    this.#words = words;
  }

  /** The model that is loaded reads Chinese: it knows all words of this prompt. @param {string} source its */
  known(source) {
    if (this.#known === source) return;
    this.#known = source;
    this.show(this.#source);
  }

  /** Offers it, where it would help. @param {string} source the model's */
  async show(source) {
    this.#source = source;
    const { prompt, negative } = this.#words.read();
    if (!this.#translation && (!('Translator' in globalThis) || !isChinese(prompt + negative))) return;
    this.#translation ??= import('./translate.js').then(({ Translation }) => new Translation(this.#words));
    try {
      (await this.#translation).show(source, source === this.#known);
    } catch {
      this.#translation = undefined; // without a network another try may find it
    }
  }
}
