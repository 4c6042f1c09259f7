/** The IP-Adapters of a drawing: each a model, its image encoder, and the pictures that it shows the drawing's. */
import { t } from '../messages/index.js';
import { openDrawer } from './levels.js';
import { PageError } from './page-error.js';
import { Parts } from './parts.js';
import { any, button, element } from './ui.js';

/** @typedef {import('../browser-diffusion.js').IpAdapter} IpAdapter */

/** Where those lie that are used most, with the encoders that they were made with. */
const PLACE = 'https://huggingface.co/h94/IP-Adapter/resolve/main';
const ENCODERS = { h: `${PLACE}/models/image_encoder`, g: `${PLACE}/sdxl_models/image_encoder` };
/** What is offered, and for what. */
const OFFERED = {
  'likeness-sources': [
    [`${PLACE}/models/ip-adapter_sd15.safetensors`, 'SD 1.5'],
    [`${PLACE}/models/ip-adapter-plus_sd15.safetensors`, 'SD 1.5, Plus'],
    [`${PLACE}/models/ip-adapter-plus-face_sd15.safetensors`, t('likeness.face')],
    [`${PLACE}/sdxl_models/ip-adapter_sdxl.safetensors`, 'SDXL'],
    [`${PLACE}/sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors`, 'SDXL, Plus'],
  ],
  'likeness-encoders': [[ENCODERS.h, 'ViT-H'], [ENCODERS.g, 'ViT-bigG']],
};

export class Likeness {
  #list = any('likenesses');
  #parts;

  constructor() {
    for (const [id, options] of Object.entries(OFFERED)) {
      element(id, HTMLDataListElement).append(...options.map(([source, what]) => new Option(what, source)));
    }
    this.#parts = new Parts({
      list: this.#list, add: button('add-likeness'), what: 'IP-Adapter',
      fields: [
        { key: 'source', label: 'IP-Adapter', kind: 'source', list: 'likeness-sources' },
        { key: 'imageEncoder', label: t('likeness.encoder'), kind: 'source', list: 'likeness-encoders' },
        { key: 'images', label: t('likeness.pictures'), kind: 'pictures' },
        { key: 'scale', label: t('parts.strength'), kind: 'number', value: '0.6', min: 0, max: 2, step: 0.05 },
      ],
      complete: (row) => row.addEventListener('change', () => offerEncoder(row)),
    });
  }

  /**
   * What `generate` takes.
   * @returns {IpAdapter[]}
   * @throws {PageError} where one lacks its encoder or pictures; the list is opened then
   */
  read() {
    return this.#parts.read().map(({ source, imageEncoder, images, scale }, i) => {
      if (imageEncoder && images.length > 0) return { source, imageEncoder, images, scale };
      openDrawer(this.#list);
      throw new PageError('invalid-option', t(imageEncoder ? 'likeness.noPicture' : 'likeness.noEncoder', i + 1));
    });
  }

  /**
   * The rows become those of a picture. What they saw, its text does not hold.
   * @param {import('../browser-diffusion.js').Needs['ipAdapters']} [needs]
   * @returns {string[]} the names of those whose files are asked for
   */
  take(needs = []) {
    return this.#parts.take(needs);
  }
}

/** An adapter whose name says which encoder it was made with has that, unless one is chosen. @param {HTMLElement} row */
function offerEncoder(row) {
  const field = (/** @type {string} */ key) =>
    /** @type {HTMLInputElement} */ (row.querySelector(`[data-key=${key}]`));
  const name = field('source').value.split('/').at(-1) ?? '';
  if (field('imageEncoder').value || !/^ip-adapter.*(sd15|sdxl)/i.test(name)) return;
  const large = /vit-g/i.test(name) || (/sdxl/i.test(name) && !/vit-h/i.test(name));
  field('imageEncoder').value = ENCODERS[large ? 'g' : 'h'];
}
