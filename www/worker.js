/**
 * The worker: owns the WebAssembly engine and, through it, the GPU device. It answers the calls of engine.js one after
 * another; only "abort" acts at once.
 */
import init, {
  DoodleTrainer, Pipeline, Trainer, Upscaler, cacheDelete, cacheList, canny, softedge,
} from './pkg/browser_diffusion.js';
import { place } from './addresses.js';
import { stopped } from './errors.js';
import { keepTuning, keptTunings } from './kept-choices.js';

const engine = init();
engine.catch(() => {}); // the first call reports it

/** @type {Pipeline | undefined} */
let pipeline;
/** @type {Upscaler | undefined} */
let upscaler;
/** @type {Trainer | DoodleTrainer | undefined} */
let trainer;

/** @type {Map<number, AbortController>} calls that wait or run */
const calls = new Map();
/** @type {Promise<unknown>} the call before */
let queue = Promise.resolve();

/** Stops the timing of kernels that goes on between calls. */
let idle = new AbortController();
/** Milliseconds that it may take yet. */
let spare = 10_000;

self.onmessage = ({ data }) => {
  if (data.type === 'abort') {
    calls.get(data.id)?.abort();
    return;
  }
  idle.abort();
  const controller = new AbortController();
  calls.set(data.id, controller);
  queue = queue.then(() => answer(data, controller.signal)).finally(() => calls.delete(data.id));
  if (data.type === 'generate') queue = queue.then(tuneBetween);
};
self.postMessage({ type: 'listening' });

/**
 * @param {any} call
 * @param {AbortSignal} signal
 */
async function answer(call, signal) {
  try {
    if (signal.aborted) return; // the module answered the caller when it aborted
    await started();
    if (pipeline?.lost() || upscaler?.lost()) {
      // It happened while nobody asked for anything: no work is lost, and engine.js loads the model again for this call.
      self.postMessage({ id: call.id, lost: true });
      return;
    }
    const { result, transfer } = await perform(call, signal);
    self.postMessage({ id: call.id, result }, { transfer });
  } catch (error) {
    self.postMessage({ id: call.id, error: describe(error) });
  }
}

/** The engine has been fetched and compiled. */
async function started() {
  try {
    await engine;
  } catch (error) {
    const reason = /** @type {Error} */ (error)?.message ?? error;
    const message = `The engine could not be fetched (${reason}). Check the connection, then try again.`;
    throw { code: 'network', message };
  }
}

/**
 * @param {any} call
 * @param {AbortSignal} signal
 * @returns {Promise<{ result?: any, transfer?: Transferable[] }>}
 */
async function perform(call, signal) {
  /** @param {any} event @param {Transferable[]} [transfer] */
  const send = (event, transfer = []) => self.postMessage({ id: call.id, event }, { transfer });
  switch (call.type) {
    case 'load':
      place(call.spec);
      place(call.spec.vae);
      pipeline = await alone(call.spec, signal,
        async () => Pipeline.load(call.spec, send, signal, await keptTunings()));
      await keepTimed(pipeline);
      return { result: pipeline.model() };
    case 'generate': {
      const onStep = call.steps ? (/** @type {any} */ step) => send(...packStep(step)) : () => {};
      // wasm-bindgen's types say "object" and no more.
      const result = /** @type {any} */ (await loaded().generate(call.options, onStep, signal));
      const { latents, images } = result;
      return {
        result,
        transfer: [...latents, ...images.map((/** @type {ImageData} */ i) => i.data)].map((array) => array.buffer),
      };
    }
    case 'encode':
    case 'decode':
    case 'noise':
    case 'schedule':
    case 'addNoise':
    case 'predict': {
      const result = /** @type {any} */ (await loaded()[/** @type {'predict'} */ (call.type)](call.options, signal));
      return { result, transfer: buffers(result) };
    }
    case 'tokenize':
      return { result: await loaded().tokenize(call.options, signal) };
    case 'loadUpscaler':
      upscaler = await Upscaler.load(call.spec, send, signal);
      return { result: upscaler.scale() };
    case 'upscale': {
      if (!upscaler) {
        throw { code: 'invalid-option', message: 'No upscaler is loaded; load one with Upscaler.fromPretrained.' };
      }
      const onTile = (/** @type {number} */ done, /** @type {number} */ total) => send({ done, total });
      const result = /** @type {any} */ (await upscaler.upscale(call.options, onTile, signal));
      return { result, transfer: [result.data.buffer] };
    }
    case 'tuning':
      return { result: loaded().tuning() };
    case 'tune':
      await loaded().tune(call.milliseconds);
      await keepTimed(loaded());
      return { result: loaded().tuning() };
    case 'canny':
    case 'softedge': {
      const result = /** @type {any} */ (await (call.type === 'canny' ? canny : softedge)(call.spec));
      return { result, transfer: [result.data.buffer] };
    }
    case 'train':
      return { result: await learn(call.method, call.args) };
    case 'memory':
      return { result: await loaded().memory() };
    case 'dispose':
      pipeline?.free();
      upscaler?.free();
      pipeline = upscaler = undefined;
      return {};
    case 'cacheList':
      return { result: await cacheList() };
    case 'cacheDelete':
      await cacheDelete(call.name);
      return {};
    default:
      throw new TypeError(`no call "${call.type}"`);
  }
}

