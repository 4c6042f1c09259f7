// ./build.sh bench --vs-ort [--unet] [--no-subgroups] [--json FILE] [--adapter lavapipe|swiftshader] [--filter NAME]
//   [--precision f32|f16] [--runs N]
// The operations of www/bench/operations.js beside onnxruntime-web, in the same page on the same adapter, in turn: ours, theirs,
// ours, theirs. Both have inputs and outputs on the GPU; a run is timed from the call until the queue is empty.
// --no-subgroups: ours by the path that GPUs of wide subgroups take; theirs has what the adapter has.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SD15_UNET, operations } from '../../../www/bench/operations.js';
import { adapters, root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { writeReal } from '../support/real.mjs';

const { values: options } = parseArgs({
  options: {
    'vs-ort': { type: 'boolean' },
    unet: { type: 'boolean' },
    'no-subgroups': { type: 'boolean' },
    json: { type: 'string' },
    adapter: { type: 'string', default: adapters[0] },
    filter: { type: 'string', default: '' },
    precision: { type: 'string' },
    runs: { type: 'string', default: '5' },
  },
});

/** Latents' height and width of the UNets. */
const SIDE = 16;

/** Makes a UNet's ONNX files where they are not there yet. @param {string} name @param {string} model its diffusers folder */
function unet(name, model) {
  const folder = join(root, '.tools/onnx', name);
  // Which weights were exported.
  const { size, mtimeMs } = statSync(join(model, 'unet/diffusion_pytorch_model.safetensors'));
  const ready = join(folder, 'ready'), mark = `${size} ${Math.round(mtimeMs)}`;
  if (!existsSync(ready) || readFileSync(ready, 'utf8') !== mark) {
    const python = process.env.PYTHON ?? join(root, '.tools/reference/bin/python');
    if (!existsSync(python))
      throw new Error(
        'the UNets as ONNX need torch: make its environment with tests/reference/run.sh, or name one with PYTHON=...',
      );
    console.error(`==> exporting the UNet of ${name} (once)`);
    rmSync(folder, { recursive: true, force: true }); // the exporter overwrites nothing
    execFileSync(python, [join(root, 'tests/web/bench/unet_onnx.py'), join(model, 'unet'), String(SIDE), folder], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    writeFileSync(ready, mark);
  }
  return { name: `UNet of ${name}, ${SIDE}x${SIDE}`, folder, model: join(model, 'unet'), files: readdirSync(folder) };
}

const unets = options.unet
  ? [unet('embedded', join(root, 'www/embedded')), unet('sd15', writeReal('sd15'))].filter(u =>
      u.name.includes(options.filter),
    )
  : [];
const server = await serve({
  roots: {
    '/': join(root, 'www'),
    '/tests/': join(root, 'tests/web'),
    '/ort/': join(root, 'tests/web/node_modules/onnxruntime-web/dist'),
    ...Object.fromEntries(
      unets.flatMap((u, i) => [
        [`/unet${i}/onnx/`, u.folder],
        [`/unet${i}/model/`, u.model],
      ]),
    ),
  },
});
/** @type {any[]} */
const rows = [];
/** @type {any} */
let step;
let browser = '';
/** @param {number} ms */
const ms = ms => (ms < 100 ? ms.toFixed(1) : ms.toFixed(0)).padStart(8);
try {
  // Decomposed attention over 4096 tokens needs a buffer of half a gigabyte.
  await withBrowser(
    { adapter: options.adapter, env: { LAVAPIPE_MAX_SSBO: String(2 ** 30) } },
    async (context, errors) => {
      const page = await context.newPage();
      await page.goto(`${server.url}/tests/support/blank.html${options['no-subgroups'] ? '?no-subgroups' : ''}`);
      const call = (/** @type {string} */ name, /** @type {any[]} */ ...args) =>
        page.evaluate(
          async ({ name, args }) => (await import(/** @type {any} */ ('/tests/bench/vs-ort-page.mjs')))[name](...args),
          { name, args },
        );
      const adapter = await call('adapter');
      const subgroups = adapter.subgroup ? `subgroups of ${adapter.subgroup}` : 'no subgroups';
      console.error(`==> ${options.adapter}: ${adapter.name || adapter.architecture}, ${subgroups}`);
      console.log('operation                          precision   ours ms    ort ms   ratio  ours err   ort err');
      for (const precision of options.precision ? [options.precision] : adapter.shaderF16 ? ['f32', 'f16'] : ['f32']) {
        const work = options.unet
          ? unets.map(({ name, files }, i) => ({
              name,
              run: () =>
                call(
                  'compareUnet',
                  {
                    name,
                    folder: `/unet${i}/onnx`,
                    model: `/unet${i}/model`,
                    side: SIDE,
                    shards: files.filter(file => file.endsWith(`.${precision}.data`)),
                  },
                  precision,
                  Number(options.runs),
                ),
            }))
          : operations
              .filter(o => o.name.includes(options.filter))
              .map(({ name }) => ({ name, run: () => call('compare', name, precision, Number(options.runs)) }));
        for (const { name, run } of work) {
          const row = await run().catch(error => ({ name, precision, error: String(error) }));
          rows.push(row);
          console.log(
            row.error
              ? `${name.padEnd(34)} ${precision}  ${row.error}`
              : `${name.padEnd(34)} ${precision}      ${ms(row.ours_ms)}  ${ms(row.ort_ms)}  ` +
                  `${row.ratio.toFixed(2).padStart(6)}  ` +
                  `${row.max_err.toExponential(1)}   ${row.ort_max_err.toExponential(1)}`,
          );
        }
      }
      if (!options.unet && !options.filter) {
        step = await call('step', JSON.stringify(SD15_UNET));
        console.log(
          "a step of Stable Diffusion 1.5's UNet, 64x64 latents with guidance: " +
            `${step.dispatches} dispatches, ${step.submits} submits, ${(step.bytes / 1e9).toFixed(2)} GB moved; ` +
            `at 8x8: ${step.created} things created after the first, ${step.encode_ms.toFixed(1)} ms to encode`,
        );
      }
      browser = `Chromium ${context.browser()?.version()}`;
      errors.length = 0; // onnxruntime-web tells its warnings as errors; what matters failed above
    },
  );
} finally {
  await server.close();
}
if (options.json)
  writeFileSync(options.json, `${JSON.stringify({ adapter: options.adapter, browser, rows, step }, null, 2)}\n`);
if (rows.some(row => row.error)) process.exitCode = 1;
