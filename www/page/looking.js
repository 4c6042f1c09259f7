/**
 * "Look inside": while its drawer is open, a drawing keeps what the network saw and made at every step. What shows it is
 * fetched when it is opened first; closed, nothing is asked for, and nothing costs more.
 */
import { t } from '../messages/index.js';
import { details, errorWords, make } from './ui.js';

/**
 * @typedef {import('../browser-diffusion.js').Step} Step
 * @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions
 */

/**
 * What was seen in one step, of the first picture.
 * @typedef {object} Inside
 * @property {number} step
 * @property {number} total
 * @property {number} channels of latents
 * @property {Awaited<ReturnType<NonNullable<Step['colours']>>>} [colours]
 * @property {Float32Array} [noise] the guess that is followed
 * @property {Float32Array} [cond] with the prompt
 * @property {Float32Array} [uncond] with the negative prompt
 * @property {import('../browser-diffusion.js').WordMaps} [attention]
 * @property {import('../browser-diffusion.js').BlockMaps[]} [activations]
 */

/** How long steps took that were looked into, and the last that were not, in milliseconds. */
/** @typedef {{ looked?: number, plain?: number }} Times */

export class Looking {
  #drawer = details('inside');
  /** @type {Promise<import('../inside.js').Panel> | undefined} */
  #panel;
  /** Of the frame that is shown. @type {Promise<Inside> | undefined} */
  #inside;
  /** @type {Times} */
  #times = {};

  constructor() {
    this.#drawer.addEventListener('toggle', () => this.#update());
  }

  /** What a drawing is to tell of its inside. @param {GenerateOptions} options */
  asked({ deepCache, promptEmbeds }) {
    if (!this.#drawer.open) return undefined;
    // A step that takes most of the network from the one before cannot show all of it.
    return { guidance: true, attention: !deepCache && !promptEmbeds, activations: !deepCache };
  }

  /** Shows what is known of a frame. @param {Promise<Inside> | undefined} inside */
  show(inside) {
    this.#inside = inside;
    this.#update();
  }

  /** A picture is drawn. @param {number[]} steps milliseconds @param {boolean} looked */
  drawn(steps, looked) {
    const middle = steps.toSorted((a, b) => a - b)[Math.floor(steps.length / 2)];
    this.#times[looked ? 'looked' : 'plain'] = middle;
    this.#update();
  }

  async #update() {
    if (!this.#drawer.open) return;
    this.#panel ??= import('../inside.js').then(({ Panel }) => new Panel(this.#drawer));
    try {
      const [panel, inside] = await Promise.all([this.#panel, this.#inside]);
      panel.show(inside, this.#times);
    } catch (error) {
      // It could not be fetched: opening it again tries again.
      this.#panel = undefined;
      this.#drawer.querySelector('.error')?.remove();
      this.#drawer.append(make('div', { className: 'error' }, ...errorWords(error), ` ${t('inside.again')}`));
    }
  }
}

/**
 * What a step tells of its inside.
 * @param {Step} step @param {number} channels of latents @param {number} images
 * @returns {Promise<Inside>}
 */
export async function insideOf({ step, total, ...told }, channels, images) {
  const [colours, noise, cond, uncond, attention, activations] = await Promise.all(
    /** @type {const} */ ([told.colours?.(), told.noise?.(), told.cond?.(), told.uncond?.(), told.attention?.(),
      told.activations?.()]));
  /** @param {Float32Array} [values] */
  const first = (values) => values?.slice(0, values.length / images);
  const guess = { noise: first(noise), cond: first(cond), uncond: first(uncond) };
  return { step, total, channels, colours, ...guess, attention, activations };
}
