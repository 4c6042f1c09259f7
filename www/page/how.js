/** "How words become a picture": the stage that is at work is marked, and says afterwards what it did. */
import { number, t } from '../messages/index.js';
import { any, duration } from './ui.js';

const STAGES = /** @type {const} */ (['text', 'noise', 'unet', 'vae']);

/** @param {typeof STAGES[number]} [current] */
export function stage(current) {
  for (const name of STAGES) {
    const item = any(`stage-${name}`);
    if (name === current) item.setAttribute('aria-current', 'step');
    else item.removeAttribute('aria-current');
  }
}

/**
 * @param {import('../browser-diffusion.js').GenerateResult} result
 * @param {Float32Array} [latents]
 */
export function tell({ seed, images: [{ width, height }], timings: { textEncoder, steps, vae } }, latents) {
  const mean = steps.reduce((sum, ms) => sum + ms, 0) / Math.max(steps.length, 1);
  any('live-text').textContent = t('how.text', duration(textEncoder));
  any('live-noise').textContent = latents ? t('how.numbers', seed, number(latents.length)) : t('how.noise', seed);
  any('live-unet').textContent = `${steps.length} × ${duration(mean)}`;
  any('live-vae').textContent = t('how.vae', `${width} × ${height}`, duration(vae));
}
