/** Starts the worker. The npm package has others in this file's place, for bundlers (tools/package/). */

/** Where its script is, as a message says it. */
export const WORKER = new URL('./worker.js', import.meta.url).href;

/**
 * A worker's script must be of the page's origin, what it imports need not: on another site a script of one line stands
 * between. Not on our own, for Firefox asks no service worker about what such a script imports, and the page would not
 * draw without a network.
 * @returns {{ worker: Worker, script?: string }} script: an address to be revoked when the worker listens
 */
export function startWorker() {
  if (new URL(WORKER).origin === globalThis.location?.origin) return { worker: begin(WORKER) };
  const code = `import ${JSON.stringify(WORKER)};`;
  const script = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  return { worker: begin(script), script };
}

/** @param {string} script */
const begin = (script) => new Worker(script, { type: 'module', name: 'browser-diffusion' });
