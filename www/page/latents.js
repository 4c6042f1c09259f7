/** What the UNet sees of a picture. */
import { t } from '../messages/index.js';
import { any, context2d, make } from './ui.js';

const CHANNELS = 4;

/**
 * The four channels in grey: nothing in the middle, three times the usual to either side (samplers differ in how they
 * scale noisy latents).
 * @param {Float32Array | undefined} latents
 * @param {{ width: number, height: number }} size of the picture, in pixels
 */
export function drawLatents(latents, size) {
  any('latents').hidden = !latents;
  if (!latents) return;
  const scale = Math.sqrt((size.width * size.height * CHANNELS) / latents.length);
  const width = Math.round(size.width / scale), height = Math.round(size.height / scale);
  if (width * height * CHANNELS !== latents.length) return;
  const usual = Math.sqrt(latents.reduce((sum, value) => sum + value * value, 0) / latents.length) || 1;
  const channels = any('channels');
  for (let channel = 0; channel < CHANNELS; channel++) {
    const there = /** @type {HTMLCanvasElement | undefined} */ (channels.children[channel]);
    const canvas = there ?? channels.appendChild(make('canvas'));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      const grey = 128 + (latents[channel * width * height + i] / (3 * usual)) * 127;
      image.data.set([grey, grey, grey, 255], i * 4);
    }
    context2d(canvas).putImageData(image, 0, 0);
  }
  any('latents-text').textContent = t('latents.text', CHANNELS, `${width} × ${height}`);
}
