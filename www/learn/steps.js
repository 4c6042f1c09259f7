/** Chapter 4: one seed, without words, in 1 to 50 steps; DDIM beside DDPM. */
import { showPicture } from './draw.js';
import { Station } from './station.js';
import { make } from '../page/ui.js';
import { t } from './say.js';

const COUNTS = /** @type {const} */ ([1, 2, 4, 10, 20, 50]);
const SAMPLERS = /** @type {const} */ (['ddim', 'ddpm']);
const SEED = 2;

export class Steps extends Station {
  /** @type {Map<string, import('./draw.js').Picture>} */
  #drawn = new Map();
  #reading = this.find('.reading');
  /** The visitor has the slider. */
  #chosen = false;

  /** @param {import('./painter.js').Painter} painter */
  constructor(painter) {
    super('steps', painter);
    for (const sampler of SAMPLERS) {
      this.find(`[data-sampler=${sampler}]`).append(...COUNTS.map((count, i) => {
        const canvas = make('canvas', { width: 128, height: 128 });
        canvas.dataset.count = String(count);
        canvas.onclick = () => {
          this.slider.value = String(i);
          this.slider.dispatchEvent(new Event('input', { bubbles: true }));
        };
        return make('figure', {}, canvas, make('figcaption', {}, `${sampler.toUpperCase()} ${count}`));
      }));
    }
    this.#show();
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    const painter = /** @type {import('./painter.js').Painter} */ (this.painter);
    for (const [i, count] of COUNTS.entries()) {
      for (const sampler of SAMPLERS) {
        const key = `${sampler} ${count}`;
        if (this.#drawn.has(key)) continue;
        const { images: [image] } = await painter.turn(signal, (pipeline) => pipeline.generate({
          prompt: '', seed: SEED, numInferenceSteps: count, guidanceScale: 1, scheduler: sampler, signal,
        }));
        this.#drawn.set(key, image);
        showPicture(this.#tile(sampler, count), image, t('steps.shown', sampler.toUpperCase(), count));
      }
      // It looks at each as it comes, but for a visitor who chose one.
      if (!this.#chosen) this.slider.value = String(i);
      this.#show();
    }
    this.showLink();
  }

  /** @override */
  moved() {
    this.#chosen = true;
    this.#show();
  }

  /** @param {string} sampler @param {number} count @returns {HTMLCanvasElement} */
  #tile(sampler, count) {
    return this.find(`[data-sampler=${sampler}] [data-count="${count}"]`);
  }

  #show() {
    const count = COUNTS[this.slider.valueAsNumber];
    this.output.textContent = String(count);
    for (const sampler of SAMPLERS) {
      for (const each of COUNTS) this.#tile(sampler, each).toggleAttribute('data-current', each === count);
      const image = this.#drawn.get(`${sampler} ${count}`);
      const big = /** @type {HTMLCanvasElement} */ (this.find(`[data-big=${sampler}]`));
      if (image) showPicture(big, image, t('steps.shown', sampler.toUpperCase(), count));
    }
    this.#reading.textContent = t(`steps.at${count}`);
  }
}
