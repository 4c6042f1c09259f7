/** An ESRGAN model from disk: it enlarges the finished picture that is shown, and the first pass of a bigger one. */
import { DiffusionError, Upscaler } from '../browser-diffusion.js';
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
    this.#file.closest('details')?.setAttribute('open', '');
    if (!this.#file.files?.length) this.#file.focus();
  }

  /** The model that was chosen. @returns {Promise<Upscaler>} */
  async model() {
    const [file] = this.#file.files ?? [];
    if (!file) {
      const message = 'Choose an ESRGAN model (.pth or .safetensors) to enlarge with, under “Bigger”.';
      throw new DiffusionError('invalid-option', message);
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
      say('Enlarging …');
      const model = await this.model();
      const onProgress = (/** @type {{ done: number, total: number }} */ { done, total }) => showProgress(done / total);
      const big = await model.upscale(shown.image, { signal, onProgress });
      strip.addFinished({
        image: new ImageData(big.data, big.width, big.height),
        file: () => big.toBlob('image/png'),
        parameters: big.parameters,
        name: `${shown.name}-x${model.scale}`,
        title: shown.title,
        detail: `enlarged to ${big.width} × ${big.height} pixels`,
      });
      say(`Enlarged to ${big.width} × ${big.height} pixels.`);
    } catch (error) {
      say('Not enlarged; your picture is as it was.');
      if (!isAbort(error)) showError(error);
    } finally {
      showProgress(0);
    }
  }
}
