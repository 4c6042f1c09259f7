// ./build.sh bench --vs-ort [--json FILE] [--adapter lavapipe|swiftshader] [--filter NAME] [--precision f32|f16] [--runs N]
// The operations of www/operations.js beside onnxruntime-web, in the same page on the same adapter, in turn: ours, theirs,
// ours, theirs. Both have inputs and outputs on the GPU; a run is timed from the call until the queue is empty.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { operations } from '../../www/operations.js';
import { adapters, root, withBrowser } from './browser.mjs';
import { serve } from './hub.mjs';

const { values: options } = parseArgs({
  options: {
    'vs-ort': { type: 'boolean' }, json: { type: 'string' }, adapter: { type: 'string', default: adapters[0] },
    filter: { type: 'string', default: '' }, precision: { type: 'string' }, runs: { type: 'string', default: '5' },
  },
});

const server = await serve({ roots: {
  '/': join(root, 'www'), '/tests/': join(root, 'tests/web'), '/ort/': join(root, 'tests/web/node_modules/onnxruntime-web/dist'),
} });
/** @type {any[]} */
const rows = [];
/** @param {number} ms */
const ms = ms => (ms < 100 ? ms.toFixed(1) : ms.toFixed(0)).padStart(8);
try {
  // Decomposed attention over 4096 tokens needs a buffer of half a gigabyte.
  await withBrowser({ adapter: options.adapter, env: { LAVAPIPE_MAX_SSBO: String(2 ** 30) } }, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/tests/blank.html`);
    const call = (/** @type {string} */ name, /** @type {any[]} */ ...args) => page.evaluate(
      async ({ name, args }) => (await import(/** @type {any} */ ('/tests/vs-ort-page.mjs')))[name](...args), { name, args });
    const adapter = await call('adapter');
    console.error(`==> ${options.adapter}: ${adapter.name || adapter.architecture}`);
    console.log('operation                          precision   ours ms    ort ms   ratio  ours err   ort err');
    for (const precision of options.precision ? [options.precision] : adapter.shaderF16 ? ['f32', 'f16'] : ['f32']) {
      for (const { name } of operations.filter(o => o.name.includes(options.filter))) {
        const row = await call('compare', name, precision, Number(options.runs)).catch(error => ({ name, precision, error: String(error) }));
        rows.push(row);
        console.log(row.error ? `${name.padEnd(34)} ${precision}  ${row.error}` : `${name.padEnd(34)} ${precision}      ${ms(row.ours_ms)}  ${ms(row.ort_ms)}  ${row.ratio.toFixed(2).padStart(6)}  ${row.max_err.toExponential(1)}   ${row.ort_max_err.toExponential(1)}`);
      }
    }
    errors.length = 0; // onnxruntime-web tells its warnings as errors; what matters failed above
  });
} finally {
  await server.close();
}
if (options.json) writeFileSync(options.json, `${JSON.stringify({ adapter: options.adapter, browser: 'Chromium', rows }, null, 2)}\n`);
if (rows.some(row => row.error)) process.exitCode = 1;
