/**
 * The model that the chapters draw with. There is one; it is fetched when that costs nothing or the visitor agrees, and
 * it does one thing at a time: what was asked last comes first, for that is what the visitor looks at.
 */
import { DiffusionError, DiffusionPipeline, cache, detect } from '../browser-diffusion.js';
import { Download } from '../page/download.js';
import { keepPage, unmetered } from '../page/network.js';
import { hideError, say, showError, size } from '../page/ui.js';
import { t } from './say.js';

/** @typedef {'checking' | 'none' | 'asks' | 'loading' | 'ready'} State */

/**
 * @typedef {object} Turn
 * @property {AbortSignal} signal
 * @property {(pipeline: DiffusionPipeline) => Promise<any>} work
 * @property {(result: any) => void} resolve
 * @property {(error: unknown) => void} reject
 */

/** Bytes of the model that comes with the page, as near as its files tell. */
const BYTES = 45e6;
const EMBEDDED = 'embedded';

export class Painter extends EventTarget {
  /** @type {State} */
  state = 'checking';
  /** @type {DiffusionPipeline | undefined} */
  #pipeline;
  /** @type {Turn[]} */
  #waiting = [];
  #working = false;
  #button;

  /** @param {HTMLButtonElement} button fetches the model */
  constructor(button) {
    super();
    this.#button = button;
    button.onclick = () => this.load();
  }

  /** Finds out what is possible, and loads the model where nobody has to pay for it. */
  async start() {
    const { webgpu, reason = '' } = await detect();
    if (!webgpu) {
      this.#become('none');
      showError(new DiffusionError('webgpu-unavailable', reason));
      say(t('model.none'));
      return;
    }
    if (unmetered() || await isKept()) await this.load();
    else this.#ask();
  }

  #ask() {
    this.#button.textContent = t('model.fetch', size(BYTES));
    say(t('model.asks'));
    this.#become('asks');
  }

  async load() {
    if (this.state === 'loading' || this.state === 'ready') return;
    hideError();
    this.#become('loading');
    say(t('model.loading'));
    const download = new Download();
    try {
      this.#pipeline = await DiffusionPipeline.fromPretrained(EMBEDDED, {
        onProgress: (progress) => download.update(progress),
      });
    } catch (error) {
      this.#ask();
      showError(error);
      return;
    }
    say(t('model.ready'));
    this.#become('ready');
    keepPage();
    this.#next();
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    this.#button.hidden = state !== 'asks';
    this.#button.closest('.report')?.classList.toggle('idle', state !== 'loading');
    this.dispatchEvent(new Event('change'));
  }

  /**
   * Has the model do one thing, once it is there.
   * @template T
   * @param {AbortSignal} signal of whoever asks
   * @param {(pipeline: DiffusionPipeline) => Promise<T>} work
   * @returns {Promise<T>}
   */
  turn(signal, work) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ signal, work, resolve, reject });
      this.#next();
    });
  }

  async #next() {
    const pipeline = this.#pipeline;
    if (this.#working || !pipeline) return;
    const turn = this.#waiting.pop();
    if (!turn) return;
    this.#working = true;
    try {
      if (turn.signal.aborted) throw new DiffusionError('aborted', 'Another wish came first.');
      turn.resolve(await turn.work(pipeline));
    } catch (error) {
      if (error instanceof DiffusionError && error.code === 'device-lost') this.#lost(error);
      turn.reject(error);
    } finally {
      this.#working = false;
    }
    this.#next();
  }

  /** A GPU that was lost takes the model along: it can be had anew, from what the browser keeps. @param {DiffusionError} error */
  #lost(error) {
    this.#pipeline = undefined;
    this.#ask();
    showError(error);
  }
}

/** The model lies in this browser; only a visitor who was here before has a service worker, and the engine to ask. */
async function isKept() {
  if (!navigator.serviceWorker?.controller) return false;
  return (await cache.list().catch(() => [])).some(({ name, complete }) => complete && name === EMBEDDED);
}


