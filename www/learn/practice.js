/** Chapter 7: one button, six pictures: what each setting of the drawing page does. */
import { DiffusionPipeline, canny } from '../browser-diffusion.js';
import { make, makeButton, size } from '../page/ui.js';
import { showPicture } from './draw.js';
import { Station } from './station.js';
import { middle } from './subject.js';
import { t } from './say.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */
/** @typedef {{ picture: ImageData, prompt: string, seed: number }} Given */
/** @typedef {import('../browser-diffusion.js').GeneratedImage} GeneratedImage */
/**
 * @typedef {object} Cell
 * @property {string} label
 * @property {Partial<GenerateOptions>} [options] it is drawn with these
 * @property {'f16' | 'q8' | 'q4'} [weights] by the model with its weights in so many bits
 * @property {() => Promise<GeneratedImage>} [shown] it is not drawn, but this
 */

/** Beside the model; fetched by the engine when they are used, and kept by it as the model is. */
const beside = (/** @type {string} */ path) => new URL(`../embedded/${path}`, import.meta.url).href;
/**
 * What is drawn along the edges of a picture, and how much they count.
 * @type {['watermelon' | 'cat' | 'frog', scale: number][]}
 */
const LED = [['watermelon', 0], ['watermelon', 0.5], ['watermelon', 1], ['cat', 1], ['frog', 1]];

/** @param {ImageData} image @param {number} scale @returns {import('../browser-diffusion.js').ControlNet} */
const byEdges = (image, scale) => ({ source: beside('controlnet'), image, preprocess: 'canny', scale });

/** The last word of a prompt, weighed. @param {string} prompt @param {number} weight */
const weighed = (prompt, weight) => prompt.replace(/(\S+)\s*$/, `($1:${weight})`);

/** @type {Record<string, (given: Given) => Cell[]>} */
const EXPERIMENTS = {
  steps: () => [1, 2, 4, 8, 16, 32].map((n) => ({ label: t('practice.nSteps', n), options: { numInferenceSteps: n } })),
  guidance: () => [1, 2, 3, 5, 9, 15].map((n) => (
    { label: t('practice.nGuidance', n), options: { guidanceScale: n } })),
  negative: () => ['', 'red', 'green', 'blue', 'black', 'white'].map((words) => (
    { label: words ? t('practice.not', words) : t('practice.notNothing'), options: { negativePrompt: words } })),
  walk: ({ seed }) => [0, 0.2, 0.4, 0.6, 0.8, 1].map((n) => (
    { label: t('practice.way', n * 100), options: { variationSeed: seed + 1, variationStrength: n } })),
  strength: ({ picture }) => [0.2, 0.4, 0.6, 0.7, 0.85, 1].map((n) => (
    { label: t('practice.strengthIs', n), options: { image: picture, strength: n } })),
  mask: ({ picture, seed }) => [0, 1, 2, 3, 4, 5].map((n) => (
    { label: t('practice.seedIs', seed + n), options: { image: picture, maskImage: middle(), seed: seed + n } })),
  weight: ({ prompt }) => [0.2, 0.6, 1, 1.2, 1.5, 2].map((n) => weighed(prompt, n)).map((words) => (
    { label: words.split(' ').at(-1) ?? '', options: { prompt: words, promptSyntax: 'a1111' } })),
  lora: () => [0, 0.3, 0.6, 0.9, 1.2, 1.5].map((scale) => (
    { label: t('practice.loraIs', scale), options: { loras: [{ source: beside('lora/ink.safetensors'), scale }] } })),
  control: ({ picture }) => [
    { label: t('practice.edges'), shown: () => canny(picture) },
    ...LED.map(([noun, scale]) => ({
      label: t('practice.ledIs', t(`practice.${noun}`), scale),
      options: { prompt: `a ${noun}`, controlnets: [byEdges(picture, scale)] },
    })),
  ],
  bits: () => /** @type {const} */ (['f16', 'q8', 'q4']).map((weights) => ({ label: weights, options: {}, weights })),
};

export class Practice extends Station {
  #subject;
  #chosen = 'guidance';
  #cells = this.find('.cells');
  #about = this.find('.reading');
  /** @type {Map<string, HTMLButtonElement>} */
  #buttons = new Map();

  /** @param {import('./subject.js').Subject} subject @param {import('./painter.js').Painter} painter */
  constructor(subject, painter) {
    super('practice', painter, subject);
    this.#subject = subject;
    for (const name of Object.keys(EXPERIMENTS)) {
      const button = makeButton({ textContent: t(/** @type {'practice.steps'} */ (`practice.${name}`)) });
      button.onclick = () => this.#choose(name);
      button.dataset.experiment = name;
      this.#buttons.set(name, button);
    }
    this.find('.experiments').append(...this.#buttons.values());
    subject.addEventListener('change', () => this.restart());
    this.output.textContent = this.slider.value;
    this.#show();
  }

  /** @override */
  values() {
    return { at: this.slider.value, what: this.#chosen };
  }

  /** @override @param {URLSearchParams} values */
  take(values) {
    const what = values.get('what') ?? '';
    if (Object.hasOwn(EXPERIMENTS, what)) this.#chosen = what;
    super.take(values);
  }

  /** @param {string} name */
  #choose(name) {
    this.#chosen = name;
    this.moved();
    this.showLink();
  }

  /** @override */
  moved() {
    this.output.textContent = this.slider.value;
    this.#show();
    this.restart();
  }

  #show() {
    for (const [name, button] of this.#buttons) button.setAttribute('aria-pressed', String(name === this.#chosen));
    this.#about.textContent = t(/** @type {'practice.steps.about'} */ (`practice.${this.#chosen}.about`));
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    const painter = /** @type {import('./painter.js').Painter} */ (this.painter);
    const seed = this.slider.valueAsNumber, prompt = await this.#subject.read();
    const cells = EXPERIMENTS[this.#chosen]({ picture: this.#subject.picture, prompt, seed });
    const canvases = cells.map(() => make('canvas', { width: 128, height: 128 }));
    const captions = cells.map(({ label }) => make('figcaption', {}, label));
    this.#cells.replaceChildren(...canvases.map((canvas, i) => make('figure', {}, canvas, captions[i])));
    for (const [i, { label, options, weights, shown }] of cells.entries()) {
      const asked = { prompt, seed, ...options, signal };
      const { image, bytes } = await painter.turn(signal, async (pipeline) => {
        if (shown) return { image: await shown() };
        return weights ? drawnWith(weights, asked) : drawn(pipeline, asked);
      });
      showPicture(canvases[i], image, label);
      if (bytes !== undefined) captions[i].textContent = t('practice.bytes', label, size(bytes));
    }
    this.showLink();
  }
}

/** @typedef {{ image: GeneratedImage, bytes?: number }} Drawn with its weights' bytes */

/** @param {DiffusionPipeline} pipeline @param {GenerateOptions} options @returns {Promise<Drawn>} */
const drawn = async (pipeline, options) => ({ image: (await pipeline.generate(options)).images[0] });

/**
 * Draws with the model loaded once more, its weights in fewer bits.
 * @param {'f16' | 'q8' | 'q4'} weights @param {GenerateOptions} options
 * @returns {Promise<Drawn>}
 */
async function drawnWith(weights, options) {
  const pipeline = await DiffusionPipeline.fromPretrained('embedded', { weights, signal: options.signal });
  try {
    const { images: [image] } = await pipeline.generate(options);
    const { weights: bytes } = await pipeline.memory();
    return { image, bytes };
  } finally {
    await pipeline.dispose();
  }
}
