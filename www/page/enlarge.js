/** An ESRGAN model from disk: it enlarges the finished picture that is shown, and the first pass of a bigger one. */
import { Upscaler } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { openDrawer } from './levels.js';
import { PageError } from './page-error.js';
import { button, input, isAbort, say, showError, showProgress } from './ui.js';

export class Enlarger {
  #file = input('upscaler-file');
  #enlarge = button('upscale');
  /** @type {{ file: File, promise: Promise<Upscaler> } | undefined} */
  #loaded;

  /** @param {() => void} enlarge the picture that is shown */
  constructor(enlarge) {
    this.#enlarge.onclick = enlarge;
  }

  /** @param {boolean} finished whether a finished picture is shown */
  shown(finished) {
    this.#enlarge.disabled = !finished;
  }

  /** Shows which model enlarges; where none is chosen yet, the keyboard is there. */
  open() {
    openDrawer(this.#file);
    if (!this.#file.files?.length) this.#file.focus();
  }

  /** The model that was chosen. @returns {Promise<Upscaler>} */
  async model() {
    const [file] = this.#file.files ?? [];
    if (!file) {
      throw new PageError('invalid-option', t('enlarge.choose'));
    }
    if (this.#loaded?.file === file) return this.#loaded.promise;
    this.#loaded?.promise.then((old) => old.dispose(), () => {});
    const mine = this.#loaded = { file, promise: Upscaler.fromPretrained(file) };
    mine.promise.catch(() => { if (this.#loaded === mine) this.#loaded = undefined; });
    return mine.promise;
  }

  /**
   * Puts the larger picture beside the one that is shown; never throws.
   * @param {import('./strip.js').Strip} strip
   * @param {AbortSignal} signal
   */
  async run(strip, signal) {
    const shown = strip.finished;
    if (!shown?.image) return;
    try {
      say(t('enlarge.enlarging'));
      const model = await this.model();
      const onProgress = (/** @type {{ done: number, total: number }} */ { done, total }) => showProgress(done / total);
      const big = await model.upscale(shown.image, { signal, onProgress });
      strip.addFinished({
        image: new ImageData(big.data, big.width, big.height),
        file: () => big.toBlob('image/png'),
        parameters: big.parameters,
        name: `${shown.name}-x${model.scale}`,
        title: shown.title,
        detail: t('enlarge.detail', `${big.width} × ${big.height}`),
      });
      say(t('enlarge.done', `${big.width} × ${big.height}`));
    } catch (error) {
      say(t('enlarge.not'));
      if (!isAbort(error)) showError(error);
    } finally {
      showProgress(0);
    }
  }
}
