/** Two pictures, one over the other with a slider between them, and the settings in which they differ. */
import { t } from '../messages/index.js';
import { told } from './told.js';
import { any, button, context2d, element, input, make, say } from './ui.js';

/** @typedef {import('./strip.js').Finished} Finished */

export class Compare {
  #view = any('compare');
  #stage = any('compare-stage');
  #slider = input('compare-slider');
  #use = button('use-compare');
  #differs = any('compare-settings');
  /** The one that another is compared with. @type {Finished | undefined} */
  #first;
  /** The one that is shown large. @type {Finished | undefined} */
  #shown;
  #asked = 0;
  #nameOf;

  /** @param {(option: string) => string} nameOf an option of `generate`, on this page */
  constructor(nameOf) {
    this.#nameOf = nameOf;
    this.#use.onclick = () => this.#begin();
    button('compare-close').onclick = () => {
      this.#view.hidden = true;
      this.#first = undefined;
      this.#use.focus();
    };
    this.#slider.addEventListener('input', () => this.#slide());
    this.#stage.addEventListener('pointerdown', (event) => this.#stage.setPointerCapture(event.pointerId));
    this.#stage.addEventListener('pointermove', ({ clientX, buttons, pointerType }) => {
      if (pointerType === 'mouse' && buttons === 0) return;
      const { left, width } = this.#stage.getBoundingClientRect();
      this.#slider.valueAsNumber = (100 * (clientX - left)) / width;
      this.#slide();
    });
  }

  /** Another picture is shown large: it is the second, where one is waited for. @param {Finished} [frame] */
  shown(frame) {
    this.#shown = frame;
    this.#use.disabled = !frame;
    if (frame && this.#first && frame.id !== this.#first.id) this.#show(this.#first, frame);
  }

  #begin() {
    this.#first = this.#shown;
    this.#view.hidden = true;
    if (this.#first) say(t('compare.choose', this.#first.title));
  }

  #slide() {
    const { value } = this.#slider;
    this.#stage.style.setProperty('--at', `${value}%`);
    this.#slider.setAttribute('aria-valuetext', t('compare.share', Math.round(Number(value))));
  }

  /** @param {Finished} first @param {Finished} second */
  async #show(first, second) {
    const mine = ++this.#asked;
    paint('compare-first', first);
    paint('compare-second', second);
    const { width, height } = first.image;
    this.#stage.style.aspectRatio = `${width} / ${height}`;
    this.#view.hidden = false;
    this.#slide();
    const rows = await this.#differences(first, second);
    if (mine !== this.#asked) return;
    this.#differs.replaceChildren(...rows.map(([name, ...values]) => make('tr', {},
      make('th', { scope: 'row' }, name), ...values.map((value) => make('td', {}, value)))));
    any('compare-same').hidden = rows.length > 0;
    any('compare-table').hidden = rows.length === 0;
  }

  /** Name, and the value of either. @param {Finished[]} frames @returns {Promise<[string, string, string][]>} */
  async #differences(...frames) {
    const [a, b] = await Promise.all(frames.map(async ({ parameters }) => {
      const { options, model, needs } = (parameters && await told(parameters)) || {};
      return /** @type {Record<string, unknown>} */ ({ ...options, model, loras: needs?.loras });
    }));
    return Object.keys({ ...a, ...b }).map((key) => /** @type {[string, string, string]} */ (
      [this.#called(key), words(a[key]), words(b[key])])).filter(([, one, other]) => one !== other);
  }

  /** @param {string} key */
  #called(key) {
    if (key === 'model') return t('compare.model');
    return key === 'loras' ? 'LoRA' : this.#nameOf(key);
  }
}

/** @param {unknown} value */
function words(value) {
  if (value === undefined || value === '' || (Array.isArray(value) && value.length === 0)) return '–';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** @param {string} id of a canvas @param {Finished} frame */
function paint(id, { image, title }) {
  const canvas = Object.assign(element(id, HTMLCanvasElement), { width: image.width, height: image.height });
  canvas.setAttribute('aria-label', t('picture.label', title));
  context2d(canvas).putImageData(image, 0, 0);
}
