// What the four families come to in this engine (src/train, as WebAssembly): five seeds each, 2,000 steps, the same data
// and scores as tests/reference/train.py compare, whose rows stand beside these in docs/training.md.
//   node tests/web/bench/train.mjs [SET | FAMILY ...]     after ./build.sh; some 10 s a training on a quiet core
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const pkg = fileURLToPath(new URL('../../../www/pkg', import.meta.url));
const { default: init, Trainer } = await import(join(pkg, 'browser_diffusion.js'));
await init({ module_or_path: readFileSync(join(pkg, 'browser_diffusion_bg.wasm')) });

const STEPS = 2000;
const SEEDS = [0, 1, 2, 3, 4];
const SETS = ['spiral', 'clusters', 'moons'], FAMILIES = ['diffusion', 'flow', 'gan', 'vae'];
const names = process.argv.slice(2);
const unknown = names.find(name => ![...SETS, ...FAMILIES].includes(name));
if (unknown) throw new Error(`no set and no family is named ${unknown}: ${[...SETS, ...FAMILIES].join(', ')}`);

/** Those of these that were asked for by name, or all. @param {string[]} all */
const asked = all => (all.some(name => names.includes(name)) ? all.filter(name => names.includes(name)) : all);

/** One training. @param {{ family: string, data: string, seed: number }} spec */
async function learn(spec) {
  const trainer = Trainer.create(spec);
  const start = process.cpuUsage().user;
  await trainer.train(STEPS);
  const ms = (process.cpuUsage().user - start) / 1000 / STEPS;
  const { onData, modes: [hit, of] } = trainer.score();
  trainer.free();
  return { ms, share: 100 * onData, modes: `${hit}/${of}` };
}

for (const data of asked(SETS)) {
  for (const family of asked(FAMILIES)) {
    /** @type {Awaited<ReturnType<typeof learn>>[]} */
    const runs = [];
    for (const seed of SEEDS) runs.push(await learn({ family, data, seed }));
    const mean = (/** @type {'share' | 'ms'} */ of) => runs.reduce((sum, run) => sum + run[of], 0) / runs.length;
    console.log(`${data} ${family} on data ${mean('share').toFixed(1)} % of`,
      runs.map(run => run.share.toFixed(1)).join(' '), 'modes', runs.map(run => run.modes).join(' '),
      `${mean('ms').toFixed(1)} ms of processor a step`);
  }
}
