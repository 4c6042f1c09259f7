/**
 * browser-diffusion: Stable Diffusion in a browser tab, on the visitor's own GPU.
 *
 * The public module. It checks what it is asked, starts the worker that owns the WebAssembly engine and
 * the GPU device, and speaks with it. Nothing here touches the DOM, and importing it does nothing else,
 * so that it can be imported from another origin, in a worker, or where there is no WebGPU at all.
 * The types, with their documentation, are in browser-diffusion.d.ts.
 *
 * @module
 */

/**
 * @typedef {import('./browser-diffusion.js').DiffusionErrorCode} DiffusionErrorCode
 * @typedef {import('./browser-diffusion.js').Detection} Detection
 * @typedef {import('./browser-diffusion.js').LoadOptions} LoadOptions
 * @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions
 * @typedef {import('./browser-diffusion.js').GenerateResult} GenerateResult
 * @typedef {import('./browser-diffusion.js').Model} Model
 * @typedef {import('./browser-diffusion.js').Progress} Progress
 * @typedef {import('./browser-diffusion.js').Step} Step
 */

import { modelOf, optionsOf, parametersIn, withMore } from './metadata.js';

const WORKER_URL = new URL('./worker.js', import.meta.url).href;
const EMBEDDED_URL = new URL('./embedded/', import.meta.url).href;
const HUB = 'https://huggingface.co';

/** The samplers, and the schedules that most of them take: the engine's own lists, which a test compares with these. */
const SAMPLERS = [
  'ddpm', 'ddim', 'ddim_cfgpp', 'pndm', 'euler', 'euler_a', 'heun', 'lms', 'dpm2', 'dpm2_a', 'dpmpp_2s', 'dpmpp_2s_a', 'dpmpp_2m',
  'dpmpp_sde', 'dpmpp_2m_sde', 'dpmpp_3m_sde', 'dpm_fast', 'dpm_adaptive', 'restart', 'unipc', 'deis', 'ipndm', 'lcm', 'tcd',
];
const SCHEDULES = [
  'karras', 'exponential', 'polyexponential', 'sgm_uniform', 'simple', 'normal', 'ddim_uniform', 'beta', 'kl_optimal', 'align_your_steps',
];
const WITHOUT_SCHEDULE = ['pndm', 'dpm_fast', 'dpm_adaptive'];

/** Every name that `scheduler` takes, but for those of A1111 and diffusers, which the engine knows. */
const SCHEDULERS = Object.freeze(SAMPLERS.flatMap((name) =>
  [name, ...(WITHOUT_SCHEDULE.includes(name) ? [] : SCHEDULES.map((schedule) => `${name}_${schedule}`))]));

const BROWSERS_WITH_WEBGPU =
  'Chrome, Edge and other Chromium browsers have it from version 113 on Windows and macOS, 121 on Android and 144 on ' +
  'Linux; Safari from version 26 on Mac, iPhone and iPad; Firefox from 141 on Windows and 145 on Macs with Apple silicon.';

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
const invalid = (message) => new DiffusionError('invalid-option', message);

// ---------------------------------------------------------------------------------------------- detect

/**
 * What this browser and GPU can do; never throws, downloads nothing.
 * @returns {Promise<Detection>}
 */
