/** What else can be done with the picture that is shown: its settings, its seed, itself, and a link that draws it. */
import { t } from '../messages/index.js';
import { told } from './told.js';
import { button, hideError, say, showError } from './ui.js';

/**
 * @typedef {import('./strip.js').Finished} Finished
 * @typedef {import('./told.js').Told} Told
 *
 * @typedef {object} On
 * @property {(told: Told) => Promise<string>} settings sets the form, and returns what to say of it
 * @property {(seed: number) => void} seed
 * @property {(image: ImageData) => void} mask white is painted
 * @property {(file: File) => void} control a ControlNet is shown it
 * @property {() => void} enlarge
 * @property {(told: Told) => string} link the part of an address from its "#"
 */

export class Uses {
  /** What needs to know how the picture was made, and what does not. */
  #telling = ['use-settings', 'use-seed', 'copy-link'].map(button);
  #others = ['use-mask', 'use-control', 'use-enlarge'].map(button);
  /** @type {Finished | undefined} */
  #frame;
  #on;

  /** @param {On} on */
  constructor(on) {
    this.#on = on;
    const [settings, seed, link] = this.#telling;
    const [mask, control, enlarge] = this.#others;
    this.#does(settings, async (_, tells) => say(t('uses.settings', await on.settings(await tells()))));
    this.#does(seed, async (_, tells) => {
      const { options } = await tells();
      if (options.seed !== undefined) on.seed(options.seed);
      say(options.seed === undefined ? t('uses.noSeed') : t('uses.seed', options.seed));
    });
    this.#does(link, async (_, tells) => this.#copy(on.link(await tells())));
    this.#does(mask, async ({ image }) => {
      on.mask(image);
      say(t('uses.mask'));
    });
    this.#does(control, async ({ file, name }) => on.control(new File([await file()], `${name}.png`)));
    this.#does(enlarge, async () => on.enlarge());
  }

  /** @param {Finished} [frame] the picture that is shown large */
  shown(frame) {
    this.#frame = frame;
    for (const each of this.#telling) each.disabled = !frame?.parameters;
    for (const each of this.#others) each.disabled = !frame;
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {(frame: Finished, tells: () => Promise<Told>) => Promise<unknown>} work
   */
  #does(button, work) {
    button.onclick = async () => {
      const frame = this.#frame;
      if (!frame) return;
      hideError();
      try {
        // A file whose text is damaged was said to be so: nothing else is done then.
        await work(frame, async () => await told(await frame.file()) ?? Promise.reject());
      } catch (error) {
        if (error) showError(error);
      }
    };
  }

  /** @param {string} hash */
  async #copy(hash) {
    const { href } = new URL(hash, location.href);
    try {
      await navigator.clipboard.writeText(href);
      say(t('uses.link'));
    } catch {
      location.hash = hash; // not every browser lends its clipboard
      say(t('uses.linkShown'));
    }
  }
}
