/**
 * The worker that owns the WebAssembly engine and the GPU device, as its callers see it; and whether there is a GPU.
 */
import { DiffusionError, aborted, stopped } from './errors.js';
import { WORKER, startWorker } from './start-worker.js';

/** @typedef {import('./browser-diffusion.js').Detection} Detection */

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

/** One worker and the calls that wait for its answers. The worker takes the calls one after another. */
export class Engine {
  /** @type {Map<number, Call>} */ #calls = new Map();
  #nextId = 0;
  /** @type {Worker} */ #worker;
  /** @type {Promise<void>} settled when the worker listens */ #ready;
  /** @type {DiffusionError | undefined} why no call can be made any more */ #ended;
  /**
   * A page that is left may be kept, to be come back to: not with the memory of its GPU. What is loaded comes again with
   * the next call.
   */
  #left = () => this.end(new DiffusionError('aborted', 'The page was left while this ran. Start it again.'));

  constructor() {
    const { worker, script } = begun();
    this.#worker = worker;
    globalThis.addEventListener?.('pagehide', this.#left);
    let listening = false;
    this.#ready = new Promise((resolve) => {
      this.#worker.onmessage = ({ data }) => {
        if (data.type === 'listening') {
          listening = true;
          if (script) URL.revokeObjectURL(script);
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

  /** Whether it takes no more calls. */
  get ended() {
    return this.#ended !== undefined;
  }

  /** @param {any} message */
  #receive({ id, event, result, error, lost }) {
    const call = this.#calls.get(id);
    if (lost) {
      this.end(lostBetween());
    } else if (error?.code === 'device-lost') {
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
    globalThis.removeEventListener?.('pagehide', this.#left);
    this.#worker.terminate();
  }
}

/** @type {WeakSet<Error>} of calls that were not begun: the GPU was lost while nobody used it */
const notBegun = new WeakSet();

function lostBetween() {
  const error = stopped('the GPU was taken away');
  notBegun.add(error);
  return error;
}

/** A worker; where the page may have none, a typed error says so. */
function begun() {
  try {
    return startWorker();
  } catch (error) {
    throw unstarted(error instanceof Error ? error.message : String(error));
  }
}

/** @param {string} message the browser's, which may be "" */
const unstarted = (message) => new DiffusionError('network',
  `The engine could not be started from ${WORKER}${message ? ` (${message})` : ''}. Check the connection, and ` +
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

/** Something that was loaded. Where its engine was lost, the next call loads it again, from the cache where it is kept. */
export class Loaded {
  #type;
  #spec;
  #onEvent;
  #engine;
  /** @type {Promise<void> | undefined} */ #coming;
  /** @type {DiffusionError | undefined} why no call can be made any more */ #ended;

  /**
   * @param {string} type
   * @param {object} spec
   * @param {((event: any) => void) | undefined} onEvent
   * @param {Engine} engine that has it
   */
  constructor(type, spec, onEvent, engine) {
    this.#type = type;
    this.#spec = spec;
    this.#onEvent = onEvent;
    this.#engine = engine;
  }

  /**
   * Loads it, and gives what the engine says of it.
   * @param {string} type
   * @param {object} spec
   * @param {AbortSignal} [signal]
   * @param {(event: any) => void} [onEvent]
   */
  static async load(type, spec, signal, onEvent) {
    const { engine, result } = await loadedEngine(type, spec, signal, onEvent);
    return { loaded: new Loaded(type, spec, onEvent, engine), result };
  }

  /**
   * Asks the engine for something.
   * @param {string} type
   * @param {object} [payload] structured-cloneable
   * @param {{ signal?: AbortSignal, onEvent?: (event: any) => void }} [more]
   * @returns {Promise<any>}
   */
  async call(type, payload, more = {}) {
    const engine = this.#usable() ?? await this.#again(more.signal);
    try {
      return await engine.call(type, payload, more);
    } catch (error) {
      if (!notBegun.has(/** @type {Error} */ (error)) || this.#ended) throw error;
      const next = this.#usable() ?? await this.#again(more.signal);
      return next.call(type, payload, more);
    }
  }

  #usable() {
    return this.#engine.ended && !this.#ended ? undefined : this.#engine;
  }

  /** @param {AbortSignal} [signal] of the call that waits; what is loaded serves the next one too */
  async #again(signal) {
    this.#coming ??= this.#load().finally(() => { this.#coming = undefined; });
    await (signal ? Promise.race([this.#coming, stop(signal)]) : this.#coming);
    return this.#engine;
  }

  async #load() {
    const { engine } = await loadedEngine(this.#type, this.#spec, undefined, this.#onEvent);
    this.#engine = engine;
    if (this.#ended) engine.end(this.#ended);
  }

  /** Frees all of it. @param {DiffusionError} error what calls waiting and calls to come reject with */
  async end(error) {
    this.#ended ??= error;
    this.#engine.rejectAll(error);
    try {
      await this.#engine.call('dispose');
    } catch {
      // A worker that was lost holds nothing any more.
    } finally {
      this.#engine.end(error);
    }
  }
}

/** Rejects when it is stopped. @param {AbortSignal} signal @returns {Promise<never>} */
const stop = (signal) => new Promise((_, reject) => {
  if (signal.aborted) reject(aborted());
  signal.addEventListener('abort', () => reject(aborted()), { once: true });
});
