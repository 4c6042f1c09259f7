/** Where a network looks at which word, as pictures. */
import { context2d, make } from './ui.js';

/** A token, or all empty places together; share: of all attention. @typedef {{ name: string, map: Float32Array, share: number }} Word */

/**
 * Words by themselves; what is empty together, for it is one thing to the eye.
 * @param {import('../browser-diffusion.js').WordMaps} maps
 * @param {(kind: 'start' | 'end' | 'padding') => string} nameOf what is no word
 * @returns {Word[]}
 */
export function wordsOf({ tokens }, nameOf) {
  /** @type {Map<string, Word>} */
  const found = new Map();
  for (const [i, { kind, text, map }] of tokens.entries()) {
    const key = kind === 'word' ? String(i) : kind;
    const name = kind === 'word' ? text.trim() : nameOf(kind);
    const share = map.reduce((sum, value) => sum + value, 0) / map.length;
    const before = found.get(key);
    if (before) {
      before.map = before.map.map((value, place) => value + map[place]);
      before.share += share;
    } else {
      found.set(key, { name, map, share });
    }
  }
  return [...found.values()];
}

/** The longest word, which is mostly the noun. @param {import('../browser-diffusion.js').WordMaps} maps */
export function longestOf({ tokens }) {
  const words = tokens.filter(({ kind }) => kind === 'word').map(({ text }) => text.trim().length);
  return 1 + Math.max(0, words.indexOf(Math.max(...words)));
}

/**
 * A picture, dark where a word does not act.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasImageSource | undefined} picture
 * @param {Float32Array} map
 * @param {{ width: number, height: number }} size of the map
 */
export function showActing(canvas, picture, map, { width, height }) {
  const context = context2d(canvas);
  context.imageSmoothingQuality = 'high';
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const most = Math.max(...map) || 1;
  const image = new ImageData(width, height);
  for (const [i, value] of map.entries()) image.data.set([20, 22, 26, 200 * (1 - value / most)], 4 * i);
  const mask = make('canvas', { width, height });
  context2d(mask).putImageData(image, 0, 0);
  context.drawImage(mask, 0, 0, canvas.width, canvas.height);
}

/**
 * One number at each place, from dark to light.
 * @param {HTMLCanvasElement} canvas @param {ArrayLike<number>} values @param {number} width @param {number} height
 */
export function showMap(canvas, values, width, height) {
  const all = Array.from(values);
  const least = all.reduce((a, b) => Math.min(a, b)), span = all.reduce((a, b) => Math.max(a, b)) - least || 1;
  const image = new ImageData(width, height);
  for (const [i, value] of all.entries()) {
    const grey = 255 * ((value - least) / span);
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  Object.assign(canvas, { width, height });
  context2d(canvas).putImageData(image, 0, 0);
}
