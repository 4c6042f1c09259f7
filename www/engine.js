/**
 * The worker that owns the WebAssembly engine and the GPU device, as its callers see it; and whether there is a GPU.
 */
import { DiffusionError, aborted } from './errors.js';

/** @typedef {import('./browser-diffusion.js').Detection} Detection */

const WORKER_URL = new URL('./worker.js', import.meta.url).href;

const BROWSERS_WITH_WEBGPU =
  'Chrome, Edge and other Chromium browsers have it from version 113 on Windows and macOS, 121 on Android and 144 on ' +
  'Linux; Safari from version 26 on Mac, iPhone and iPad; Firefox from 141 on Windows and 145 on Macs with Apple ' +
  'silicon.';

/**
 * What this browser and GPU can do; never throws, downloads nothing.
 * @returns {Promise<Detection>}
 */
export async function detect() {
  try {
    const gpu = globalThis.navigator?.gpu;
    if (!gpu) {
      const reason = globalThis.isSecureContext === false
        ? 'Browsers give WebGPU only to pages that come over https:// (or from localhost). Open this page by its ' +
          'https:// address.'
        : 'This browser has no WebGPU, or has it switched off, and so cannot lend the graphics card to a page. ' +
          `Update it, or open this page in another. ${BROWSERS_WITH_WEBGPU}`;
      return { webgpu: false, reason };
    }
    const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
    if (!adapter) {
      return {
        webgpu: false,
        reason: 'This browser has WebGPU but found no graphics card that it may use. Switch on hardware acceleration ' +
          `in its settings, update the graphics driver, or try another browser. ${BROWSERS_WITH_WEBGPU}`,
      };
    }
    const { vendor, architecture, description, isFallbackAdapter } = adapter.info;
    return {
      webgpu: true,
      adapter: { vendor, architecture, description, fallback: Boolean(isFallbackAdapter) },
      shaderF16: adapter.features.has('shader-f16'),
      subgroups: adapter.features.has('subgroups'),
      maxBufferSize: adapter.limits.maxBufferSize,
      maxStorageBufferBindingSize: adapter.limits.maxStorageBufferBindingSize,
    };
  } catch (error) {
    return {
      webgpu: false,
      reason: `The graphics card could not be asked (${error instanceof Error ? error.message : error}). ` +
        'Restart the browser, or update it and the graphics driver.',
    };
  }
}

/** @typedef {{ resolve(result: any): void, reject(error: DiffusionError): void, onEvent?(event: any): void }} Call */

/**
 * The address of the worker's script. It must be of the page's origin, what it imports need not: on another site a script
 * of one line stands between. Not on our own, for Firefox asks no service worker about what such a script imports, and
 * the page would not draw without a network.
 */
function workerScript() {
  if (new URL(WORKER_URL).origin === globalThis.location?.origin) return WORKER_URL;
  const code = `import ${JSON.stringify(WORKER_URL)};`;
  return URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
}

/** One worker and the calls that wait for its answers. The worker takes the calls one after another. */
export class Engine {
  /** @type {Map<number, Call>} */ #calls = new Map();
  #nextId = 0;
  /** @type {Worker} */ #worker;
  /** @type {Promise<void>} settled when the worker listens */ #ready;
  /** @type {DiffusionError | undefined} why no call can be made any more */ #ended;

  constructor() {
    const script = workerScript();
    this.#worker = new Worker(script, { type: 'module', name: 'browser-diffusion' });
    let listening = false;
    this.#ready = new Promise((resolve) => {
      this.#worker.onmessage = ({ data }) => {
        if (data.type === 'listening') {
          listening = true;
          URL.revokeObjectURL(script);
          resolve();
        } else {
          this.#receive(data);
        }
      };
    });
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.end(listening ? stopped(event.message) : unstarted(event.message));
    };
  }

  /** @param {any} message */
  #receive({ id, event, result, error }) {
    const call = this.#calls.get(id);
    if (error?.code === 'device-lost') {
      this.end(new DiffusionError(error.code, error.message));
    } else if (!call) {
      // Stopped meanwhile: nobody waits for this any more.
    } else if (event) {
      call.onEvent?.(event);
    } else if (error) {
      call.reject(new DiffusionError(error.code, error.message));
    } else {
      call.resolve(result);
    }
  }

  /**
   * Asks the worker for something.
   * @param {string} type
   * @param {object} [payload] structured-cloneable
   * @param {{ signal?: AbortSignal, onEvent?: (event: any) => void }} [more]
   * @returns {Promise<any>}
   */
  call(type, payload, { signal, onEvent } = {}) {
    if (this.#ended) return Promise.reject(this.#ended);
    if (signal?.aborted) return Promise.reject(aborted());
    const id = this.#nextId++;
    // A signal cannot be posted. The caller is answered at once; the worker stops before its next step.
    const stop = () => {
      this.#calls.get(id)?.reject(aborted());
      this.#calls.delete(id); // now, so that a call that was not posted yet never is
      this.#worker.postMessage({ type: 'abort', id });
    };
    signal?.addEventListener('abort', stop, { once: true });
    /** @type {Promise<any>} */
    const answer = new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject, onEvent });
    });
    this.#ready.then(() => {
      if (this.#calls.has(id)) this.#worker.postMessage({ type, id, ...payload });
    });
    return answer.finally(() => {
      this.#calls.delete(id);
      signal?.removeEventListener('abort', stop);
    });
  }

  /**
   * Rejects what is waiting, leaving the worker as it is.
   * @param {DiffusionError} error
   */
  rejectAll(error) {
    for (const [id, call] of this.#calls) {
      call.reject(error);
      this.#worker.postMessage({ type: 'abort', id });
    }
    this.#calls.clear();
  }

  /**
   * Ends the worker, and with it everything that it holds on the GPU.
   * @param {DiffusionError} error what calls waiting and calls to come reject with
   */
  end(error) {
    this.#ended ??= error;
    this.rejectAll(error);
    this.#worker.terminate();
  }
}

/** @param {string} message the browser's, which may be "" */
const stopped = (message) => new DiffusionError('device-lost',
  `The engine stopped unexpectedly (${message || 'no reason given'}). Load the model again.`);

/** @param {string} message the browser's, which may be "" */
const unstarted = (message) => new DiffusionError('network',
  `The engine could not be started from ${WORKER_URL}${message ? ` (${message})` : ''}. Check the connection, and ` +
  'that the server allows other origins (CORS) and this page\'s Content-Security-Policy allows blob: workers; then ' +
  'try again.');

/**
 * Runs one thing in a worker of its own.
 * @param {string} type
 * @param {object} [payload]
 */
export async function once(type, payload) {
  const engine = new Engine();
  try {
    return await engine.call(type, payload);
  } finally {
    engine.end(aborted());
  }
}

/**
 * An engine that has loaded something, and what it says of it.
 * @param {string} type
 * @param {object} spec
 * @param {AbortSignal | undefined} signal
 * @param {((event: any) => void) | undefined} onEvent
 */
export async function loadedEngine(type, spec, signal, onEvent) {
  if (signal?.aborted) throw aborted();
  const { webgpu, reason } = await detect();
  if (!webgpu) throw new DiffusionError('webgpu-unavailable', reason ?? 'WebGPU is not available.');
  const engine = new Engine();
  try {
    return { engine, result: await engine.call(type, { spec }, { signal, onEvent }) };
  } catch (error) {
    engine.end(aborted());
    throw error;
  }
}