export async function detect() {
  try {
    const gpu = globalThis.navigator?.gpu;
    if (!gpu) {
      const reason = globalThis.isSecureContext === false
        ? 'Browsers give WebGPU only to pages that come over https:// (or from localhost). Open this page by its https:// address.'
        : `This browser has no WebGPU, or has it switched off, and so cannot lend the graphics card to a page. Update it, or open this page in another. ${BROWSERS_WITH_WEBGPU}`;
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

// ------------------------------------------------------------------------------------ the options' rules

/**
 * A rule looks at one option's value and returns what is wrong with it, or nothing.
 * @typedef {(value: any) => string | undefined} Rule
 */

/** @type {Rule} */ const text = (v) => (typeof v === 'string' ? undefined : 'must be a string');
/** @type {Rule} */ const callback = (v) => (typeof v === 'function' ? undefined : 'must be a function');
/** @type {Rule} */ const flag = (v) => (typeof v === 'boolean' ? undefined : 'must be true or false');
/** @type {Rule} */ const abortSignal = (v) =>
  (typeof v?.aborted === 'boolean' && typeof v.addEventListener === 'function' ? undefined : 'must be an AbortSignal');
/** @type {Rule} */ const imageSource = (v) =>
  (typeof v === 'string' || v instanceof GeneratedImage || drawable().some((type) => v instanceof type) ? undefined : 'must be a picture: a Blob, ImageData, ImageBitmap, <img>, canvas or an address');
/** @type {Rule} */ const modelSource = (v) => (typeof v === 'string' || typeof v === 'object' ? undefined : 'must be a model source: a Hub id, a URL, files or a folder');
/** @type {Rule} */ const floats = (v) =>
  (v instanceof Float32Array && v.length > 0 ? undefined : 'must be a Float32Array that is not empty');

/** @param {string[]} names @returns {Rule} */
const oneOf = (names) => (v) => (names.includes(v) ? undefined : `must be one of ${names.join(', ')}, not ${show(v)}`);

/** @type {Rule} */ const finite = (v) => (Number.isFinite(v) ? undefined : `must be a number, not ${show(v)}`);

/** @param {number} least @param {number} [multiple] @returns {Rule} */
const integer = (least, multiple = 1) => (v) => {
  if (Number.isSafeInteger(v) && v >= least && v % multiple === 0) return undefined;
  return multiple > 1
    ? `must be a multiple of ${multiple}, at least ${least}, not ${show(v)}`
    : `must be a whole number from ${least} to 2^53 - 1, not ${show(v)}`;
};

/** @param {number} least @param {number} most @returns {Rule} */
const between = (least, most) => (v) => {
  if (typeof v === 'number' && Number.isFinite(v) && v >= least && v <= most) return undefined;
  return `must be a number ${most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`}, not ${show(v)}`;
};

/** A name of ours in any spelling, A1111's few that differ, or a class of diffusers, which the engine looks up. @type {Rule} */
const schedulerName = (v) => {
  const name = String(v).trim().toLowerCase().replaceAll('++', 'pp').replace(/[ -]/g, '_').replace(/^plms/, 'pndm')
    .replace(/(?<!_sgm|_ddim)_(ddim|uniform)$/, '_normal');
  if (typeof v === 'string' && (SCHEDULERS.includes(name) || name.includes('scheduler'))) return undefined;
  return `must be one of ${SAMPLERS.join(', ')}, most of them with _${SCHEDULES.join(', _')} behind, not ${show(v)}`;
};

/** An object of options with rules of their own. @param {Record<string, Rule>} rules @returns {Rule} */
const object = (rules) => (v) => {
  if (typeof v !== 'object' || v === null) return `must be an object of ${Object.keys(rules).join(', ')}, not ${show(v)}`;
  for (const [key, value] of Object.entries(v)) {
    if (!Object.hasOwn(rules, key)) return `has no "${key}"; it has ${Object.keys(rules).join(', ')}`;
    const wrong = value === undefined ? undefined : rules[key](value);
    if (wrong) return `with ${key}: it ${wrong}`;
  }
  return undefined;
};

/** Every entry by one rule, and not without these keys. @param {Rule} rule @param {string[]} keys @returns {Rule} */
const listOf = (rule, keys) => (v) => {
  if (!Array.isArray(v)) return `must be a list of { ${keys.join(', ')} }, not ${show(v)}`;
  for (const entry of v) {
    const missing = keys.find((key) => entry?.[key] === undefined);
    const wrong = rule(entry) ?? (missing && `has one without ${missing}; give { ${keys.join(', ')} }`);
    if (wrong) return wrong;
  }
  return undefined;
};

/** @type {Record<string, Rule>} */
const CANNY_RULES = { low: between(0, Infinity), high: between(0, Infinity) };

/** @type {Record<string, Rule>} */
const LOAD_RULES = {
  revision: text,
  variant: text,
  hub: text,
  token: (v) => (typeof v === 'string' && /^[\x21-\x7e]+$/.test(v) ? undefined : 'must be an access token of the Hub (hf_...), without spaces'),
  cache: flag,
  weights: oneOf(['f16', 'q8', 'q4']),
  precision: oneOf(['auto', 'f16', 'f32']),
  memory: oneOf(['auto', 'resident', 'low']),
  vae: modelSource,
  tinyVae: modelSource,
  signal: abortSignal,
  onProgress: callback,
};

/** @type {Record<string, Rule>} */
const UPSCALER_RULES = {
  cache: flag,
  precision: oneOf(['auto', 'f16', 'f32']),
  signal: abortSignal,
  onProgress: callback,
};

/** @type {Record<string, Rule>} */
const GENERATE_RULES = {
  prompt: text,
  negativePrompt: text,
  width: integer(8, 8),
  height: integer(8, 8),
  numInferenceSteps: integer(1),
  guidanceScale: between(0, Infinity),
  guidanceRescale: between(0, 1),
  guidanceInterval: (v) => (Array.isArray(v) && v.length === 2 && 0 <= v[0] && v[0] < v[1] && v[1] <= 1
    ? undefined : 'must be [start, end], shares of the steps from 0 to 1'),
  scheduler: schedulerName,
  eta: between(0, 1),
  sChurn: between(0, Infinity),
  sTmin: between(0, Infinity),
  sTmax: between(0, Infinity),
  sNoise: between(0, Infinity),
  seed: integer(0),
  rng: oneOf(['torch-cpu', 'torch-cuda']),
  generatorPerImage: flag,
  variationSeed: integer(0),
  variationStrength: between(0, 1),
  seedResizeFrom: (v) => (Array.isArray(v) && v.length === 2 && v.every((side) => Number.isInteger(side) && side >= 8)
    ? undefined : 'must be [width, height] in pixels'),
  numImages: integer(1),
  latents: floats,
  promptEmbeds: floats,
  negativePromptEmbeds: floats,
  image: imageSource,
  strength: between(0, 1),
  strengthSteps: oneOf(['diffusers', 'a1111', 'exact']),
  maskImage: imageSource,
  maskBlur: between(0, 1024),
  invertMask: flag,
  maskedContent: oneOf(['fill', 'original', 'noise', 'nothing']),
  inpaintArea: oneOf(['whole', 'masked']),
  maskPadding: integer(0),
  outpaint: object({ left: integer(0, 8), right: integer(0, 8), top: integer(0, 8), bottom: integer(0, 8) }),
  hires: object({
    scale: between(1, 16),
    width: integer(8, 8),
    height: integer(8, 8),
    upscaler: (v) => (v instanceof Upscaler ? undefined : oneOf(['latent', 'latent-nearest', 'latent-bicubic', 'picture'])(v)?.replace('one of', 'an Upscaler or one of')),
    steps: integer(1),
    strength: between(0, 1),
  }),
  controlnets: listOf(object({
    source: modelSource,
    image: imageSource,
    preprocess: oneOf(['none', 'canny']),
    ...CANNY_RULES,
    scale: finite,
    start: between(0, 1),
    end: between(0, 1),
  }), ['source', 'image']),
  guessMode: flag,
  loras: (value) => (Array.isArray(value) && value.every((l) => l?.source && (l.scale === undefined || Number.isFinite(l.scale)))
    ? undefined : 'must be a list of { source, scale }'),
  embeddings: (value) => (Array.isArray(value) && value.every((e) => e?.source && typeof e.token === 'string' && e.token.trim() === e.token && e.token)
    ? undefined : 'must be a list of { token, source }'),
  promptSyntax: oneOf(['plain', 'a1111', 'comfy']),
  clipSkip: integer(0),
  preview: oneOf(['none', 'fast', 'tiny', 'full']),
  output: oneOf(['image', 'latent']),
  onStep: callback,
  signal: abortSignal,
};

/** @param {unknown} value a value as a message shows it */
function show(value) {
  const shown = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return shown.length > 60 ? `${shown.slice(0, 57)}...` : shown;
}

/**
 * The options that are set, each checked by its rule.
 * @param {Record<string, Rule>} rules
 * @param {any} options
 * @param {string} method for messages
 * @returns {Record<string, any>}
 */
function checked(rules, options, method) {
  if (typeof options !== 'object' || options === null) throw invalid(`${method} takes an object of options, not ${show(options)}.`);
  const set = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [key, value] of set) {
    if (!Object.hasOwn(rules, key)) {
      throw invalid(`${method} has no option "${key}". It has: ${Object.keys(rules).join(', ')}.`);
    }
    const wrong = rules[key](value);
    if (wrong) throw invalid(`${key} ${wrong}.`);
  }
  return Object.fromEntries(set);
}

/**
 * What the engine loads: a Hub id and "embedded" as they stand, anything else as an absolute URL; files from disk
 * as `[path, File]`, paths counted from the model's folder.
 * @param {unknown} source
 * @returns {Promise<{ source: string, embedded: string, files?: [string, File][] }>} embedded: the address of the
 *   embedded model's folder, whose vocabulary serves single files too
 */
async function resolveSource(source) {
  const embedded = EMBEDDED_URL;
  if (source instanceof File) return { source: source.name, embedded, files: [[source.name, source]] };
  if (Array.isArray(source) && source.length > 0 && source.every((file) => file instanceof File)) {
    return { source: nameOf(source), embedded, files: source.map((file) => [pathOf(file), file]) };
  }
  if (globalThis.FileSystemDirectoryHandle && source instanceof FileSystemDirectoryHandle) {
    return { source: source.name, embedded, files: await filesIn(source) };
  }
  if (typeof source !== 'string') {
    throw invalid(`${show(source)} is not a model source; give a Hub id ("owner/name"), a URL, files or a folder from disk, or "embedded".`);
  }
  if (source === 'embedded' || /^disk:./.test(source)) return { source, embedded };
  if (/^(https?:\/|\.{0,2}\/)/.test(source) && URL.canParse(source, base())) {
    return { source: new URL(source, base()).href, embedded };
  }
  if (/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(source)) return { source, embedded };
  throw invalid(`${show(source)} is not a model source; give a Hub id ("owner/name"), a URL (https://..., or ./... beside this page) or "embedded".`);
}

/**
 * Whether a model is kept in this browser: what comes from disk is there already, and is kept where that is asked for.
 * @param {{ files?: unknown }} source
 * @param {boolean} [wish] the option `cache`
 */
const keeps = ({ files }, wish = !files) => wish;

/**
 * A file beside the model as the engine takes it. Two picked files of one name are told apart.
 * @param {unknown} source
 */
async function addition(source) {
  const spec = await resolveSource(source);
  const marks = spec.files?.map(([path, { size, lastModified }]) => `${path} ${size} ${lastModified}`) ?? [];
  return { ...spec, key: [spec.source, ...marks].join(' ') };
}

/** Words of textual inversion as the engine takes them. @param {{ token: string, source: any }[]} [embeddings] */
const words = (embeddings = []) => Promise.all(embeddings.map(async ({ token, source }) => ({ ...await addition(source), token })));

/**
 * LoRAs as the engine takes them. `<lora:name:weight>` in an A1111 prompt says how strong one of them is, by the name
 * of its file without ending; the engine leaves the tag out of what is encoded.
 * @param {{ source: any, scale?: number }[]} loras
 * @param {string} prompt
 * @param {string} [syntax]
 */
async function withScales(loras, prompt, syntax = 'plain') {
  const specs = await Promise.all(loras.map(async ({ source, scale = 1 }) => ({ ...await addition(source), scale })));
  if (syntax === 'plain') return specs;
  for (const [tag, name, weight] of prompt.matchAll(/<lora:([^:>]+)(?::([^:>]*))?[^>]*>/g)) {
    const stem = (/** @type {string} */ source) => decodeURIComponent(source.split(/[?#]/)[0].split('/').at(-1) ?? '').replace(/\.\w+$/, '');
    const named = specs.filter(({ source }) => stem(source) === name);
    if (named.length === 0) throw invalid(`loras has none for ${tag} in the prompt; give { source } of a file called ${name}, or take the tag out.`);
    if (weight && !Number.isFinite(Number(weight))) throw invalid(`loras: ${tag} in the prompt has no number as its weight.`);
    for (const spec of named) spec.scale = weight ? Number(weight) : 1;
  }
  return specs;
}

/** A picked file's path within the folder that was picked, or its name. @param {File} file */
const pathOf = (file) => file.webkitRelativePath.split('/').slice(1).join('/') || file.name;

/** What picked files are called: their folder, or the first of them. @param {File[]} files */
const nameOf = ([first]) => first.webkitRelativePath.split('/')[0] || first.name;

/**
 * Every file in a folder and in the folders in it.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} [path]
 * @returns {Promise<[string, File][]>}
 */
async function filesIn(folder, path = '') {
  /** @type {[string, File][]} */
  const files = [];
  for await (const entry of folder.values()) {
    if (entry.kind === 'file') files.push([path + entry.name, await entry.getFile()]);
    else files.push(...await filesIn(entry, `${path}${entry.name}/`));
  }
  return files;
}

/** Kinds of pictures that exist here: in a worker there are no elements. */
const drawable = () => {
  const all = /** @type {any} */ (globalThis);
  return [all.Blob, all.ImageData, all.ImageBitmap, all.HTMLImageElement, all.HTMLCanvasElement, all.OffscreenCanvas].filter(Boolean);
};

/**
 * A picture's pixels at the size that is drawn. One of another shape is scaled to fill it and cut at both sides alike.
 * @param {any} source
 * @param {number | undefined} w left out: the picture's own
 * @param {number | undefined} h left out: the picture's own
 * @param {string} background what transparent parts lie on
 * @param {string} name the option, for messages
 * @returns {Promise<{ width: number, height: number, data: Uint8ClampedArray }>}
 */
async function pixels(source, w, h, background, name) {
  let bitmap;
  try {
    const blob = typeof source === 'string' ? await (await fetch(new URL(source, base()))).blob()
      : source instanceof GeneratedImage ? new ImageData(source.data, source.width, source.height) : source;
    // ImageData that is opaque passes through a canvas unchanged; so do pictures drawn at their own size.
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none' });
  } catch (error) {
    throw invalid(`${name} is not a picture that this browser can read (${/** @type {Error} */ (error)?.message ?? error}).`);
  }
  const width = w ?? bitmap.width;
  const height = h ?? bitmap.height;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [wide, high] = [bitmap.width * scale, bitmap.height * scale];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (!context) throw invalid(`${name} could not be drawn; this browser lends no canvas.`);
  context.fillStyle = background;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
  bitmap.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

/** The address that relative URLs start from. */
const base = () => globalThis.document?.baseURI ?? globalThis.location?.href;

/** @param {AbortSignal | undefined} signal */
function throwIfAborted(signal) {
  if (signal?.aborted) throw aborted();
}
const aborted = () => new DiffusionError('aborted', 'Stopped, as asked. Start again whenever you like.');

// --------------------------------------------------------------------------------- the worker, from here

/**
 * One worker and the calls that wait for its answers. The worker takes the calls one after another.
 */
class Engine {
  /** @type {Map<number, { resolve(result: any): void, reject(error: DiffusionError): void, onEvent?: (event: any) => void }>} */
  #calls = new Map();
  #nextId = 0;
  /** @type {Worker} */ #worker;
  /** @type {Promise<void>} settled when the worker listens */ #ready;
  /** @type {DiffusionError | undefined} why no call can be made any more */ #ended;

  constructor() {
    // A worker's own script must be of the page's origin, what it imports need not: so a script of one line
    // stands between, and the module works from any site.
    const script = URL.createObjectURL(new Blob([`import ${JSON.stringify(WORKER_URL)};`], { type: 'text/javascript' }));
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
      this.end(listening
        ? new DiffusionError('device-lost', `The engine stopped unexpectedly (${event.message || 'no reason given'}). Load the model again.`)
        : new DiffusionError('network', `The engine could not be started from ${WORKER_URL}${event.message ? ` (${event.message})` : ''}. ` +
          'Check the connection, and that the server allows other origins (CORS) and this page\'s Content-Security-Policy allows blob: workers; then try again.'));
    };
  }

  /**
   * @param {any} message
   */
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

/**
 * Runs one thing in a worker of its own.
 * @param {string} type
 * @param {object} [payload]
 */
async function once(type, payload) {
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
async function loadedEngine(type, spec, signal, onEvent) {
  throwIfAborted(signal);
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

// ---------------------------------------------------------------------------------------- the pipeline

const FROM_PRETRAINED = Symbol('fromPretrained');

/** A model on the GPU, ready to draw. */
export class DiffusionPipeline {
  /** @type {Engine} */ #engine;
  /** @type {Readonly<Model>} */ #model;
  /** @type {object | undefined} the decoder of previews, fetched when it is first asked for */ #tinyVae;
  /** @type {{ cache?: boolean }} how what is added later is read: as the model was */ #reading;
  /** @type {Promise<void> | undefined} */ #disposed;

  /**
   * @param {symbol} key
   * @param {Engine} engine
   * @param {Model} model
   * @param {{ cache?: boolean }} reading
   * @param {object} [tinyVae]
   */
  constructor(key, engine, model, reading, tinyVae) {
    if (key !== FROM_PRETRAINED) throw invalid('Use DiffusionPipeline.fromPretrained(source) instead of new.');
    this.#engine = engine;
    this.#model = Object.freeze(model);
    this.#reading = reading;
    this.#tinyVae = tinyVae;
  }

  /** The names that `scheduler` takes. */
  static get schedulers() {
    return [...SCHEDULERS];
  }

  /**
   * Fetches a model (from the cache, where it is there), and puts it on the GPU.
   * @param {unknown} source
   * @param {LoadOptions} [options]
   */
  static async fromPretrained(source, options = {}) {
    const { signal, onProgress, hub, vae, tinyVae, ...rest } = checked(LOAD_RULES, options, 'fromPretrained');
    if (hub !== undefined && !URL.canParse(hub, base())) throw invalid(`hub must be a URL, not ${show(hub)}.`);
    const from = await resolveSource(source);
    const spec = {
      revision: 'main',
      precision: 'auto',
      hub: hub === undefined ? HUB : new URL(hub, base()).href.replace(/\/$/, ''),
      ...rest,
      ...from,
      cache: keeps(from, rest.cache),
      /** @type {any} */ vae: undefined,
    };
    const reading = { revision: 'main', cache: rest.cache, hub: spec.hub, token: rest.token };
    /** Another source, read in the same way as the model. @param {unknown} other */
    const like = async (other) => {
      const its = await resolveSource(other);
      return { ...reading, ...its, cache: keeps(its, rest.cache) };
    };
    if (vae !== undefined) spec.vae = await like(vae);
    const tiny = tinyVae === undefined ? undefined : await like(tinyVae);
    const { engine, result: model } = await loadedEngine('load', spec, signal, onProgress);
    // The embedded model's latents are its own, and its decoder is small.
    const usual = spec.source === 'embedded' ? undefined : await like(model.kind === 'sdxl' ? 'madebyollin/taesdxl' : 'madebyollin/taesd');
    return new DiffusionPipeline(FROM_PRETRAINED, engine, model, reading, tiny ?? usual);
  }

  /** What was loaded. */
  get model() {
    return this.#model;
  }

  /**
   * Draws. Calls wait for each other.
   * @param {GenerateOptions} options
   * @returns {Promise<GenerateResult>}
   */
  async generate(options) {
    this.#checkUsable();
    const { signal, onStep, ...rest } = checked(GENERATE_RULES, options, 'generate');
    if (rest.prompt === undefined) throw invalid('prompt is missing; give the words to draw, or "" for a picture without.');
    const images = rest.numImages ?? 1;
    if (rest.latents && rest.latents.length % images !== 0) {
      throw invalid(`latents has ${rest.latents.length} numbers, which is not ${images} pictures of the same size; give numImages x channels x height/8 x width/8.`);
    }
    if (rest.maskImage && !rest.image) throw invalid('maskImage says where to redraw image; give image too.');
    if (rest.strength !== undefined && !rest.image) throw invalid('strength says how much of image is redrawn; give image too.');
    if (rest.hires && rest.image) throw invalid('hires enlarges what is drawn from a prompt; leave image out, or hires.');
    if (rest.outpaint && (!rest.image || rest.maskImage)) throw invalid('outpaint extends image, and draws in what is new; give image, and no maskImage.');
    if (this.#model.inpainting && !rest.maskImage && !rest.outpaint) {
      throw invalid('This is an inpainting model; give image and maskImage (white where it is to draw), or load a text-to-image model.');
    }
    let { width = this.#model.defaultSize, height = this.#model.defaultSize } = rest;
    if (rest.hires?.upscaler instanceof Upscaler) return this.#generateTwice(options, width, height);
    if (rest.image) {
      // Extended, or redrawn in a part only, a picture keeps its own size.
      const [w, h] = rest.outpaint ? [rest.width, rest.height] : rest.inpaintArea === 'masked' ? [] : [width, height];
      rest.image = await pixels(rest.image, w, h, 'white', 'image');
      if (rest.maskImage) rest.maskImage = await pixels(rest.maskImage, rest.image.width, rest.image.height, 'black', 'maskImage');
    }
    if (rest.outpaint) {
      const { left = 0, right = 0, top = 0, bottom = 0 } = rest.outpaint;
      [width, height] = [left + rest.image.width + right, top + rest.image.height + bottom];
    }
    /** @type {Record<string, any>} */
    const wanted = {
      seed: crypto.getRandomValues(new Uint32Array(1))[0],
      preview: onStep ? 'fast' : 'none',
      ...rest,
      ...(rest.preview === 'tiny' && (this.#tinyVae ? { tinyVae: this.#tinyVae } : { preview: 'full' })),
      width,
      height,
    };
    if (wanted.loras || (wanted.promptSyntax ?? 'plain') !== 'plain') wanted.loras = await withScales(wanted.loras ?? [], wanted.prompt, wanted.promptSyntax);
    wanted.embeddings = await words(wanted.embeddings);
    if (wanted.controlnets) wanted.controlnets = await this.#controls(wanted.controlnets);
    /** @param {any} event */
    const onEvent = ({ latents, x0, ...step }) => onStep({ ...step, latents: async () => latents, x0: async () => x0 });
    const result = await this.#engine.call('generate', { options: wanted, steps: Boolean(onStep) }, { signal, onEvent });
    return {
      ...result,
      parameters: withMore(result.parameters, rest),
      images: result.images.map((/** @type {any} */ i) => new GeneratedImage(i.width, i.height, i.data, withMore(i.parameters, rest))),
    };
  }

  /**
   * How the model reads a prompt, token by token.
   * @param {string} prompt
   * @param {{ promptSyntax?: 'plain' | 'a1111' | 'comfy', embeddings?: { token: string, source: any }[] }} [options]
   */
  async tokenize(prompt, options = {}) {
    this.#checkUsable();
    const { promptSyntax, embeddings, ...none } = checked(GENERATE_RULES, { ...options, prompt }, 'tokenize');
    const other = Object.keys(none).find((key) => key !== 'prompt');
    if (other) throw invalid(`tokenize has no option "${other}". It has: promptSyntax, embeddings.`);
    return this.#engine.call('tokenize', { options: { prompt, promptSyntax, embeddings: await words(embeddings) } });
  }

  /**
   * ControlNets as the engine takes them; their pictures at their own size, which the engine makes that of the drawing.
   * @param {any[]} controlnets
   */
  #controls(controlnets) {
    return Promise.all(controlnets.map(async ({ source, image, start = 0, end = 1, ...rest }) => {
      if (!(start < end)) throw invalid(`controlnets: start = ${start} must be less than end = ${end}; they are shares of the steps.`);
      const picture = await pixels(image, undefined, undefined, 'white', 'image of controlnets');
      const its = await addition(source);
      return { ...this.#reading, ...its, cache: keeps(its, this.#reading.cache), ...rest, start, end, image: picture };
    }));
  }

  /**
   * Hires fix whose pictures are enlarged by an upscaler: each is drawn over on its own, the seed counting up.
   * @param {any} options
   * @param {number} width of the first pass
   * @param {number} height
   * @returns {Promise<GenerateResult>}
   */
  async #generateTwice({ hires, ...options }, width, height) {
    const { upscaler, scale = 2, steps = options.numInferenceSteps, strength = 0.7 } = hires;
    const to = (/** @type {number} */ side) => Math.floor((side * scale) / 8) * 8;
    const { width: wide = to(width), height: high = to(height) } = hires;
    // Steps of both passes, as far as they are known.
    let done = 0;
    /** @param {any} step */
    const onStep = (step) => options.onStep({ ...step, step: done + step.step, total: done + step.total });
    const more = options.onStep ? { onStep } : {};
    const result = await this.generate({ ...options, ...more, output: 'image' });
    const images = options.output === 'latent' ? [] : result.images;
    for (const [i, first] of result.images.entries()) {
      done = result.timings.steps.length;
      const image = await upscaler.upscale(first, { signal: options.signal });
      const { latents, ...second } = { ...options, ...more, image, strength, width: wide, height: high, seed: result.seed + i, numImages: 1 };
      if (steps !== undefined) second.numInferenceSteps = steps;
      const drawn = await this.generate(second);
      if (drawn.images[0]) images[i] = new GeneratedImage(wide, high, drawn.images[0].data, withMore(first.parameters, { hires }));
      result.latents[i] = drawn.latents[0];
      result.timings.steps.push(...drawn.timings.steps);
      for (const part of /** @type {const} */ (['textEncoder', 'vae', 'total'])) result.timings[part] += drawn.timings[part];
    }
    return { ...result, parameters: withMore(result.parameters, { hires }), images };
  }

  /** Bytes held on the GPU and in WebAssembly. */
  async memory() {
    this.#checkUsable();
    return this.#engine.call('memory');
  }

  /** Which variants of the kernels draw here. */
  async tuning() {
    this.#checkUsable();
    return this.#engine.call('tuning');
  }

  /**
   * Times the kernels' variants on this GPU and draws with the fastest from now on.
   * @param {{ milliseconds?: number }} [options]
   */
  async tune({ milliseconds = 10_000 } = {}) {
    this.#checkUsable();
    if (!(milliseconds > 0)) throw invalid(`milliseconds must be a positive number, not ${show(milliseconds)}.`);
    return this.#engine.call('tune', { milliseconds });
  }

  /** Frees every GPU buffer; what still runs rejects with "aborted". */
  dispose() {
    this.#disposed ??= (async () => {
      const gone = new DiffusionError('aborted', 'The pipeline was disposed of.');
      this.#engine.rejectAll(gone);
      try {
        await this.#engine.call('dispose');
      } catch {
        // A worker that was lost holds nothing any more.
      } finally {
        this.#engine.end(gone);
      }
    })();
    return this.#disposed;
  }

  #checkUsable() {
    if (this.#disposed) throw invalid('This pipeline was disposed of; load the model again with fromPretrained.');
  }
}

// ---------------------------------------------------------------------------------------- the upscaler

/** A network that enlarges pictures (ESRGAN, Real-ESRGAN), on the GPU. */
export class Upscaler {
  /** @type {Engine} */ #engine;
  /** @type {number} */ #scale;

  /**
   * @param {symbol} key
   * @param {Engine} engine
   * @param {number} scale
   */
  constructor(key, engine, scale) {
    if (key !== FROM_PRETRAINED) throw invalid('Use Upscaler.fromPretrained(source) instead of new.');
    this.#engine = engine;
    this.#scale = scale;
  }

  /**
   * Fetches an upscaler (from the cache, where it is there), and puts it on the GPU.
   * @param {unknown} source
   * @param {any} [options]
   */
  static async fromPretrained(source, options = {}) {
    const { signal, onProgress, ...rest } = checked(UPSCALER_RULES, options, 'fromPretrained');
    const from = await resolveSource(source);
    const spec = { precision: 'auto', hub: HUB, revision: 'main', ...rest, ...from, cache: keeps(from, rest.cache) };
    const { engine, result } = await loadedEngine('loadUpscaler', spec, signal, onProgress);
    return new Upscaler(FROM_PRETRAINED, engine, result);
  }

  /** How many times as large pictures become, each way. */
  get scale() {
    return this.#scale;
  }

  /**
   * Enlarges a picture.
   * @param {any} image
   * @param {{ signal?: AbortSignal, onProgress?(p: { done: number, total: number }): void }} [options]
   */
  async upscale(image, options = {}) {
    const wrong = imageSource(image);
    if (wrong) throw invalid(`image ${wrong}.`);
    const { signal, onProgress } = checked({ signal: abortSignal, onProgress: callback }, options, 'upscale');
    const source = await pixels(image, undefined, undefined, 'white', 'image');
    const { width, height, data } = await this.#engine.call('upscale', { options: { image: source } }, { signal, onEvent: onProgress });
    return new GeneratedImage(width, height, data, image instanceof GeneratedImage ? image.parameters : '');
  }

  /** Frees every GPU buffer. */
  async dispose() {
    this.#engine.end(new DiffusionError('aborted', 'The upscaler was disposed of; load it again.'));
  }
}

// ------------------------------------------------------------------------------------------------- canny

/**
 * Canny's edges of a picture, white on black, of its size: what a canny ControlNet is shown.
 * @param {any} image
 * @param {{ low?: number, high?: number }} [options]
 */
export async function canny(image, options = {}) {
  const wrong = imageSource(image);
  if (wrong) throw invalid(`image ${wrong}.`);
  const thresholds = checked(CANNY_RULES, options, 'canny');
  const source = await pixels(image, undefined, undefined, 'white', 'image');
  const { engine, result } = await loadedEngine('canny', { ...thresholds, image: source }, undefined, undefined);
  engine.end(aborted());
  return new GeneratedImage(result.width, result.height, result.data, '');
}

// ------------------------------------------------------------------------------------------ the picture

/** A picture: its pixels, and itself as a file. */
class GeneratedImage {
  #parameters;

  /** How it was made, as the PNG carries it. */
  get parameters() {
    return this.#parameters;
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {Uint8ClampedArray<ArrayBuffer>} data RGBA, row by row, alpha 255
   * @param {string} parameters how it was made, written into the PNG
   */
  constructor(width, height, data, parameters) {
    this.width = width;
    this.height = height;
    this.data = data;
    this.#parameters = parameters;
  }

  /**
   * @param {'image/png' | 'image/jpeg' | 'image/webp'} [type]
   * @returns {Promise<Blob>}
   */
  async toBlob(type = 'image/png') {
    const wrong = oneOf(['image/png', 'image/jpeg', 'image/webp'])(type);
    if (wrong) throw invalid(`The type ${wrong}.`);
    const canvas = new OffscreenCanvas(this.width, this.height);
    const context = canvas.getContext('2d', { colorSpace: 'srgb', willReadFrequently: true });
    context?.putImageData(new ImageData(this.data, this.width, this.height), 0, 0);
    const blob = await canvas.convertToBlob({ type, quality: 0.95 });
    if (blob.type !== type) throw invalid(`This browser cannot write ${type}; use "image/png".`);
    if (type !== 'image/png' || !this.#parameters) return blob;
    const png = new Uint8Array(await blob.arrayBuffer());
    // The header chunk always comes first and ends at byte 33; text may stand anywhere after it.
    return new Blob([png.subarray(0, 33), textChunk('parameters', this.#parameters), png.subarray(33)], { type });
  }
}

/**
 * A PNG text chunk: tEXt, or iTXt where the text is not Latin-1, as Pillow and so AUTOMATIC1111 do
 * (PNG specification, 11.3.3).
 * @param {string} keyword
 * @param {string} value
 */
function textChunk(keyword, value) {
  const latin1 = /^[\u0001-\u00ff]*$/.test(value);
  const content = latin1
    ? Uint8Array.from(`${keyword}\0${value}`, (c) => c.charCodeAt(0))
    // keyword, NUL, not compressed (two bytes), no language, no translated keyword, text in UTF-8
    : new TextEncoder().encode(`${keyword}\0\0\0\0\0${value}`);
  const chunk = new Uint8Array(content.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, content.length);
  chunk.set(new TextEncoder().encode(latin1 ? 'tEXt' : 'iTXt'), 4);
  chunk.set(content, 8);
  view.setUint32(8 + content.length, crc32(chunk.subarray(4, 8 + content.length)));
  return chunk;
}

/**
 * CRC-32 as PNG wants it (ISO 3309, reflected polynomial 0xEDB88320).
 * @param {Uint8Array} bytes
 */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/**
 * How a picture was made: the `parameters` text of a PNG, AUTOMATIC1111's or ours, as options of `generate`.
 * @param {Blob | string} source a picture, or the text itself
 * @returns {Promise<{ parameters?: string, options: GenerateOptions, model?: string }>}
 */
export async function readParameters(source) {
  if (typeof source !== 'string' && !(source instanceof Blob)) throw invalid(`${show(source)} is neither a picture (a Blob or File) nor a text.`);
  const parameters = typeof source === 'string' ? source : await parametersIn(new Uint8Array(await source.arrayBuffer()));
  return { parameters, options: optionsOf(parameters ?? '', SCHEDULERS), model: modelOf(parameters ?? '') };
}

// -------------------------------------------------------------------------------------------- the cache

/** The models kept in this browser. */
export const cache = Object.freeze({
  /** @returns {Promise<{ name: string, bytes: number, complete: boolean }[]>} */
  list: () => once('cacheList'),
  /**
   * @param {string} name as `list` gives it
   * @returns {Promise<void>}
   */
  async delete(name) {
    if (typeof name !== 'string') throw invalid('name must be a string, one of those that cache.list() gives.');
    await once('cacheDelete', { name });
  },
  /** Asks the browser not to clear the cache by itself. */
  persist: async () => (await globalThis.navigator?.storage?.persist?.()) ?? false,
  async estimate() {
    const { usage = 0, quota = 0 } = (await globalThis.navigator?.storage?.estimate?.()) ?? {};
    return { usage, quota };
  },
});
