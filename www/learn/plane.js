/** A piece of the plane, drawn: points, arrows, bent grids, ellipses, a field. */
import { context2d } from '../page/ui.js';

/** Half of the side of what is shown. */
export const REACH = 2.2;
/** Of a canvas, in its own pixels: sharp on fine screens, at the size that pages show. */
const SIDE = 360;

/** @typedef {ArrayLike<number>} Pairs x, y, x, y ... */

export class Plane {
  canvas;
  #context;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    canvas.width = canvas.height = SIDE;
    this.#context = context2d(canvas);
  }

  /** What a name of the style sheet stands for now, by light or dark. @param {string} name */
  #colour(name) {
    return getComputedStyle(this.canvas).getPropertyValue(`--${name}`).trim() || 'gray';
  }

  /** @param {number} x @param {number} y @returns {[number, number]} y grows upwards */
  #place(x, y) {
    return [(x / REACH + 1) * SIDE / 2, (1 - y / REACH) * SIDE / 2];
  }

  /** Where a pointer is, in the plane. @param {PointerEvent} event @returns {[number, number]} */
  under({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [(2 * (clientX - left) / width - 1) * REACH, (1 - 2 * (clientY - top) / height) * REACH];
  }

  clear() {
    this.#context.clearRect(0, 0, SIDE, SIDE);
    this.canvas.dataset.drawn = String(Number(this.canvas.dataset.drawn ?? 0) + 1);
  }

  /** @param {Pairs} pairs @param {string} colour @param {{ size?: number, alpha?: number }} [how] */
  points(pairs, colour, { size = 3, alpha = 0.7 } = {}) {
    const context = this.#context;
    context.fillStyle = this.#colour(colour);
    context.globalAlpha = alpha;
    for (let i = 0; i + 1 < pairs.length; i += 2) {
      const [x, y] = this.#place(pairs[i], pairs[i + 1]);
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
    context.globalAlpha = 1;
  }

  /** A grid of size x size points, row by row, neighbours joined. @param {Pairs} pairs @param {number} size @param {string} colour */
  grid(pairs, size, colour) {
    const context = this.#context;
    context.strokeStyle = this.#colour(colour);
    context.globalAlpha = 0.7;
    context.beginPath();
    /** @param {number} i @param {boolean} first */
    const go = (i, first) => {
      const [x, y] = this.#place(pairs[2 * i], pairs[2 * i + 1]);
      if (first) context.moveTo(x, y);
      else context.lineTo(x, y);
    };
    for (let row = 0; row < size; row++) for (let i = 0; i < size; i++) go(row * size + i, i === 0);
    for (let column = 0; column < size; column++) for (let i = 0; i < size; i++) go(i * size + column, i === 0);
    context.stroke();
    context.globalAlpha = 1;
  }

  /** A third of the way from points to where they shall go. @param {Pairs} from @param {Pairs} to @param {string} colour */
  arrows(from, to, colour) {
    const context = this.#context;
    context.strokeStyle = context.fillStyle = this.#colour(colour);
    context.lineWidth = 1.5;
    context.globalAlpha = 0.6;
    context.beginPath();
    for (let i = 0; i + 1 < from.length; i += 2) {
      const [dx, dy] = [to[i] - from[i], to[i + 1] - from[i + 1]];
      const length = Math.hypot(dx, dy) || 1, part = Math.min(length / 3, 0.2) / length;
      const [x, y] = this.#place(from[i], from[i + 1]);
      context.fillRect(x - 1.5, y - 1.5, 3, 3);
      context.moveTo(x, y);
      context.lineTo(...this.#place(from[i] + dx * part, from[i + 1] + dy * part));
    }
    context.stroke();
    context.lineWidth = context.globalAlpha = 1;
  }

  /** @param {ArrayLike<number>} ellipses x, y, and the deviation in each direction @param {string} colour */
  ellipses(ellipses, colour) {
    const context = this.#context;
    context.strokeStyle = this.#colour(colour);
    context.globalAlpha = 0.6;
    for (let i = 0; i + 3 < ellipses.length; i += 4) {
      const [x, y] = this.#place(ellipses[i], ellipses[i + 1]);
      const [width, height] = [ellipses[i + 2], ellipses[i + 3]].map((value) => Math.abs(value) / REACH * SIDE / 2);
      context.beginPath();
      context.ellipse(x, y, width, height, 0, 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  /** Size x size values from 0 to 1, rows from below. @param {ArrayLike<number>} values @param {number} size @param {string} colour */
  field(values, size, colour) {
    const context = this.#context, side = SIDE / size;
    context.fillStyle = this.#colour(colour);
    for (let i = 0; i < size * size; i++) {
      context.globalAlpha = 0.55 * Math.min(1, Math.max(0, values[i]));
      context.fillRect((i % size) * side, (size - 1 - Math.floor(i / size)) * side, side + 0.5, side + 0.5);
    }
    context.globalAlpha = 1;
  }

  /** A cross, where the keyboard is. @param {[number, number]} at */
  cross(at) {
    const context = this.#context, [x, y] = this.#place(...at);
    context.strokeStyle = this.#colour('warm');
    context.beginPath();
    context.moveTo(x - 9, y);
    context.lineTo(x + 9, y);
    context.moveTo(x, y - 9);
    context.lineTo(x, y + 9);
    context.stroke();
  }
}