/**
 * Does the work while no other tab of this origin loads the same model into the cache: two tabs fetch it once.
 * @template T
 * @param {any} spec
 * @param {AbortSignal} signal
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function alone({ source, revision, hub, weights, cache, files }, signal, work) {
  if (!cache) return work();
  const model = JSON.stringify([files ? `disk:${source}` : source, revision, hub, weights]);
  return navigator.locks.request(`browser-diffusion ${model}`, { signal }, work);
}

/** Keeps what was timed in this session. @param {Pipeline} pipeline */
async function keepTimed(pipeline) {
  const tuning = /** @type {any} */ (pipeline.tuning());
  if (tuning.origin === 'timed') await keepTuning(tuning);
}

/** After a picture, while nobody asks for anything: what the load did not reach is timed, for the next visit. */
async function tuneBetween() {
  if (calls.size > 0 || spare <= 0) return;
  idle = new AbortController();
  const started = performance.now();
  try {
    if (!pipeline?.toTune()) return;
    await keepTuning(/** @type {any} */ (await pipeline.tuneLater(spare, idle.signal)));
  } catch {
    spare = 0; // what is wrong with the GPU, the next call says
  }
  spare -= performance.now() - started;
}

/**
 * What learns in this worker (train.js): made anew, or asked.
 * @param {string} method
 * @param {any[]} args
 */
async function learn(method, args) {
  if (method === 'create') {
    trainer = (args[0].drawings ? DoodleTrainer : Trainer).create(args[0]);
    if (args[0].device === 'gpu') await /** @type {Trainer} */ (trainer).open();
    return trainer.about();
  }
  return /** @type {any} */ (trainer)[method](...args);
}

function loaded() {
  if (!pipeline) throw { code: 'invalid-option', message: 'No model is loaded; load one with fromPretrained.' };
  return pipeline;
}

/** Everything in a result that is moved instead of copied. @param {any} value @returns {ArrayBuffer[]} */
function buffers(value) {
  if (ArrayBuffer.isView(value)) return [/** @type {ArrayBuffer} */ (value.buffer)];
  return value && typeof value === 'object' ? Object.values(value).flatMap(buffers) : [];
}

/**
 * A step with its preview as a bitmap, and what to move instead of copying.
 * @param {any} step
 * @returns {[any, Transferable[]]}
 */
function packStep({ preview, ...step }) {
  /** @type {Transferable[]} */
  const transfer = buffers(step);
  let bitmap;
  if (preview) {
    // Unlike createImageBitmap this is done at once, so that steps arrive in order and before the result.
    const canvas = new OffscreenCanvas(preview.width, preview.height);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context?.putImageData(new ImageData(preview.data, preview.width, preview.height), 0, 0);
    bitmap = canvas.transferToImageBitmap();
    transfer.push(bitmap);
  }
  return [{ ...step, preview: bitmap }, transfer];
}

/**
 * An error as it travels. The engine's own have a code; anything else means that it broke, and what it
 * holds cannot be trusted any more.
 * @param {any} error
 */
function describe(error) {
  if (typeof error?.code === 'string') return { code: error.code, message: error.message };
  const message = error?.message ?? String(error);
  if (error?.name === 'AbortError') return { code: 'aborted', message };
  return { code: 'device-lost', message: stopped(message).message };
}
