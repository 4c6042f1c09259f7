/**
 * What every part of the page stands on: finding and making elements, words for figures, and the report under the
 * buttons.
 */
import { DiffusionError } from '../browser-diffusion.js';

// -------------------------------------------------------------------------------------------- elements

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new TypeError(`#${id} is missing`);
  return found;
}
/** @param {string} id */ export const input = (id) => element(id, HTMLInputElement);
/** @param {string} id */ export const select = (id) => element(id, HTMLSelectElement);
/** @param {string} id */ export const button = (id) => element(id, HTMLButtonElement);
/** @param {string} id */ export const details = (id) => element(id, HTMLDetailsElement);
/** @param {string} id */ export const any = (id) => element(id, HTMLElement);

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<HTMLElementTagNameMap[K]>} [properties]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A button that submits nothing. @param {Partial<HTMLButtonElement>} properties @param {(Node | string)[]} children */
export const makeButton = (properties, ...children) => make('button', { type: 'button', ...properties }, ...children);

/** @param {HTMLCanvasElement} canvas */
export function context2d(canvas) {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser gives no 2D canvas.');
  return context;
}

// ----------------------------------------------------------------------------------------------- words

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** @param {number} ms */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** @param {number} ms */
export const left = (ms) => `${ms < 60_000 ? `${Math.ceil(ms / 1000)} s` : duration(ms)} left`;

/** @param {number} sigma */
export function sigmaText(sigma) {
  if (!(sigma < 1000)) return '∞ (nothing but noise)';
  return sigma.toFixed(sigma < 10 ? 2 : 1);
}

/**
 * How a step is called.
 * @param {number} step @param {number} total
 * @param {{ timestep: number, sigma: number }} noise
 */
export const stepWords = (step, total, { timestep, sigma }) => ({
  title: `Step ${step} of ${total}`,
  detail: `timestep ${Math.round(timestep)} · noise level σ ${sigmaText(sigma)}`,
});

/** What a picture's file is called. @param {string} prompt */
export function fileName(prompt) {
  const words = prompt.split('\n')[0].toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-');
  return words.replace(/^-|-$/g, '').slice(0, 60) || 'picture';
}

/** Hands a file to the browser's downloads. @param {Blob} file @param {string} name */
export function saveFile(file, name) {
  const url = URL.createObjectURL(file);
  make('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// ---------------------------------------------------------------------------------------------- report

const status = any('status');
const progress = element('progress', HTMLProgressElement);
const progressText = any('progress-text');
const problem = any('error');

/** @param {string} message */
export function say(message) {
  status.textContent = message;
}

/**
 * @param {number | undefined} share 0..1; undefined: it moves, nobody knows how far
 * @param {string} [text] without it what stands there stays
 */
export function showProgress(share, text) {
  if (share === undefined) progress.removeAttribute('value');
  else progress.value = share;
  if (text !== undefined) progressText.textContent = text;
}

const TITLES = /** @type {Record<string, string>} */ ({
  'webgpu-unavailable': 'No GPU to draw with',
  'unsupported-model': 'This model cannot be drawn with yet',
  'bad-checkpoint': 'The model’s files are damaged or incomplete',
  network: 'The model could not be fetched',
  integrity: 'The model arrived damaged',
  quota: 'No room left to keep the model',
  'out-of-memory': 'Too big for this GPU',
  'device-lost': 'The GPU stopped answering',
  'invalid-option': 'This setting does not work',
});

/** An error in words, its title first. @param {unknown} error @returns {(Node | string)[]} */
export function errorWords(error) {
  const title = (error instanceof DiffusionError && TITLES[error.code]) || 'Something went wrong';
  return [make('b', { textContent: title }), error instanceof Error ? error.message : String(error)];
}

/** @param {unknown} error */
export function showError(error) {
  problem.replaceChildren(...errorWords(error));
  problem.hidden = false;
}

export function hideError() {
  problem.hidden = true;
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DiffusionError && error.code === 'aborted';
