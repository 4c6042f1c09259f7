/** The errors of this module. */

/** @typedef {import('./browser-diffusion.js').DiffusionErrorCode} DiffusionErrorCode */

/** Every rejection of this module is one of these. */
export class DiffusionError extends Error {
  /**
   * @param {DiffusionErrorCode} code
   * @param {string} message what happened, and what to do next
   */
  constructor(code, message) {
    super(message);
    this.name = 'DiffusionError';
    this.code = code;
  }
}

/** @param {string} message */
export const invalid = (message) => new DiffusionError('invalid-option', message);

export const aborted = () => new DiffusionError('aborted', 'Stopped, as asked. Start again whenever you like.');

/** @param {string} message why the engine stopped, "" if that is not known */
export const stopped = (message) => new DiffusionError('device-lost',
  `The engine stopped unexpectedly (${message || 'no reason given'}). Try again: the model comes back by itself, ` +
  'and nothing that was kept is lost.');

/** @param {unknown} value a value as a message shows it */
export function show(value) {
  const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
}
