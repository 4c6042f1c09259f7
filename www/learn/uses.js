/** Chapter 1: what it is good for, four ways, from one seed. */
import { showPicture } from './draw.js';
import { Station } from './station.js';
import { middle } from './subject.js';
import { t } from './say.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/** Enough for the small model. */
const STEPS = 12;
/** What a picture is turned into: something that it can hardly be yet. */
const OTHER = 'a lemon';

/** @type {Record<string, (picture: ImageData, words: string) => Partial<GenerateOptions>>} */
const USES = {
  words: () => ({}),
  picture: (picture) => ({ image: picture, prompt: OTHER, strength: 0.7 }),
  mask: (picture, words) => ({ image: picture, maskImage: middle(), invertMask: true, prompt: `${words} in the sea` }),
  night: (_, words) => ({ prompt: `${words} at night` }),
};

export class Uses extends Station {
  #subject;

  /** @param {import('./subject.js').Subject} subject @param {import('./painter.js').Painter} painter */
  constructor(subject, painter) {
    super('uses', painter, subject);
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
      const { images: [image] } = await painter.turn(signal, (pipeline) =>
        pipeline.generate({ prompt, seed, numInferenceSteps: STEPS, ...options(picture, prompt), signal }));
      const canvas = /** @type {HTMLCanvasElement} */ (this.find(`[data-use=${use}]`));
      showPicture(canvas, image, t('uses.shown', words, seed));
    }
    this.showLink();
  }

  /** @override */
  moved() {
    this.output.textContent = this.slider.value;
    this.restart();
  }
}
