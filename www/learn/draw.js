/** Pictures, numbers as pictures, and curves. */
import { paintChannels } from '../page/latents.js';
import { context2d } from '../page/ui.js';

/** @typedef {{ width: number, height: number, data: Uint8ClampedArray<ArrayBuffer> }} Picture */

/** @param {HTMLCanvasElement} canvas @param {Picture} picture @param {string} [label] */
export function showPicture(canvas, { width, height, data }, label) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  context2d(canvas).putImageData(new ImageData(data, width, height), 0, 0);
  countDrawn(canvas);
  if (label !== undefined) {
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', label);
  }
}

/** How often it was drawn, for those who wait for it. @param {HTMLCanvasElement} canvas */
function countDrawn(canvas) {
  canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
}

/**
 * The channels of latents, as {@link paintChannels} has them.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values side x side numbers a channel, one after another
 * @param {number} channels
 */
export function showChannels(canvas, values, channels) {
  const side = Math.round(Math.sqrt(values.length / channels));
  paintChannels(canvas, values, { channels, width: side, height: side, reach: 3 });
  countDrawn(canvas);
}

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
export function svg(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A rectangle of a drawing, and the numbers that its edges stand for. */
export class Axes {
  /**
   * @param {{ left: number, top: number, right: number, bottom: number }} box
   * @param {[number, number]} across @param {[number, number]} up
   */
  constructor(box, across, up) {
    this.box = box;
    this.across = across;
    this.up = up;
  }

  /** @param {number} value */
  x(value) {
    const { left, right } = this.box, [from, to] = this.across;
    return left + ((value - from) / (to - from)) * (right - left);
  }

  /** @param {number} value */
  y(value) {
    const { top, bottom } = this.box, [from, to] = this.up;
    return bottom - ((value - from) / (to - from)) * (bottom - top);
  }

  /** @param {Iterable<[number, number]>} points */
  path(points) {
    const place = (/** @type {[number, number]} */ [x, y]) => `${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`;
    return Array.from(points, (point, i) => `${i ? 'L' : 'M'}${place(point)}`).join('');
  }

  frame() {
    const { left, top, right, bottom } = this.box;
    return svg('path', { class: 'axes', d: `M${left} ${top}V${bottom}H${right}` });
  }
}
