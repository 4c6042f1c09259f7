/** What is added to a model: LoRAs, words of textual inversion, another decoder. */
import { t } from '../messages/index.js';
import { Parts } from './parts.js';
import { any, button } from './ui.js';

export class Additions {
  loras;
  embeddings;
  #vaes;

  /** @param {{ loras: () => void, words: () => void }} changed */
  constructor(changed) {
    this.loras = new Parts({
      list: any('loras'), add: button('add-lora'), what: 'LoRA', changed: changed.loras,
      fields: [
        { key: 'source', label: 'LoRA', kind: 'source' },
        { key: 'scale', label: t('parts.strength'), kind: 'number', value: '1', min: -4, max: 4, step: 0.05 },
      ],
    });
    this.embeddings = new Parts({
      list: any('embeddings'), add: button('add-embedding'), what: t('parts.aWord'), changed: changed.words,
      fields: [
        { key: 'token', label: t('parts.word'), kind: 'text' },
        { key: 'source', label: t('parts.standsFor'), kind: 'source' },
      ],
    });
    this.#vaes = new Parts({
      list: any('vaes'), add: button('add-vae'), what: t('parts.aDecoder'), most: 1,
      fields: [{ key: 'source', label: t('parts.decoder'), kind: 'source' }],
    });
  }

  /** What the words of textual inversion stand for. */
  get words() {
    return /** @type {any} */ (this.embeddings.read().filter(({ token }) => token));
  }

  /** What completes in a prompt. */
  get names() {
    return { loras: this.loras.names, words: this.embeddings.tokens };
  }

  /** Another decoder than the model's own. */
  get decoder() {
    return this.#vaes.read()[0]?.source;
  }
}
