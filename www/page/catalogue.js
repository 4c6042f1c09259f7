/**
 * The models that the page offers (models.json), and what one costs here, said before a byte of it is fetched.
 */

/** @typedef {'f16' | 'q8' | 'q4'} Weights */
/**
 * @typedef {object} Entry bytes of models.json
 * @property {string} name
 * @property {string} source a Hub id
 * @property {string} revision
 * @property {string} [variant]
 * @property {string} licence
 * @property {string} about
 * @property {{ steps: number, guidance: number, scheduler: string, width: number, height: number }} defaults
 * @property {number} download
 * @property {Record<Weights, number>} kept
 * @property {Record<Weights, { resident: number, low: number }>} gpu
 */
/** @typedef {{ name: string, bytes: number, complete: boolean }} Kept */
/**
 * @typedef {object} Cost in bytes
 * @property {number} download
 * @property {number} keeps of storage
 * @property {number} loading of storage, at most, while it loads
 * @property {number} free of storage
 * @property {number} gpu
 * @property {boolean} low one part of the model is on the GPU at a time
 * @property {boolean} keepable
 * @property {('no-webgpu' | 'software' | 'storage' | 'gpu')[]} problems
 */

/** @returns {Promise<{ models: Entry[], embedded?: { download: number } }>} embedded: the model of the page's own */
export async function readCatalogue() {
  try {
    return await (await fetch(new URL('../models.json', import.meta.url))).json();
  } catch {
    return { models: [] }; // the page goes without
  }
}

/** What the cache calls a model. @param {{ source: string, revision?: string }} model @param {Weights} weights */
export const keptName = ({ source, revision = 'main' }, weights) =>
  `${source}${revision === 'main' ? '' : `@${revision}`}${weights === 'f16' ? '' : ` (${weights})`}`;

/**
 * A name that the cache gives, as a source and the kind of weights.
 * @param {string} name
 * @returns {{ source: string, weights: Weights }}
 */
export function readKeptName(name) {
  const [, source, weights = 'f16'] = /^(.*?)(?: \((q8|q4)\))?$/.exec(name) ?? [];
  return { source, weights: /** @type {Weights} */ (weights) };
}

/** The source field's text: "owner/name@revision" names a revision. @param {string} text */
export function readSource(text) {
  const [, source, revision] = /^([\w.-]+\/[\w.-]+)@([\w./-]+)$/.exec(text) ?? [];
  return source ? { source, revision } : { source: text };
}

/**
 * What a model costs, and whether this browser and GPU can do it.
 * @param {Entry} entry
 * @param {object} here
 * @param {Weights} here.weights
 * @param {boolean} here.low as little GPU memory as possible is asked for
 * @param {Kept[]} here.kept
 * @param {{ usage: number, quota: number }} here.estimate
 * @param {import('../browser-diffusion.js').Detection} here.gpu
 * @returns {Cost}
 */
export function cost(entry, { weights, low, kept, estimate, gpu }) {
  const has = (/** @type {Weights} */ kind) =>
    kept.some(({ name, complete }) => complete && name === keptName(entry, kind));
  const download = has(weights) || has('f16') ? 0 : entry.download;
  const keeps = entry.kept[weights];
  // Quantised weights are kept beside the files that they are made of until these have been read.
  const loading = has(weights) ? 0 : keeps + (weights === 'f16' ? 0 : download);
  const free = Math.max(0, estimate.quota - estimate.usage);
  const largest = gpu.maxBufferSize ?? 0;
  // As the engine does, which knows no more of the card: twice its largest buffer is what it is trusted with.
  const one = low || keeps > 2 * largest;
  const need = entry.gpu[weights][one ? 'low' : 'resident'];
  const keepable = loading <= free;
  /** @type {Cost['problems']} */
  const problems = [];
  if (!gpu.webgpu) problems.push('no-webgpu');
  else if (gpu.adapter?.fallback) problems.push('software');
  if (!keepable) problems.push('storage');
  if (gpu.webgpu && need > 2 * largest) problems.push('gpu');
  return { download, keeps, loading, free, gpu: need, low: one, keepable, problems };
}
