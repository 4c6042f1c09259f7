/** The options' rules: spelling and ranges are checked here, once. What depends on the model, the engine checks. */
import { invalid, show } from './errors.js';
import { NAMES } from './names.js';
import { imageSource } from './picture.js';
import { SAMPLERS, SCHEDULES } from './samplers.js';

/** @typedef {import('./browser-diffusion.js').Model} Model */

/**
 * A rule looks at one option's value and returns what is wrong with it, or nothing.
 * @typedef {(value: any) => string | undefined} Rule
 */

/** Every name that `scheduler` takes, but for those of A1111 and diffusers, which the engine knows. */
export const SCHEDULERS = Object.freeze(SAMPLERS.flatMap(({ name, schedules }) =>
  [name, ...(schedules ? SCHEDULES.map((schedule) => `${name}_${schedule.name}`) : [])]));

/** Pixels: the longest side of a picture. */
const LONGEST = 16384;
/** More steps than any schedule has. */
const MOST_STEPS = 10_000;

/** @type {Rule} */
const text = (v) => (typeof v === 'string' ? undefined : 'must be a string');
/** @type {Rule} */
export const callback = (v) => (typeof v === 'function' ? undefined : 'must be a function');
/** @type {Rule} */
const flag = (v) => (typeof v === 'boolean' ? undefined : 'must be true or false');
/** @type {Rule} */
export const abortSignal = (v) =>
  (typeof v?.aborted === 'boolean' && typeof v.addEventListener === 'function' ? undefined : 'must be an AbortSignal');
/** @type {Rule} */
const modelSource = (v) =>
  (typeof v === 'string' || typeof v === 'object'
    ? undefined : 'must be a model source: a Hub id, a URL, files or a folder');
/** @type {Rule} */
const floats = (v) =>
  (v instanceof Float32Array && v.length > 0 ? undefined : 'must be a Float32Array that is not empty');
/** @type {Rule} */
const finite = (v) => (Number.isFinite(v) ? undefined : `must be a number, not ${show(v)}`);

/** @param {readonly string[]} names @returns {Rule} */
const oneOf = (names) => (v) => (names.includes(v) ? undefined : `must be one of ${names.join(', ')}, not ${show(v)}`);

/**
 * @param {number} least
 * @param {number} [most]
 * @param {number} [multiple]
 * @returns {Rule}
 */
const integer = (least, most = Number.MAX_SAFE_INTEGER, multiple = 1) => (v) => {
  if (Number.isSafeInteger(v) && v >= least && v <= most && v % multiple === 0) return undefined;
  const kind = multiple > 1 ? `a multiple of ${multiple}` : 'a whole number';
  return `must be ${kind} from ${least} to ${most === Number.MAX_SAFE_INTEGER ? '2^53 - 1' : most}, not ${show(v)}`;
};

/** @param {number} least @param {number} most @returns {Rule} */
const between = (least, most) => (v) => {
  if (Number.isFinite(v) && v >= least && v <= most) return undefined;
  const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
  return `must be a number ${range}, not ${show(v)}`;
};

/** A side of a picture, in pixels. */
const side = integer(8, LONGEST, 8);
const margin = integer(0, LONGEST, 8);

/** A share of the denoising. @type {Rule} */
const share = (v) => (v > 0 && v < 1 ? undefined : `must be a number between 0 and 1, not ${show(v)}`);

/** @type {Rule} */
const guidanceInterval = (v) =>
  (Array.isArray(v) && v.length === 2 && v.every(Number.isFinite) && 0 <= v[0] && v[0] < v[1] && v[1] <= 1
    ? undefined : 'must be [start, end], shares of the steps from 0 to 1');

/** @type {Rule} */
const seedResizeFrom = (v) =>
  (Array.isArray(v) && v.length === 2 && v.every((pixels) => integer(8, LONGEST)(pixels) === undefined)
    ? undefined : `must be [width, height] in pixels, each from 8 to ${LONGEST}`);

/** @type {Rule} */
const accessToken = (v) =>
  (typeof v === 'string' && /^[\x21-\x7e]+$/.test(v)
    ? undefined : 'must be an access token of the Hub (hf_...), without spaces');

/**
 * A name of ours in any spelling, A1111's few that differ, or a class of diffusers, which the engine looks up.
 * @type {Rule}
 */
const schedulerName = (v) => {
  const name = String(v).trim().toLowerCase().replaceAll('++', 'pp').replace(/[ -]/g, '_').replace(/^plms/, 'pndm')
    .replace(/(?<!_sgm|_ddim)_(ddim|uniform)$/, '_normal');
  if (typeof v === 'string' && (SCHEDULERS.includes(name) || name.includes('scheduler'))) return undefined;
  const [samplers, schedules] = [SAMPLERS, SCHEDULES].map((rows) => rows.map((row) => row.name));
  return `must be one of ${samplers.join(', ')}, most of them with _${schedules.join(', _')} behind, not ${show(v)}`;
};

