// What four families come to that learn in Chromium (www/train.js): five seeds each, 2,000 steps, the same data and scores as
// tests/reference/train.py compare, whose rows stand beside these in docs/training.md.
//   node tests/web/bench/train.mjs [SET ...]
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

const SEEDS = [0, 1, 2, 3, 4];
const sets = process.argv.length > 2 ? process.argv.slice(2) : ['spiral', 'clusters', 'moons'];

/** In the page: one training. @param {any} options */
async function learn(options) {
  const { Trainer } = await import('/train.js');
  const trainer = await Trainer.create(options);
  const start = performance.now();
  await trainer.train(2000);
  const ms = (performance.now() - start) / 2000;
  const { onData, modes } = await trainer.score();
  trainer.dispose();
  return { ms, share: 100 * onData, modes: `${modes?.hit}/${modes?.of}` };
}

const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
try {
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    for (const data of sets) {
      for (const family of ['diffusion', 'flow', 'gan', 'vae']) {
        /** @type {{ ms: number, share: number, modes: string }[]} */
        const runs = [];
        for (const seed of SEEDS) runs.push(await page.evaluate(learn, { family, data, seed }));
        const mean = (/** @type {(run: typeof runs[0]) => number} */ of) => runs.reduce((sum, r) => sum + of(r), 0) / runs.length;
        const shares = runs.map(r => r.share.toFixed(1)).join(' ');
        console.log(`${data} ${family} on data ${mean(r => r.share).toFixed(1)} % of ${shares} ` +
          `modes ${runs.map(r => r.modes).join(' ')} ms a step ${mean(r => r.ms).toFixed(1)}`);
      }
    }
  });
} finally {
  server.close();
}
