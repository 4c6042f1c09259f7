/** Chapter 1: what it is good for, four ways, from one seed. */
import { showPicture } from './draw.js';
import { Station } from './station.js';
import { middle } from './subject.js';
import { t } from './say.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/**
 * @type {Record<'words' | 'picture' | 'mask' | 'blend', (picture: ImageData, seed: number) => Partial<GenerateOptions>>}
 */
const USES = {
  words: () => ({}),
  picture: (picture) => ({ image: picture, strength: 0.75 }),
  mask: (picture) => ({ image: picture, maskImage: middle(), strength: 1 }),
  blend: (_, seed) => ({ variationSeed: seed + 1, variationStrength: 0.5 }),
};

export class Uses extends Station {
  #subject;

  /** @param {import('./subject.js').Subject} subject @param {import('./painter.js').Painter} painter */
  constructor(subject, painter) {
    super('uses', painter);
    this.#subject = subject;
    subject.addEventListener('change', () => this.restart());
    this.output.textContent = this.slider.value;
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    const painter = /** @type {import('./painter.js').Painter} */ (this.painter);
    const seed = this.slider.valueAsNumber;
    const { picture, words } = this.#subject;
    const prompt = await this.#subject.read();
    for (const [use, options] of Object.entries(USES)) {
      const { images: [image] } = await painter.turn('uses', signal, (pipeline) =>
        pipeline.generate({ prompt, seed, ...options(picture, seed), signal }));
      showPicture(/** @type {HTMLCanvasElement} */ (this.find(`[data-use=${use}]`)), image, t('uses.shown', words, seed));
    }
    this.showLink();
  }

  /** @override */
  moved() {
    this.output.textContent = this.slider.value;
    this.restart();
  }
}
