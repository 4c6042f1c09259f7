/**
 * The benchmark page: the engine's operations at Stable Diffusion 1.5's shapes and its whole UNet, against what the
 * adapter was measured to do at the most. `bench.html?quick` runs everything once; `filter=NAME`, `unet=CONFIG` (the
 * address of another UNet's config.json), `side=N` and `batch=N` (of the latents) narrow it down.
 */
import '../page/languages.js';
import init, { Bench } from '../pkg/browser_diffusion.js';
import { SD15_UNET, figures, median, operations } from './operations.js';
import { t } from './messages.js';
import { measurePeaks } from './probes.js';
import { markdown, tables } from './report.js';

/**
 * @typedef {import('./report.js').Precision} Precision
 * @typedef {import('./report.js').Row} Row
 * @typedef {import('./report.js').Step} Step
 * @typedef {import('./report.js').Product} Product
 * @typedef {import('./report.js').Report} Report
 */

const query = new URLSearchParams(location.search);
const quick = query.has('quick');
/** Milliseconds that a measurement takes at least. */
const ENOUGH = quick ? 0 : 60;
const ROUNDS = quick ? 1 : 3;

/** @template {HTMLElement} T @param {string} id @returns {T} */
const element = (id) => /** @type {T} */ (document.getElementById(id));

/**
 * Milliseconds of one run: as many runs at a time as take long enough, the median of some rounds.
 * @param {import('../pkg/browser_diffusion.js').Recording} recording
 */
async function time(recording) {
  const round = async (/** @type {number} */ count) => {
    const started = performance.now();
    for (let i = 0; i < count; i++) recording.run();
    await recording.done();
    return (performance.now() - started) / count;
  };
  await round(1); // compiles
  let count = 1;
  for (let each = await round(1); each * count < ENOUGH; each = await round(count)) {
    count = Math.ceil(Math.max(count * 2, Math.min(count * 10, ENOUGH * 1.2 / Math.max(each, 0.01))));
  }
  const rounds = [];
  for (let i = 0; i < ROUNDS; i++) rounds.push(await round(count));
  return median(rounds);
}

/**
 * @param {Bench} bench
 * @param {import('./operations.js').Operation} operation
 * @param {Precision} precision
 * @param {import('./probes.js').Peaks} peaks
 * @returns {Promise<Row>}
 */
async function measureOperation(bench, operation, precision, peaks) {
  const recording = await bench.operation({ ...operation, precision });
  try {
    recording.fill();
    const ms = await time(recording);
    const dispatches = /** @type {any[]} */ (recording.dispatches());
    const total = (/** @type {'flops' | 'bytes'} */ key) => dispatches.reduce((sum, d) => sum + d[key], 0);
    const [flops, bytes] = [total('flops'), total('bytes')];
    const { name, kind } = operation;
    const of = kind === 'norm' ? 'copy' : peaks[precision] ? precision : 'f32';
    const rate = (of === 'copy' ? bytes : flops) / ms * 1000;
    const workgroups = Math.min(...dispatches.map((d) => d.workgroups));
    return { name, kind, precision, ms, flops, bytes, workgroups, of, rate, share: 0, kernel: figures(dispatches[0]) };
  } finally {
    recording.free();
  }
}

/**
 * What an operation reached can be reached, whatever the probes found: a machine that was busy then had less to give.
 * @param {Report} report
 */
function compare({ rows, peaks }) {
  for (const { of, rate } of rows) peaks[of] = Math.max(peaks[of] ?? 0, rate);
  for (const row of rows) row.share = row.rate / (peaks[row.of] ?? NaN);
}

/** @param {Bench} bench @param {string} config @param {Precision} precision @returns {Promise<Step>} */
async function measureStep(bench, config, precision) {
  const side = Number(query.get('side') ?? 64), batch = Number(query.get('batch') ?? 2);
  let started = performance.now();
  const since = () => { const ms = performance.now() - started; started = performance.now(); return ms; };
  const recording = await bench.unet({ config, precision, batch, height: side, width: side });
  try {
    recording.fill();
    await recording.done();
    const prepareMs = since();
    recording.run();
    await recording.done();
    const firstMs = since();
    const times = [];
    for (let i = 0; i < ROUNDS; i++) {
      recording.run();
      await recording.done();
      times.push(since());
    }
    // Of the last run: timing makes buffers of its own.
    const counters = /** @type {Step['counters']} */ (recording.counters());
    const timed = /** @type {any[]} */ (await recording.timed());
    const dispatches = /** @type {any[]} */ (recording.dispatches());
    return {
      precision,
      ms: median(times),
      flops: dispatches.reduce((sum, d) => sum + d.flops, 0),
      prepareMs,
      firstMs,
      memory: /** @type {any} */ (recording.memory()).peak,
      counters,
      kernels: kernelsOf(timed),
      products: productsOf(dispatches, timed),
    };
  } finally {
    recording.free();
  }
}

/** What each kernel took in all, longest first. @param {{ kernel: string, ms: number, flops: number }[]} timed */
function kernelsOf(timed) {
  /** @type {Map<string, Step['kernels'][0]>} */
  const kernels = new Map();
  for (const { kernel, ms, flops } of timed) {
    const sum = kernels.get(kernel) ?? { kernel, ms: 0, flops: 0, dispatches: 0 };
    kernels.set(kernel, { kernel, ms: sum.ms + ms, flops: sum.flops + flops, dispatches: sum.dispatches + 1 });
  }
  return [...kernels.values()].sort((a, b) => b.ms - a.ms);
}

