/** Pictures, numbers as pictures, and curves. */
import { greyOf } from '../page/latents.js';
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
 * The channels of latents side by side, in rows of much the same number, in grey: nothing in the middle, `reach` to
 * either side.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values side x side numbers a channel, one after another
 * @param {number} channels
 * @param {number} [reach]
 */
export function showChannels(canvas, values, channels, reach = 3) {
  const side = Math.round(Math.sqrt(values.length / channels));
  const across = Math.ceil(Math.sqrt(channels)), down = Math.ceil(channels / across);
  Object.assign(canvas, { width: across * side, height: down * side });
  for (let channel = 0; channel < channels; channel++) {
    const image = greyOf(values, channel, { width: side, height: side, reach });
    context2d(canvas).putImageData(image, (channel % across) * side, Math.floor(channel / across) * side);
  }
  countDrawn(canvas);
}

/**
 * One number at each place, from dark to light.
 * @param {HTMLCanvasElement} canvas @param {ArrayLike<number>} values @param {number} width @param {number} height
 */
export function showMap(canvas, values, width, height) {
  const all = Array.from(values), least = Math.min(...all), span = Math.max(...all) - least || 1;
  const image = new ImageData(width, height);
  for (const [i, value] of all.entries()) {
    const grey = 255 * ((value - least) / span);
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  showPicture(canvas, image);
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
