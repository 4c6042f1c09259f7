/**
 * browser-diffusion: Stable Diffusion in a browser tab, on the visitor's own GPU.
 *
 * The public module: the one address that pages import, over errors.js, engine.js (the worker that owns the
 * WebAssembly engine and the GPU device), options.js (the rules), sources.js, picture.js and metadata.js (the text in a
 * PNG). Nothing here touches the DOM, and an import starts nothing, so that it works from another origin, in a worker,
 * and where there is no WebGPU at all. The types, with their documentation, are in browser-diffusion.d.ts.
 *
 * @module
 */

/**
 * @typedef {import('./browser-diffusion.js').LoadOptions} LoadOptions
 * @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions
 * @typedef {import('./browser-diffusion.js').GenerateResult} GenerateResult
 * @typedef {import('./browser-diffusion.js').Model} Model
 * @typedef {import('./browser-diffusion.js').Step} Step
 */

import { Loaded, loadedEngine, once } from './engine.js';
import { DiffusionError, aborted, invalid, show } from './errors.js';
import { parametersOf, settingsIn } from './metadata.js';
import { textsIn } from './metadata/containers.js';
import {
  CANNY_RULES, GENERATE_RULES, LOAD_RULES, SCHEDULERS, UPSCALER_RULES, abortSignal, callback, checked, checkedPrimitive,
  checkedRequest,
} from './options.js';
import { GeneratedImage, imageSource, pixels } from './picture.js';
import { HUB, addition, base, keeps, resolveEmbeddings, resolveLoras, resolveSource } from './sources.js';

export { detect } from './engine.js';
export { DiffusionError };

// ---------------------------------------------------------------------------------------- the pipeline

const FROM_PRETRAINED = Symbol('fromPretrained');

/** A model on the GPU, ready to draw. */
export class DiffusionPipeline {
  /** @type {Loaded} */ #engine;
  /** @type {Readonly<Model>} */ #model;
  /** @type {object | undefined} the decoder of previews, fetched when it is first asked for */ #tinyVae;
  /** @type {{ cache?: boolean }} how what is added later is read: as the model was */ #reading;
  /** @type {Promise<void> | undefined} */ #disposed;

