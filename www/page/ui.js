/**
 * What every part of the page stands on: finding and making elements, words for figures, and the report under the
 * buttons.
 */
import { DiffusionError } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';

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
  if (!context) throw new PageError('out-of-memory', t('canvas.none'));
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
  if (ms < 1000) return t('time.ms', Math.round(ms));
  const seconds = ms / 1000;
  if (seconds < 60) return t('time.s', seconds.toFixed(seconds < 10 ? 1 : 0));
  if (seconds < 3600) return t('time.min', Math.floor(seconds / 60), Math.round(seconds % 60));
  return t('time.h', Math.floor(seconds / 3600), Math.round((seconds % 3600) / 60));
}

/** @param {number} ms */
export const left = (ms) => t('time.left', ms < 60_000 ? t('time.s', String(Math.ceil(ms / 1000))) : duration(ms));

/** @param {number} sigma */
export function sigmaText(sigma) {
  if (!(sigma < 1000)) return t('step.noise');
  return sigma.toFixed(sigma < 10 ? 2 : 1);
}

/**
 * How a step is called.
 * @param {number} step @param {number} total
 * @param {{ timestep: number, sigma: number }} noise
 */
export const stepWords = (step, total, { timestep, sigma }) => ({
  title: t('step.title', step, total),
  detail: t('step.detail', Math.round(timestep), sigmaText(sigma)),
});

/** What a picture's file is called. @param {string} prompt */
export function fileName(prompt) {
  const words = prompt.split('\n')[0].toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-');
  return words.replace(/^-|-$/g, '').slice(0, 60) || t('file.picture');
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

/** @typedef {import('../browser-diffusion.js').DiffusionErrorCode} Code */

/**
 * What to say of an error. What the engine says is English: in another language its kind is said, and what to do, and
 * what the engine says is folded below.
 * @param {Code | undefined} code
 * @param {string} message
 * @param {boolean} own the message is in the page's language
 * @returns {(Node | string)[]}
 */
export function explained(code, message, own = false) {
  if (own || !t('error.details')) return [message];
  const details = make('details', {},
    make('summary', { textContent: t('error.details') }), make('p', { lang: 'en', textContent: message }));
  return [t('error.advice', code, message), details];
}

/** An error in words, its title first. @param {unknown} error @returns {(Node | string)[]} */
export function errorWords(error) {
  const { code } = error instanceof DiffusionError ? error : { code: undefined };
  const title = make('b', { textContent: code ? t(`error.title.${code}`) : t('error.title') });
  const message = error instanceof Error ? error.message : String(error);
  return [title, ...explained(code, message, error instanceof PageError)];
}

/** @param {unknown} error */
export function showError(error) {
  problem.replaceChildren(...errorWords(error));
  problem.hidden = false;
}

export function hideError() {
  problem.hidden = true;
}

/** Does something; an error is shown. @param {() => void | Promise<void>} work */
export async function attempt(work) {
  hideError();
  try {
    await work();
  } catch (error) {
    showError(error);
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DiffusionError && error.code === 'aborted';
