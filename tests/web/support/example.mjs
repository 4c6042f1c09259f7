// node tests/web/support/example.mjs: draws www/example/ again, the picture that the page shows before anything is
// fetched, by the embedded model itself. Needed where that model is trained anew: page.test.mjs says so.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { adapters, root, withBrowser } from './browser.mjs';
import { serve } from './serve.mjs';

/** The smallest at which no eye sees the difference. */
const QUALITY = 0.6;
/** As the page's form stands when it is opened; of the first seeds this apple is a plain one. */
const asked = { prompt: 'a red apple', seed: 1, numInferenceSteps: 20, preview: 'full' };

/** In the page. @param {{ asked: any, quality: number }} how */
async function draw({ asked, quality }) {
  const { DiffusionPipeline } = await import(/** @type {any} */ ('/browser-diffusion.js'));
  const pipeline = await DiffusionPipeline.fromPretrained('embedded');
  /** @type {{ sigma: number, timestep: number }[]} */
  const steps = [];
  /** @type {ImageBitmap[]} */
  const frames = [];
  const { images: [image] } = await pipeline.generate({
    ...asked,
    onStep(/** @type {any} */ { sigma, timestep, preview }) {
      steps.push({ sigma: Number(sigma.toFixed(4)), timestep: Math.round(timestep) });
      frames.push(preview);
    },
  });
  const { width, height, data } = image;
  frames.push(await createImageBitmap(new ImageData(data, width, height)));
  const canvas = new OffscreenCanvas(width * frames.length, height);
  for (const [i, frame] of frames.entries()) canvas.getContext('2d')?.drawImage(frame, i * width, 0, width, height);
  const blob = await canvas.convertToBlob({ type: 'image/webp', quality });
  const bytes = [...new Uint8Array(await blob.arrayBuffer())];
  const { prompt, seed } = asked;
  return { bytes, told: { prompt, seed, width, height, steps } };
}

const server = await serve(join(root, 'www'), 0, { '/blank.html': '<!doctype html>' });
try {
  const { bytes, told } = await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}blank.html`);
    return page.evaluate(draw, { asked, quality: QUALITY });
  });
  const folder = join(root, 'www/example');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'steps.webp'), Buffer.from(bytes));
  writeFileSync(join(folder, 'example.json'), `${JSON.stringify(told)}\n`);
  console.log(`${folder}: ${bytes.length} bytes of pictures`);
} finally {
  server.close();
}
process.exit();
