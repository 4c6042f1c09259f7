/** Chapter 2: noise is mixed into the visitor's own picture. It needs no model: the formula is all of it. */
import { Axes, showPicture, svg } from './draw.js';
import { STEPS, alphasCumprod, normals } from './chance.js';
import { Station, frame, still } from './station.js';
import { t } from './say.js';

/** How long it plays, in milliseconds, and the step where it rests. */
const LONG = 5000, REST = 300;
/** The seed of its noise: any would do. */
const SEED = 7;

/**
 * A picture of which a share is left, the rest noise: DDPM's own way, on pixels from -1 to 1.
 * @param {ImageData} picture @param {ArrayLike<number>} noise three numbers a pixel @param {number} left alpha bar
 */
export function spoilt({ data, width, height }, noise, left) {
  const [share, rest] = [Math.sqrt(left), Math.sqrt(1 - left)];
  const made = new ImageData(width, height);
  for (let i = 0, n = 0; i < data.length; i += 4) {
    for (let c = 0; c < 3; c++) {
      made.data[i + c] = 127.5 * (1 + share * (data[i + c] / 127.5 - 1) + rest * noise[n++]);
    }
    made.data[i + 3] = 255;
  }
  return made;
}

export class Spoil extends Station {
  #subject;
  #canvas = /** @type {HTMLCanvasElement} */ (this.find('.shown'));
  #reading = this.find('.reading');
  #axes = new Axes({ left: 30, top: 12, right: 210, bottom: 112 }, [0, STEPS - 1], [0, 1]);
  #dot = svg('circle', { class: 'dot', r: 5 });
  #drop = svg('path', { class: 'drop' });
  /** @type {Float32Array} */
  #noise = new Float32Array();

  /** @param {import('./subject.js').Subject} subject */
  constructor(subject) {
    super('spoil');
    this.#subject = subject;
    const axes = this.#axes;
    const curve = alphasCumprod.map((left, step) => /** @type {[number, number]} */ ([step, left]));
    this.find('.curve').append(
      axes.frame(),
      svg('path', { class: 'line', d: axes.path(curve.filter((_, i) => i % 9 === 0)) }),
      this.#drop, this.#dot,
      svg('text', { x: 4, y: 18 }, '1'), svg('text', { x: 4, y: 114 }, '0'), svg('text', { x: 4, y: 66 }, 'ᾱ'),
      svg('text', { x: 30, y: 132 }, '0'), svg('text', { x: 210, y: 132, 'text-anchor': 'end' }, '999'),
      svg('text', { x: 120, y: 132, 'text-anchor': 'middle' }, 't'),
    );
    subject.addEventListener('change', () => this.moved());
    this.#show();
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    const from = performance.now();
    for (let done = still() ? 1 : 0; done < 1;) {
      done = Math.min(1, (performance.now() - from) / LONG);
      // There, and back to where something is left to see.
      const step = done < 0.7 ? (done / 0.7) * (STEPS - 1) : STEPS - 1 - ((done - 0.7) / 0.3) * (STEPS - 1 - REST);
      this.#put(step);
      await frame(signal);
    }
    this.#put(REST);
    this.showLink();
  }

  /** @override */
  moved() {
    this.stop();
    this.#show();
  }

  /** @param {number} step */
  #put(step) {
    this.slider.value = String(Math.round(step));
    this.#show();
  }

  #show() {
    const { picture } = this.#subject;
    const count = picture.width * picture.height * 3;
    if (this.#noise.length !== count) this.#noise = normals(count, SEED);
    const step = this.slider.valueAsNumber, left = alphasCumprod[step];
    const [share, rest] = [Math.sqrt(left), Math.sqrt(1 - left)].map((value) => value.toFixed(2));
    showPicture(this.#canvas, spoilt(picture, this.#noise, left), t('spoil.shown', step));
    const [x, y] = [this.#axes.x(step), this.#axes.y(left)];
    this.#dot.setAttribute('cx', String(x));
    this.#dot.setAttribute('cy', String(y));
    this.#drop.setAttribute('d', `M${x} ${y}V${this.#axes.box.bottom}`);
    this.output.textContent = String(step);
    this.#reading.textContent = t('spoil.reading', share, rest, left.toFixed(3));
  }
}
