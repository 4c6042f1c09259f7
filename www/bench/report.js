/** What was measured, as tables: for the page, and as Markdown. */
import { t } from './messages.js';

/**
 * @typedef {'f32' | 'f16'} Precision
 *
 * @typedef {object} Row one operation
 * @property {string} name
 * @property {string} kind
 * @property {Precision} precision
 * @property {number} ms
 * @property {number} flops
 * @property {number} bytes
 * @property {number} workgroups
 * @property {keyof import('./probes.js').Peaks} of which peak is its own: FLOP/s or (for norms) bytes/s
 * @property {number} rate in the unit of that peak
 * @property {number} share of that peak, which is the most that a probe or an operation reached
 * @property {{ loads: number, registers: number }} [kernel] see `figures`
 *
 * @typedef {object} Step one step of the UNet
 * @property {Precision} precision
 * @property {number} ms
 * @property {number} flops
 * @property {number} prepareMs
 * @property {number} firstMs
 * @property {number} memory
 * @property {{ dispatches: number, submits: number, bytes: number, created: number, encodeMs: number }} counters
 * @property {Kernel[]} kernels empty without timestamp queries
 * @property {Product[]} products
 *
 * @typedef {{ kernel: string, ms: number, flops: number, dispatches: number }} Kernel
 *
 * @typedef {object} Product all matrix multiplies or convolutions of one size, by the same kernel
 * @property {string} name
 * @property {number} dispatches
 * @property {number} ms 0 without timestamp queries
 * @property {number} flops
 * @property {number} bytes
 * @property {number} workgroups
 * @property {number} loads
 * @property {number} registers
 *
 * @typedef {object} Report
 * @property {any} adapter
 * @property {string} browser
 * @property {string} date
 * @property {number} loadMs
 * @property {import('./probes.js').Peaks} peaks
 * @property {Row[]} rows
 * @property {Step[]} steps
 * @property {string[]} wrong kernels that came out wrong, and are not used
 */

/** @param {number} value */
const digits = (value) => value >= 100 ? value.toFixed(0) : value >= 0.01 ? value.toPrecision(3) : value.toPrecision(2);

const PRODUCT_FIGURES = [t('head.workgroups'), t('head.bytes'), t('head.loads'), t('head.registers')];

/**
 * @param {Report} report
 * @returns {{ about: string, operations: string[][], step: string[][], products: string[][] }} heads first
 */
export const tables = (report) => ({
  about: about(report), operations: operations(report), step: step(report), products: products(report),
});

/** @param {Report} report */
function about({ adapter, browser, date, loadMs, peaks, wrong }) {
  return t('about', {
    name: [adapter.vendor, adapter.architecture, adapter.name].filter(Boolean).join(' ') || t('unnamed'),
    subgroups: adapter.subgroup, browser, date, peak: digits(peaks.f32 / 1e12),
    half: peaks.f16 && digits(peaks.f16 / 1e12), copy: digits(peaks.copy / 1e9), load: digits(loadMs),
    wrong: wrong.join(', '),
  });
}

/** @param {Report} report */
function operations({ rows }) {
  return [
    [t('head.operation'), t('head.precision'), 'ms', 'TFLOP/s', 'GB/s', t('head.peak'), ...PRODUCT_FIGURES],
    ...rows.map(({ name, precision, ms, flops, bytes, share, workgroups, kernel }) => [
      name, precision, digits(ms), digits(flops / ms / 1e9), digits(bytes / ms / 1e6), `${digits(share * 100)} %`,
      String(workgroups), digits(bytes / flops),
      ...(kernel ? [digits(kernel.loads), String(kernel.registers)] : ['', '']),
    ]),
  ];
}

/** @param {Report} report */
function step({ steps }) {
  if (steps.length === 0) return [];
  const kernels = new Set(steps.flatMap((s) => s.kernels.map((k) => k.kernel)));
  return [
    [t('head.what'), ...steps.map((s) => s.precision)],
    [t('row.step'), ...steps.map((s) => digits(s.ms))],
    ['TFLOP/s', ...steps.map((s) => digits(s.flops / s.ms / 1e9))],
    [t('row.prepare'), ...steps.map((s) => digits(s.prepareMs))],
    [t('row.first'), ...steps.map((s) => digits(s.firstMs))],
    [t('row.memory'), ...steps.map((s) => digits(s.memory / 1e6))],
    [t('row.counters'), ...steps.map((s) => `${s.counters.dispatches}, ${s.counters.submits}`)],
    [t('row.moved'), ...steps.map((s) => digits(s.counters.bytes / 1e9))],
    [t('row.encoding'), ...steps.map((s) => digits(s.counters.encodeMs))],
    ...[...kernels].map((name) => [t('row.kernel', name), ...steps.map((s) => {
      const kernel = s.kernels.find((k) => k.kernel === name);
      return kernel ? `${digits(kernel.ms)} (${digits(kernel.flops / kernel.ms / 1e9)} TFLOP/s)` : '';
    })]),
  ];
}

/** @param {Report} report */
function products({ steps, peaks }) {
  if (steps.length === 0) return [];
  return [
    [
      t('head.product'), t('head.precision'), t('head.dispatches'), 'ms', 'TFLOP/s', t('head.peak'), ...PRODUCT_FIGURES,
    ],
    ...steps.flatMap(({ precision, products }) => products.map(({ name, dispatches, ms, flops, bytes, ...kernel }) => {
      const share = flops / ms * 1e5 / (peaks[precision] ?? peaks.f32);
      const timed = ms ? [digits(ms), digits(flops / ms / 1e9), `${digits(share)} %`] : ['', '', ''];
      return [
        name, precision, String(dispatches), ...timed, String(kernel.workgroups), digits(bytes / flops),
        digits(kernel.loads), String(kernel.registers),
      ];
    })),
  ];
}

/** The report as Markdown. @param {Report} report */
export function markdown(report) {
  const { about, operations, step, products } = tables(report);
  const table = (/** @type {string[][]} */ rows) => {
    const [head, ...lines] = rows.map((cells) => `| ${cells.join(' | ')} |`);
    return [head, `|${'---|'.repeat(rows[0].length)}`, ...lines].join('\n');
  };
  return [about, table(operations), ...(step.length ? [table(step), table(products)] : [])].join('\n\n');
}
