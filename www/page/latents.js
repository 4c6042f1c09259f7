/** What the UNet sees of a picture: numbers, of which a picture is made here, a channel at a time. */
import { t } from '../messages/index.js';
import { any, context2d, make } from './ui.js';

/** Of one picture, NCHW. @typedef {{ values: Float32Array, channels: number }} Latents */

/**
 * How many numbers a channel has each way, of a picture's width and height.
 * @param {Latents} latents
 * @param {{ width: number, height: number }} size of the picture, in pixels
 */
export function sidesOf({ values, channels }, size) {
  const scale = Math.sqrt((size.width * size.height * channels) / values.length);
  return { width: Math.round(size.width / scale), height: Math.round(size.height / scale) };
}

/**
 * One channel in grey: nothing in the middle, `reach` to either side.
 * @param {ArrayLike<number>} values of all channels, one after another
 * @param {number} channel
 * @param {{ width: number, height: number, reach: number }} how
 */
export function greyOf(values, channel, { width, height, reach }) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const grey = 128 + (values[channel * width * height + i] / reach) * 127;
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  return image;
}

/**
 * The channels side by side, in rows of much the same number.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values of all channels, one after another
 * @param {{ channels: number, width: number, height: number, reach: number }} how
 */
export function paintChannels(canvas, values, { channels, ...how }) {
  const across = Math.ceil(Math.sqrt(channels)), down = Math.ceil(channels / across);
  Object.assign(canvas, { width: across * how.width, height: down * how.height });
  const context = context2d(canvas);
  for (let channel = 0; channel < channels; channel++) {
    const place = [(channel % across) * how.width, Math.floor(channel / across) * how.height];
    context.putImageData(greyOf(values, channel, how), place[0], place[1]);
  }
}

/**
 * Every channel, three times the usual to either side (samplers differ in how they scale noisy latents).
 * @param {Latents | undefined} latents
 * @param {{ width: number, height: number }} size of the picture, in pixels
 */
export function drawLatents(latents, size) {
  any('latents').hidden = !latents;
  if (!latents) return;
  const { values, channels } = latents, { width, height } = sidesOf(latents, size);
  if (width * height * channels !== values.length) return;
  const usual = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length) || 1;
  const shown = any('channels');
  while (shown.childElementCount > channels) shown.lastElementChild?.remove();
  for (let channel = 0; channel < channels; channel++) {
    const there = /** @type {HTMLCanvasElement | undefined} */ (shown.children[channel]);
    const canvas = there ?? shown.appendChild(make('canvas'));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context2d(canvas).putImageData(greyOf(values, channel, { width, height, reach: 3 * usual }), 0, 0);
  }
  any('latents-text').textContent = t('latents.text', channels, `${width} × ${height}`);
}
