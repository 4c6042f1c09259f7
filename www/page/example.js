/**
 * A picture that was drawn before, by the model that comes with the page, to look at step by step before anything of
 * that model is fetched. tests/web/support/example.mjs draws it.
 */
import { t } from '../messages/index.js';
import { element, input, stepWords } from './ui.js';

/** How long each step is seen, in milliseconds, where the example plays by itself. */
const PACE = 90;

/** @typedef {{ prompt: string, seed: number, width: number, height: number, steps: Noise[] }} Told of the example */
/** @typedef {{ sigma: number | null, timestep: number }} Noise no number is more than any */

/**
 * Shows it, where nothing else is shown, and plays it once.
 * @param {import('./strip.js').Strip} strip
 * @param {() => boolean} drawing
 */
async function showExample(strip, drawing) {
  const files = {
    told: new URL('../example/example.json', import.meta.url),
    picture: new URL('../example/steps.webp', import.meta.url),
  };
  const [told, picture] = await Promise.all([fetch(files.told), fetch(files.picture)]);
  if (!told.ok || !picture.ok) return; // a help, not a need
  const { prompt, seed, width, height, steps } = /** @type {Told} */ (await told.json());
  const sheet = await picture.blob();
  const pictures = await Promise.all(
    Array.from({ length: steps.length + 1 }, (_, i) => createImageBitmap(sheet, i * width, 0, width, height)),
  );
  if (strip.frames.length > 0 || drawing()) return;
  /** @type {import('./strip.js').Frame[]} */
  const frames = [];
  strip.begin(frames);
  for (const [i, preview] of pictures.entries()) {
    const step = steps[i];
    const sigma = step ? step.sigma ?? Infinity : 0;
    const said = step ? stepWords(i + 1, steps.length, { ...step, sigma })
      : { title: prompt, detail: t('example.detail', seed) };
    strip.add({ preview, sigma, ...said }, { width, height }, pictures.length);
  }
  element('canvas', HTMLCanvasElement).setAttribute('aria-label', t('example.label', prompt));
  await play(strip, frames);
}

/**
 * Before anything is drawn: the last picture of the visit before, or the example.
 * @param {import('./strip.js').Strip} strip
 * @param {import('./history.js').History} history
 * @param {() => boolean} drawing
 */
export async function showFirst(strip, history, drawing) {
  // A database may take its time, or never answer: then the example is shown.
  const late = new Promise((resolve) => setTimeout(resolve, 1000));
  await Promise.race([history.load(), late]);
  const last = await history.newest();
  if (!last) await showExample(strip, drawing);
  else if (strip.frames.length === 0 && !drawing()) strip.open(last);
}

/**
 * Once, from noise to picture; whoever takes the slider has it.
 * @param {import('./strip.js').Strip} strip
 * @param {import('./strip.js').Frame[]} frames
 */
async function play(strip, frames) {
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  let taken = false;
  for (const type of ['pointerdown', 'focus', 'input']) {
    input('scrub').addEventListener(type, () => { taken = true; }, { once: true });
  }
  for (let number = 1; number <= frames.length; number++) {
    if (taken || strip.frames !== frames) return;
    strip.look(number);
    await new Promise((resolve) => setTimeout(resolve, PACE));
  }
}