/** Latents are enlarged by a name; pictures by anything that can, as `Upscaler`. @type {Rule} */
const upscaler = (v) =>
  (typeof v?.upscale === 'function' ? undefined : oneOf(NAMES.upscaler)(v)?.replace('one of', 'an Upscaler or one of'));

/** An object of options with rules of their own. @param {Record<string, Rule>} rules @returns {Rule} */
const object = (rules) => (v) => {
  const keys = Object.keys(rules).join(', ');
  if (typeof v !== 'object' || v === null) return `must be an object of ${keys}, not ${show(v)}`;
  for (const [key, value] of Object.entries(v)) {
    if (!Object.hasOwn(rules, key)) return `has no "${key}"; it has ${keys}`;
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

/** @type {Rule} */
const pictures = (v) =>
  (Array.isArray(v) && v.length > 0 && v.every((picture) => imageSource(picture) === undefined)
    ? undefined : 'must be a list of pictures, at least one');

/** @type {Rule} */
const loras = (v) =>
  (Array.isArray(v) && v.every((l) => l?.source && (l.scale === undefined || Number.isFinite(l.scale)))
    ? undefined : 'must be a list of { source, scale }');

/** @type {Rule} */
const embeddings = (v) =>
  (Array.isArray(v) && v.every((e) => e?.source && typeof e.token === 'string' && e.token && e.token.trim() === e.token)
    ? undefined : 'must be a list of { token, source }');

/** @type {Record<string, Rule>} */
export const CANNY_RULES = { low: between(0, Infinity), high: between(0, Infinity) };

/** @type {Record<string, Rule>} */
export const UPSCALER_RULES = {
  cache: flag,
  precision: oneOf(NAMES.precision),
  signal: abortSignal,
  onProgress: callback,
};

/** @type {Record<string, Rule>} */
export const LOAD_RULES = {
  revision: text,
  variant: text,
  hub: text,
  token: accessToken,
  cache: flag,
  weights: oneOf(NAMES.weights),
  precision: oneOf(NAMES.precision),
  memory: oneOf(NAMES.memory),
  predictionType: oneOf(NAMES.predictionType),
  rescaleBetasZeroSnr: flag,
  vae: modelSource,
  tinyVae: modelSource,
  signal: abortSignal,
  onProgress: callback,
};

/** @type {Record<string, Rule>} */
export const GENERATE_RULES = {
  prompt: text,
  negativePrompt: text,
  width: side,
  height: side,
  numInferenceSteps: integer(1, MOST_STEPS),
  guidanceScale: between(0, Infinity),
  imageGuidanceScale: between(0, Infinity),
  aestheticScore: finite,
  negativeAestheticScore: finite,
  denoisingStart: share,
  denoisingEnd: share,
  guidanceRescale: between(0, 1),
  guidanceInterval,
  deepCache: object({ interval: integer(1, MOST_STEPS), branch: integer(0, 64) }),
  scheduler: schedulerName,
  eta: between(0, 1),
  sChurn: between(0, Infinity),
  sTmin: between(0, Infinity),
  sTmax: between(0, Infinity),
  sNoise: between(0, Infinity),
  seed: integer(0),
  rng: oneOf(NAMES.rng),
  generatorPerImage: flag,
  variationSeed: integer(0),
  variationStrength: between(0, 1),
  seedResizeFrom,
  etaNoiseSeedDelta: integer(0),
  numImages: integer(1, 64),
  latents: floats,
  promptEmbeds: floats,
  negativePromptEmbeds: floats,
  image: imageSource,
  strength: between(0, 1),
  strengthSteps: oneOf(NAMES.strengthSteps),
  maskImage: imageSource,
  maskBlur: between(0, 1024),
  invertMask: flag,
  maskedContent: oneOf(NAMES.maskedContent),
  inpaintArea: oneOf(NAMES.inpaintArea),
  maskPadding: integer(0, LONGEST),
  outpaint: object({ left: margin, right: margin, top: margin, bottom: margin }),
  hires: object({
    scale: between(1, 16),
    width: side,
    height: side,
    upscaler,
    steps: integer(1, MOST_STEPS),
    strength: between(0, 1),
  }),
  controlnets: listOf(object({
    source: modelSource,
    image: imageSource,
    preprocess: oneOf(NAMES.preprocess),
    ...CANNY_RULES,
    mode: oneOf(NAMES.mode),
    scale: finite,
    start: between(0, 1),
    end: between(0, 1),
  }), ['source', 'image']),
  guessMode: flag,
  ipAdapters: listOf(object({
    source: modelSource,
    imageEncoder: modelSource,
    image: imageSource,
    images: pictures,
    scale: finite,
  }), ['source', 'imageEncoder']),
  loras,
  embeddings,
  promptSyntax: oneOf(NAMES.promptSyntax),
  clipSkip: integer(0, 64),
  inside: object({ guidance: flag, attention: flag, activations: flag }),
  preview: oneOf(NAMES.preview),
  output: oneOf(NAMES.output),
  onStep: callback,
  signal: abortSignal,
};

/** Some of the rules. @param {Record<string, Rule>} rules @param {string[]} keys */
const of = (rules, keys) => Object.fromEntries(keys.map((key) => [key, rules[key]]));

/** Of a picture's size and of a call that may be stopped. */
const SIZE_RULES = { width: side, height: side, signal: abortSignal };

/** What the parts of drawing take, by their names. @type {Record<string, Record<string, Rule>>} */
const PRIMITIVE_RULES = {
  encode: { image: imageSource, ...SIZE_RULES },
  decode: { latents: floats, ...SIZE_RULES },
  noise: { seed: integer(0), width: side, height: side, rng: oneOf(NAMES.rng) },
  schedule: { scheduler: schedulerName, numInferenceSteps: integer(1, MOST_STEPS) },
  addNoise: { latents: floats, noise: floats, timestep: finite },
  predict: {
    ...of(GENERATE_RULES, ['prompt', 'negativePrompt', 'guidanceScale', 'guidanceRescale', 'promptSyntax', 'clipSkip']),
    ...of(GENERATE_RULES, ['loras', 'embeddings']),
    latents: floats,
    timestep: finite,
    attention: flag,
    activations: flag,
    ...SIZE_RULES,
  },
};
/** What they cannot do without. @type {Record<string, string[]>} */
const PRIMITIVES_NEED = {
  encode: ['image'],
  decode: ['latents'],
  noise: ['seed'],
  schedule: [],
  addNoise: ['latents', 'noise', 'timestep'],
  predict: ['prompt', 'latents', 'timestep'],
};

/**
 * The options of a part of drawing that are set, each checked by its rule; what depends on the model, the engine checks.
 * @param {string} method
 * @param {any} options
 */
export function checkedPrimitive(method, options) {
  const set = checked(PRIMITIVE_RULES[method], options, method);
  const missing = PRIMITIVES_NEED[method].find((key) => set[key] === undefined);
  if (missing) throw invalid(`${method} needs ${missing}.`);
  return set;
}

/**
 * The options that are set, each checked by its rule.
 * @param {Record<string, Rule>} rules
 * @param {any} options
 * @param {string} method for messages
 * @returns {Record<string, any>}
 */
export function checked(rules, options, method) {
  if (typeof options !== 'object' || options === null) {
    throw invalid(`${method} takes an object of options, not ${show(options)}.`);
  }
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
 * The options of `generate` that are set, each checked by its rule, and those checked together that the module itself
 * works with: pictures, and latents by their number.
 * @param {any} options
 * @param {Pick<Model, 'inpainting' | 'instructPix2Pix'>} model
 */
export function checkedRequest(options, { inpainting, instructPix2Pix }) {
  const request = checked(GENERATE_RULES, options, 'generate');
  const { prompt, numImages = 1, latents, image, maskImage, strength, hires, outpaint } = request;
  if (prompt === undefined) {
    throw invalid('prompt is missing; give the words to draw, or "" for a picture without.');
  }
  if (latents && latents.length % numImages !== 0) {
    throw invalid(`latents has ${latents.length} numbers, which is not ${numImages} pictures of the same size; ` +
      'give numImages x channels x height/8 x width/8.');
  }
  if (maskImage && !image) throw invalid('maskImage says where to redraw image; give image too.');
  if (strength !== undefined && !image) throw invalid('strength says how much of image is redrawn; give image too.');
  if (hires && image) throw invalid('hires enlarges what is drawn from a prompt; leave image out, or hires.');
  if (outpaint && (!image || maskImage)) {
    throw invalid('outpaint extends image, and draws in what is new; give image, and no maskImage.');
  }
  if (inpainting && !maskImage && !outpaint) {
    throw invalid('This is an inpainting model; give image and maskImage (white where it is to draw), or load a ' +
      'text-to-image model.');
  }
  if (instructPix2Pix && (!image || maskImage || outpaint)) {
    throw invalid('This model (InstructPix2Pix) edits a picture as the prompt says; give image, and neither ' +
      'maskImage nor outpaint, or load a text-to-image model.');
  }
  for (const { image: one, images } of request.ipAdapters ?? []) {
    if (one === undefined ? !images : images) {
      throw invalid('ipAdapters: each needs image, a picture, or images, several; not both.');
    }
  }
  for (const { start = 0, end = 1 } of request.controlnets ?? []) {
    if (start < end) continue;
    throw invalid(`controlnets: start = ${start} must be less than end = ${end}; they are shares of the steps.`);
  }
  return request;
}
