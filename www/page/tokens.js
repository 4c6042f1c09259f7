/** How the prompt is read: its tokens, and whether the model knows the language. */
import { t } from '../messages/index.js';
import { isChinese } from './chinese.js';
import { halfRead } from './read-as.js';
import { any, make } from './ui.js';

/**
 * @typedef {import('../browser-diffusion.js').DiffusionPipeline} DiffusionPipeline
 * @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions
 */

const STILL_MS = 250;

export class Tokens {
  #pipeline;
  #words;
  #readsChinese;
  #readings = 0;

  /**
   * @param {() => Promise<DiffusionPipeline> | undefined} pipeline none is there, or it draws
   * @param {() => Promise<Pick<GenerateOptions, 'prompt' | 'promptSyntax' | 'embeddings'> & { source: string }>} words
   *   of the form, and the model's source
   * @param {() => void} readsChinese it knows every word of a prompt that is Chinese
   */
  constructor(pipeline, words, readsChinese) {
    this.#pipeline = pipeline;
    this.#words = words;
    this.#readsChinese = readsChinese;
  }

  /** Shows the prompt's tokens, once a model is there and the prompt has been still for a moment. */
  async show() {
    const mine = ++this.#readings;
    await new Promise((resolve) => setTimeout(resolve, STILL_MS));
    if (mine !== this.#readings) return;
    try {
      const pipeline = await this.#pipeline();
      if (!pipeline || mine !== this.#readings) return;
      const { prompt, source, ...options } = await this.#words();
      const { tokens, chunks, room, foreign } = await pipeline.tokenize(prompt, options);
      if (mine !== this.#readings) return;
      any('foreign').hidden = !foreign || halfRead(prompt, source);
      if (isChinese(prompt) && !tokens.some(({ unknown }) => unknown)) this.#readsChinese();
      any('tokens').replaceChildren(...tokens.map(({ text, id, weight, cut, unknown }) => {
        const title = [
          t('tokens.token', id), weight !== 1 && t('tokens.weight', weight.toFixed(2)), cut && t('tokens.cut'),
          unknown && t('tokens.unknown'),
        ].filter(Boolean).join(', ');
        const kinds = [weight > 1 && 'heavy', weight < 1 && 'light', unknown && 'unknown', cut && 'cut'];
        return make('span', { textContent: text, title, className: kinds.filter(Boolean).join(' ') });
      }));
      /** @type {HTMLElement} */ (any('reading').firstElementChild).dataset.count = `${tokens.length}/${room * chunks}`;
      any('tokens-text').textContent = t('tokens.text', tokens.length, chunks);
    } catch {
      // A view on the side: what is wrong with the model or the files is said where a picture is asked for.
    }
  }
}
