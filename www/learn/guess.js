/** Chapter 3: what the network takes for noise, at each step, with words and without. */
import { Axes, showChannels, showPicture, svg } from './draw.js';
import { STEPS, alphasCumprod } from './chance.js';
import { Station, pause, still } from './station.js';
import { t } from './say.js';

/** @typedef {import('../browser-diffusion.js').DiffusionPipeline} DiffusionPipeline */
/**
 * What was found out of a step; channels: of the noise, as of latents.
 * @typedef {{ noisy: any, withWords: Guessed, without: Guessed, noise: Float32Array, channels: number }} Seen
 */
/** @typedef {{ picture: any, noise: Float32Array, loss: number }} Guessed */

/** The steps that it plays; the slider has more. */
const STOPS = [49, 199, 349, 499, 649, 799, 899, 999];
/** Where it rests when it has played. */
const REST = 649;
const SEED = 3;
/** How long each step is seen, in milliseconds. */
const PACE = 250;

export class Guess extends Station {
  #subject;
  #axes = new Axes({ left: 34, top: 10, right: 450, bottom: 92 }, [0, STEPS - 1], [0, 1]);
  #curve = this.find('.curve');
  #reading = this.find('.reading');
  #lines = { without: svg('path', { class: 'line other' }), withWords: svg('path', { class: 'line' }) };
  #mark = svg('path', { class: 'drop' });
  #top = svg('text', { x: 2, y: 18 });
  /** What was found out of each step. @type {Map<number, Seen>} */
  #known = new Map();
  /** The picture's latents, and the noise. @type {Promise<[Float32Array, Float32Array]> | undefined} */
  #mixed;

  /** @param {import('./subject.js').Subject} subject @param {import('./painter.js').Painter} painter */
  constructor(subject, painter) {
    super('guess', painter, subject);
    this.#subject = subject;
    this.#curve.append(
      this.#axes.frame(), this.#mark, ...Object.values(this.#lines),
      this.#top, svg('text', { x: 6, y: 94 }, '0'),
      svg('text', { x: 34, y: 110 }, '0'), svg('text', { x: 450, y: 110, 'text-anchor': 'end' }, '999'),
      svg('text', { x: 240, y: 110, 'text-anchor': 'middle' }, t('guess.axis')),
    );
    subject.addEventListener('change', () => {
      this.#forget();
      this.restart();
    });
  }

  #forget() {
    this.#known.clear();
    this.#mixed = undefined;
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    this.#forget();
    const rests = this.chosen ? this.slider.valueAsNumber : REST;
    for (const at of STOPS) {
      this.slider.value = String(at);
      this.#show(await this.#at(at, signal));
      if (!still()) await pause(PACE, signal);
    }
    this.slider.value = String(rests);
    this.#show(await this.#at(rests, signal));
    this.showLink();
  }

  /** @override */
  moved() {
    const at = this.slider.valueAsNumber;
    this.output.textContent = String(at);
    if (this.painter?.state !== 'ready') return;
    this.run(async (signal) => this.#show(await this.#at(at, signal)));
  }

  /** What it guesses at a step; once found out it is kept. @param {number} at @param {AbortSignal} signal */
  async #at(at, signal) {
    const known = this.#known.get(at);
    if (known) return known;
    const words = await this.#subject.read();
    const { picture } = this.#subject;
    const seen = await /** @type {import('./painter.js').Painter} */ (this.painter)
      .turn(signal, async (pipeline) => {
        this.#mixed ??= Promise.all([pipeline.encode(picture), pipeline.noise(SEED)]);
        return look(pipeline, await this.#mixed, words, at);
      });
    if (!signal.aborted) this.#known.set(at, seen);
    return seen;
  }

  /** @param {Seen} seen */
  #show({ noisy, withWords, without, noise, channels }) {
    const at = this.slider.valueAsNumber;
    const canvas = (/** @type {string} */ tile) => /** @type {HTMLCanvasElement} */ (this.find(`[data-tile=${tile}]`));
    showPicture(canvas('noisy'), noisy, t('guess.shownNoisy', at));
    showPicture(canvas('uncond'), without.picture, t('guess.shownWithout', at));
    showPicture(canvas('cond'), withWords.picture, t('guess.shownWith', at));
    showChannels(canvas('noise'), noise, channels);
    showChannels(canvas('guessed'), withWords.noise, channels);
    showChannels(canvas('mistake'), noise.map((value, i) => value - withWords.noise[i]), channels);
    this.output.textContent = String(at);
    const x = this.#axes.x(at);
    this.#mark.setAttribute('d', `M${x} ${this.#axes.box.top}V${this.#axes.box.bottom}`);
    const steps = [...this.#known.keys()].sort((a, b) => a - b);
    const losses = [...this.#known.values()].flatMap((one) => [one.withWords.loss, one.without.loss]);
    const most = Math.max(0.05, ...losses);
    this.#axes.up = [0, most];
    this.#top.textContent = most.toFixed(2);
    for (const which of /** @type {const} */ (['without', 'withWords'])) {
      const points = steps.map((step) =>
        /** @type {[number, number]} */ ([step, this.#known.get(step)?.[which].loss ?? 0]));
      this.#lines[which].setAttribute('d', this.#axes.path(points));
    }
    this.#reading.textContent = t('guess.reading', at, withWords.loss.toFixed(3), without.loss.toFixed(3));
  }
}

/**
 * @param {DiffusionPipeline} pipeline @param {[Float32Array, Float32Array]} mixed the picture's latents, and noise
 * @param {string} words @param {number} at
 * @returns {Promise<Seen>}
 */
async function look(pipeline, [clean, noise], words, at) {
  const latents = await pipeline.addNoise(clean, noise, at);
  /** @param {string} prompt @returns {Promise<Guessed>} */
  const guess = async (prompt) => {
    const made = await pipeline.predict({ latents, timestep: at, prompt, guidanceScale: 1 });
    return { picture: await pipeline.decode(made.x0), noise: made.noise, loss: meanSquare(noise, made.noise) };
  };
  const { latentChannels: channels } = pipeline.model;
  const noisy = await pipeline.decode(latents);
  return { noisy, withWords: await guess(words), without: await guess(''), noise, channels };
}

/** @param {Float32Array} a @param {Float32Array} b */
const meanSquare = (a, b) => a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length;