/** What each size of product took in all, most work first. @param {any[]} dispatches @param {{ ms: number }[]} timed */
function productsOf(dispatches, timed) {
  /** @type {Map<string, Product>} */
  const products = new Map();
  dispatches.forEach((dispatch, i) => {
    const kernel = figures(dispatch);
    if (!kernel) return;
    const { size, loads, registers } = kernel, { workgroups } = dispatch;
    const name = `${dispatch.kernel === 'conv' ? 'conv' : 'GEMM'} ${size}`;
    const key = `${name} ${workgroups} ${loads}`;
    const sum = products.get(key) ?? { name, dispatches: 0, ms: 0, flops: 0, bytes: 0, workgroups, loads, registers };
    products.set(key, {
      ...sum,
      dispatches: sum.dispatches + 1,
      ms: sum.ms + (timed[i]?.ms ?? 0),
      flops: sum.flops + dispatch.flops,
      bytes: sum.bytes + dispatch.bytes,
    });
  });
  return [...products.values()].sort((a, b) => b.flops - a.flops);
}

/** The browser's name and version, as it tells them. */
function browserName() {
  const brands = /** @type {any} */ (navigator).userAgentData?.brands;
  const own = brands?.find((/** @type {any} */ b) => !/not.*brand|chromium/i.test(b.brand));
  const brand = own ?? brands?.find((/** @type {any} */ b) => b.brand === 'Chromium');
  if (brand) return `${brand.brand} ${brand.version}`;
  return navigator.userAgent.match(/(Firefox|Version|Chrome)\/[\d.]+/)?.[0] ?? navigator.userAgent;
}

const today = () => new Date().toISOString().slice(0, 10);

/** @param {HTMLTableElement} table @param {string[][]} rows */
function fill(table, rows) {
  table.hidden = rows.length === 0;
  table.replaceChildren(...table.querySelectorAll('caption'));
  rows.forEach((cells, i) => {
    const row = table.insertRow();
    cells.forEach((text, j) => {
      const cell = document.createElement(i === 0 || j === 0 ? 'th' : 'td');
      cell.scope = i === 0 ? 'col' : 'row';
      cell.textContent = text;
      row.append(cell);
    });
  });
}

/** @param {Report} report */
function show(report) {
  const { about, operations, step, products } = tables(report);
  element('about').textContent = about;
  fill(element('operations'), operations);
  fill(element('step'), step);
  fill(element('products'), products);
  element('results').hidden = false;
}

async function measure() {
  const started = performance.now();
  await init();
  const bench = await Bench.open();
  const loadMs = performance.now() - started;
  const adapter = /** @type {any} */ (bench.adapter());
  /** @type {Precision[]} */
  const precisions = adapter.shaderF16 ? ['f32', 'f16'] : ['f32'];
  const chosen = operations.filter((o) => o.name.includes(query.get('filter') ?? ''));
  const whole = /** @type {HTMLInputElement} */ (element('unet')).checked;
  const total = 1 + precisions.length * (chosen.length + (whole ? 1 : 0));
  let done = 0;
  const next = (/** @type {string} */ what) => {
    element('status').textContent = what;
    /** @type {HTMLProgressElement} */ (element('progress')).value = done++ / total;
  };
  next(t('peaks'));
  const peaks = await measurePeaks();
  /** @type {Report} */
  const report = { adapter, browser: browserName(), date: today(), loadMs, peaks, rows: [], steps: [], wrong: [] };
  for (const precision of precisions) {
    for (const operation of chosen) {
      next(`${operation.name}, ${precision}`);
      report.rows.push(await measureOperation(bench, operation, precision, peaks));
      report.wrong = bench.wrong();
      compare(report);
      show(report);
    }
  }
  if (whole) {
    const address = query.get('unet');
    const config = address ? await (await fetch(address)).text() : JSON.stringify(SD15_UNET);
    for (const precision of precisions) {
      next(t('step', precision));
      report.steps.push(await measureStep(bench, config, precision));
      report.wrong = bench.wrong();
      show(report);
    }
  }
  /** @type {HTMLProgressElement} */ (element('progress')).value = 1;
  element('status').textContent = t('done');
  return report;
}

/** What the engine says is English; in another language it is folded below what to do. @param {string} message */
function showError(message) {
  const said = t('error.details');
  if (!said) {
    element('error').textContent = message;
    return;
  }
  const details = document.createElement('details'), summary = document.createElement('summary');
  const text = Object.assign(document.createElement('p'), { lang: 'en', textContent: message });
  summary.textContent = said;
  details.append(summary, text);
  element('error').replaceChildren(t('error'), details);
}

/** @type {Report | undefined} */
let report;
element('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const start = /** @type {HTMLButtonElement} */ (element('start'));
  const copy = /** @type {HTMLButtonElement} */ (element('copy'));
  start.disabled = true;
  element('error').hidden = true;
  try {
    report = await measure();
    copy.disabled = false;
    /** @type {any} */ (window).benchmark = report; // for whoever drives the page
  } catch (error) {
    showError(/** @type {any} */ (error)?.message ?? String(error));
    element('error').hidden = false;
    element('status').textContent = t('failed');
  } finally {
    start.disabled = false;
  }
});
element('copy').addEventListener('click', async () => {
  if (!report) return;
  await navigator.clipboard.writeText(markdown(report));
  element('status').textContent = t('copied');
});