  /**
   * @param {symbol} key
   * @param {Loaded} engine
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
    const { loaded, result: model } = await Loaded.load('load', spec, signal, onProgress);
    // The embedded model's latents are its own, and its decoder is small.
    const taesd = model.kind === 'sdxl' ? 'madebyollin/taesdxl' : 'madebyollin/taesd';
    const usual = spec.source === 'embedded' ? undefined : await like(taesd);
    return new DiffusionPipeline(FROM_PRETRAINED, loaded, model, reading, tiny ?? usual);
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
    const request = checkedRequest(options, this.#model);
    const byUpscaler = typeof request.hires?.upscaler?.upscale === 'function';
    const { made, ...result } = byUpscaler ? await this.#drawTwice(request) : await this.#draw(request);
    const images = result.images.map((/** @type {any} */ { width, height, data, seed, variationSeed }) =>
      new GeneratedImage(width, height, data, parametersOf({ ...made, seed, variationSeed })));
    return { ...result, images, parameters: parametersOf(made) };
  }

  /**
   * Has the engine draw a request.
   * @param {Record<string, any>} request
   * @returns {Promise<any>} the engine's result, and `made`: the request with all that was left out, for its text
   */
  async #draw({ signal, onStep, inside, ...request }) {
    const wanted = await this.#wanted({ preview: onStep ? 'fast' : 'none', ...request, ...(onStep && { inside }) });
    /** @param {any} event */
    const onEvent = ({ latents, x0, inside, ...step }) => {
      const large = Object.entries({ latents, x0, ...inside }).map(([key, value]) => [key, async () => value]);
      onStep({ ...step, ...Object.fromEntries(large) });
    };
    const call = { options: wanted, steps: Boolean(onStep) };
    const { settled, ...result } = await this.#engine.call('generate', call, { signal, onEvent });
    return { ...result, made: { ...wanted, ...settled, model: this.#model.name } };
  }

  /**
   * A request as the engine takes it: with a seed and a size, pictures as pixels, sources as where they are.
   * @param {Record<string, any>} request
   * @returns {Promise<Record<string, any>>}
   */
  async #wanted({ loras, embeddings, controlnets, ipAdapters, ...request }) {
    return {
      seed: crypto.getRandomValues(new Uint32Array(1))[0],
      ...request,
      ...(request.preview === 'tiny' && (this.#tinyVae ? { tinyVae: this.#tinyVae } : { preview: 'full' })),
      ...await startOf(request, this.#model.defaultSize),
      loras: await resolveLoras(loras),
      embeddings: await resolveEmbeddings(embeddings),
      ...(controlnets && { controlnets: await Promise.all(controlnets.map(this.#control, this)) }),
      ...(ipAdapters && { ipAdapters: await Promise.all(ipAdapters.map(this.#ipAdapter, this)) }),
    };
  }

  /**
   * A ControlNet as the engine takes it; its picture at its own size, which the engine makes that of the drawing.
   * @param {any} controlnet
   */
  async #control({ source, image, ...rest }) {
    const picture = await pixels(image, 'image of controlnets');
    const its = await addition(source);
    return { ...this.#reading, ...its, cache: keeps(its, this.#reading.cache), ...rest, image: picture };
  }

  /**
   * An IP-Adapter as the engine takes it; its pictures at their own size, of which the engine cuts what is seen.
   * @param {any} adapter
   */
  async #ipAdapter({ source, imageEncoder, image, images = [image], scale = 1 }) {
    const [its, encoder] = await Promise.all([addition(source), addition(imageEncoder)]);
    const read = (/** @type {typeof its} */ spec) =>
      ({ ...this.#reading, ...spec, cache: keeps(spec, this.#reading.cache) });
    return {
      ...read(its),
      key: `${its.key} ${encoder.key}`,
      imageEncoder: read(encoder),
      images: await Promise.all(images.map((/** @type {any} */ one) => pixels(one, 'image of ipAdapters'))),
      scale,
    };
  }

  /**
   * Hires fix whose pictures are enlarged by an upscaler: each is drawn over on its own, the seed counting up.
   * @param {Record<string, any>} request
   */
  async #drawTwice({ hires, onStep, latents, ...request }) {
    const { upscaler, scale = 2, steps = request.numInferenceSteps, strength = 0.7 } = hires;
    // Steps of both passes, as far as they are known.
    let done = 0;
    /** @param {Step} step */
    const onEither = (step) => onStep({ ...step, step: done + step.step, total: done + step.total });
    const both = { ...request, onStep: onStep && onEither };
    const result = await this.#draw({ ...both, ...(latents && { latents }), output: 'image' });
    result.made.hires = hires;
    const to = (/** @type {number} */ side) => Math.floor((side * scale) / 8) * 8;
    const { width = to(result.made.width), height = to(result.made.height) } = hires;
    for (const [i, { data, ...first }] of result.images.entries()) {
      done = result.timings.steps.length;
      const small = new GeneratedImage(first.width, first.height, data, '');
      const image = await upscaler.upscale(small, { signal: request.signal });
      const again = { ...both, image, strength, width, height, seed: result.seed + i, numImages: 1 };
      const drawn = await this.#draw({ ...again, ...(steps !== undefined && { numInferenceSteps: steps }) });
      result.images[i] = { ...first, ...drawn.images[0], seed: first.seed, variationSeed: first.variationSeed };
      result.latents[i] = drawn.latents[0];
      result.timings.steps.push(...drawn.timings.steps);
      for (const part of ['textEncoder', 'vae', 'total']) result.timings[part] += drawn.timings[part];
    }
    return request.output === 'latent' ? { ...result, images: [] } : result;
  }

  /**
   * A part of drawing, alone.
   * @param {string} method
   * @param {object} options
   */
  async #part(method, options) {
    this.#checkUsable();
    const { signal, image, loras, embeddings, attention, activations, ...set } = checkedPrimitive(method, options);
    const usual = this.#model.defaultSize;
    const size = { width: set.width ?? usual, height: set.height ?? usual };
    const wanted = {
      seed: 0,
      inside: { attention, activations },
      ...set,
      ...size,
      ...(image && { image: await pixels(image, 'image', size) }),
      loras: await resolveLoras(loras),
      embeddings: await resolveEmbeddings(embeddings),
    };
    return this.#engine.call(method, { options: wanted }, { signal });
  }

  /**
   * A picture's latents, NCHW.
   * @param {any} image
   * @param {{ width?: number, height?: number, signal?: AbortSignal }} [options]
   * @returns {Promise<Float32Array>}
   */
  async encode(image, options = {}) {
    return this.#part('encode', { ...options, image });
  }

  /**
   * The picture of latents.
   * @param {Float32Array} latents
   * @param {{ width?: number, height?: number, signal?: AbortSignal }} [options]
   */
  async decode(latents, options = {}) {
    const { width, height, data } = await this.#part('decode', { ...options, latents });
    return new GeneratedImage(width, height, data, '');
  }

  /**
   * The noise that a drawing of this seed starts from.
   * @param {number} seed
   * @param {Pick<GenerateOptions, 'width' | 'height' | 'rng'>} [options]
   * @returns {Promise<Float32Array>}
   */
  async noise(seed, options = {}) {
    return this.#part('noise', { ...options, seed });
  }

  /**
   * The noise levels of a sampler's steps.
   * @param {string} [scheduler]
   * @param {number} [numInferenceSteps]
   * @returns {Promise<import('./browser-diffusion.js').NoiseSchedule>}
   */
  async schedule(scheduler, numInferenceSteps) {
    return this.#part('schedule', { scheduler, numInferenceSteps });
  }

  /**
   * Latents with as much noise as the model saw at a time step.
   * @param {Float32Array} latents
   * @param {Float32Array} noise
   * @param {number} timestep
   * @returns {Promise<Float32Array>}
   */
  async addNoise(latents, noise, timestep) {
    return this.#part('addNoise', { latents, noise, timestep });
  }

  /**
   * What the model sees in noisy latents.
   * @param {import('./browser-diffusion.js').PredictOptions} options
   * @returns {Promise<import('./browser-diffusion.js').Prediction>}
   */
  async predict(options) {
    return this.#part('predict', options);
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
    const wanted = { prompt, promptSyntax, embeddings: await resolveEmbeddings(embeddings) };
    return this.#engine.call('tokenize', { options: wanted });
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
    this.#disposed ??= this.#engine.end(new DiffusionError('aborted', 'The pipeline was disposed of.'));
    return this.#disposed;
  }

  #checkUsable() {
    if (this.#disposed) throw invalid('This pipeline was disposed of; load the model again with fromPretrained.');
  }
}

/**
 * The size of a request's drawing, and the picture and mask that it starts from as pixels.
 * @param {Record<string, any>} request
 * @param {number} usual the size where none is asked for
 */
async function startOf({ image, maskImage, outpaint, inpaintArea, ...request }, usual) {
  const asked = { width: request.width, height: request.height };
  const size = { width: asked.width ?? usual, height: asked.height ?? usual };
  if (!image) return size;
  if (outpaint) {
    const start = await pixels(image, 'image', asked);
    const { left = 0, right = 0, top = 0, bottom = 0 } = outpaint;
    return { width: left + start.width + right, height: top + start.height + bottom, image: start };
  }
  // Redrawn in a part only, a picture keeps its own size.
  const start = await pixels(image, 'image', inpaintArea === 'masked' ? {} : size);
  if (!maskImage) return { ...size, image: start };
  const { width, height } = start;
  const mask = await pixels(maskImage, 'maskImage', { width, height, background: 'black' });
  return { ...size, image: start, maskImage: mask };
}

// ---------------------------------------------------------------------------------------- the upscaler

/** A network that enlarges pictures (ESRGAN, Real-ESRGAN), on the GPU. */
export class Upscaler {
  /** @type {Loaded} */ #engine;
  /** @type {number} */ #scale;

  /**
   * @param {symbol} key
   * @param {Loaded} engine
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
    const { loaded, result } = await Loaded.load('loadUpscaler', spec, signal, onProgress);
    return new Upscaler(FROM_PRETRAINED, loaded, result);
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
    const source = await pixels(image, 'image');
    const call = { options: { image: source } };
    const { width, height, data } = await this.#engine.call('upscale', call, { signal, onEvent: onProgress });
    return new GeneratedImage(width, height, data, image instanceof GeneratedImage ? image.parameters : '');
  }

  /** Frees every GPU buffer. */
  async dispose() {
    await this.#engine.end(new DiffusionError('aborted', 'The upscaler was disposed of; load it again.'));
  }
}

// ------------------------------------------------------------------------------------------------- canny

/**
 * Canny's edges of a picture, white on black, of its size: what a canny ControlNet is shown.
 * @param {any} image
 * @param {{ low?: number, high?: number }} [options]
 */
export async function canny(image, options = {}) {
  return preprocessed('canny', image, checked(CANNY_RULES, options, 'canny'));
}

/** Soft lines of a picture, white on black, of its size. @param {any} image */
export const softedge = (image) => preprocessed('softedge', image, {});

/** @param {'canny' | 'softedge'} how @param {any} image @param {object} options */
async function preprocessed(how, image, options) {
  const wrong = imageSource(image);
  if (wrong) throw invalid(`image ${wrong}.`);
  const source = await pixels(image, 'image');
  const { engine, result } = await loadedEngine(how, { ...options, image: source }, undefined, undefined);
  engine.end(aborted());
  return new GeneratedImage(result.width, result.height, result.data, '');
}

// ------------------------------------------------------------------------------------------- the settings

/**
 * How a picture was made: the text in a PNG, JPEG, WebP or AVIF, of AUTOMATIC1111, ours or others, as options of
 * `generate`; `withImage` are those that it takes with a picture to start from.
 * @param {Blob | string} source a picture, or the text itself
 * @returns {Promise<{ parameters?: string, options: GenerateOptions, withImage: Partial<GenerateOptions>,
 *   model?: string, needs: import('./browser-diffusion.js').Needs }>}
 */
export async function readParameters(source) {
  if (typeof source !== 'string' && !(source instanceof Blob)) {
    throw invalid(`${show(source)} is neither a picture (a Blob or File) nor a text.`);
  }
  return settingsIn(typeof source === 'string' ? source : await textsIn(new Uint8Array(await source.arrayBuffer())));
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
