/**
 * How other programs than A1111 tell how a picture was made: SwarmUI, InvokeAI, NovelAI, ComfyUI, Fooocus, Easy
 * Diffusion and Draw Things. Each reads their texts and says what it makes of them.
 */
import { comfyOptions } from './comfy.js';
import { schedulerIn } from './schedulers.js';
import { number, objectIn, own, text } from './values.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./containers.js').Texts} Texts */

/** What a picture tells; `source` is the text that it was read from. */
/** @typedef {{ source: string, options: GenerateOptions, model?: string }} Told */

/** What programs call the options, each under several names. @param {unknown} json */
function usual(json) {
  return {
    prompt: text(own(json, 'prompt', 'Prompt', 'positive_prompt')) ?? '',
    negativePrompt: text(own(json, 'negativeprompt', 'negative_prompt', 'Negative Prompt', 'uc')) ?? '',
    numInferenceSteps: number(own(json, 'steps', 'Steps', 'num_inference_steps')),
    guidanceScale: number(own(json, 'cfgscale', 'cfg_scale', 'guidance_scale', 'Guidance Scale', 'scale', 'cfg')),
    seed: number(own(json, 'seed', 'Seed')),
    width: number(own(json, 'width', 'Width')),
    height: number(own(json, 'height', 'Height')),
  };
}

/** @param {unknown} layers "clip skip" as A1111 counts */
function clipSkip(layers) {
  const layer = number(layers);
  return layer === undefined ? undefined : Math.max(0, layer - 1);
}

const COMFY = /** @type {const} */ ({ promptSyntax: 'comfy', rng: 'torch-cpu' });
const EXACT = /** @type {const} */ ('exact');

/** SwarmUI: "docs/Image Metadata Format.md" of its repository. @param {any} json */
function swarm(json) {
  const params = own(json, 'sui_image_params');
  if (typeof params !== 'object' || !params) return undefined;
  const sampler = text(own(params, 'sampler', 'comfyuisampler', 'comfyui_sampler', 'autowebuisampler'));
  const stop = number(own(params, 'clipstopatlayer'));
  const strength = number(own(params, 'initimagecreativity'));
  return {
    model: text(own(params, 'model')),
    options: {
      ...usual(params), ...COMFY,
      scheduler: schedulerIn(sampler, text(own(params, 'scheduler', 'comfyuischeduler', 'comfyui_scheduler'))),
      clipSkip: stop === undefined ? undefined : Math.max(0, -1 - stop),
      variationSeed: number(own(params, 'variationseed')),
      variationStrength: number(own(params, 'variationseedstrength')),
      ...(own(params, 'initimage') !== undefined && strength !== undefined && { strength, strengthSteps: EXACT }),
    },
  };
}

/** InvokeAI 3 and later: `core_metadata` of its graphs. @param {any} json */
function invoke(json) {
  if (own(json, 'positive_prompt') === undefined && own(json, 'generation_mode') === undefined) return undefined;
  const model = own(json, 'model');
  return {
    model: text(own(model, 'name', 'model_name')),
    options: {
      ...usual(json),
      promptSyntax: /** @type {const} */ ('plain'),
      rng: /** @type {GenerateOptions['rng']} */ (own(json, 'rand_device') === 'cuda' ? 'torch-cuda' : 'torch-cpu'),
      guidanceRescale: number(own(json, 'cfg_rescale_multiplier')) || undefined,
      scheduler: schedulerIn(text(own(json, 'scheduler'))),
      clipSkip: number(own(json, 'clip_skip')) || undefined,
      strength: number(own(json, 'strength')),
    },
  };
}

/** "words [what not]" of InvokeAI 2. @param {string} prompt */
function halves(prompt) {
  const open = prompt.endsWith(']') ? prompt.indexOf('[') : -1;
  if (open < 0) return { prompt: prompt.trim(), negativePrompt: '' };
  return { prompt: prompt.slice(0, open).trim(), negativePrompt: prompt.slice(open + 1, -1).trim() };
}

/** InvokeAI 2: "sd-metadata". @param {any} json */
function invoke2(json) {
  const image = own(json, 'image');
  if (typeof image !== 'object' || !image) return undefined;
  const prompt = own(image, 'prompt');
  return {
    model: text(own(json, 'model_weights')),
    options: {
      ...usual(image),
      ...halves(text(Array.isArray(prompt) ? own(prompt[0], 'prompt') : prompt) ?? ''),
      promptSyntax: /** @type {const} */ ('plain'),
      scheduler: schedulerIn(text(own(image, 'sampler'))),
    },
  };
}

/** InvokeAI 1: the command, "a cat [dog]" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms. @param {string} dream */
function invoke1(dream) {
  const close = dream.lastIndexOf('"');
  if (!dream.startsWith('"') || close < 1) return undefined;
  /** @type {Map<string, string>} */
  const flags = new Map();
  for (const [, flag, value] of dream.slice(close + 1).matchAll(/-([a-zA-Z]{1,20}) ?([\w.]+)/g)) flags.set(flag, value);
  return {
    options: {
      ...halves(dream.slice(1, close)),
      promptSyntax: /** @type {const} */ ('plain'),
      numInferenceSteps: number(flags.get('s')),
      seed: number(flags.get('S')),
      width: number(flags.get('W')),
      height: number(flags.get('H')),
      guidanceScale: number(flags.get('C')),
      scheduler: schedulerIn(flags.get('A')),
      strength: number(flags.get('f')),
    },
  };
}

/** NovelAI: "Comment", of its own words; "Description" is the prompt. @param {any} json @param {Texts} [texts] */
function novel(json, texts) {
  if (own(json, 'uc') === undefined && own(json, 'v4_prompt') === undefined) return undefined;
  /** @param {string} key */
  const caption = (key) => text(own(own(own(json, key), 'caption'), 'base_caption'));
  const found = usual(json);
  return {
    model: texts?.get('Source'),
    options: {
      ...found,
      prompt: found.prompt || caption('v4_prompt') || (texts?.get('Description') ?? ''),
      negativePrompt: found.negativePrompt || (caption('v4_negative_prompt') ?? ''),
      promptSyntax: /** @type {const} */ ('plain'),
      guidanceRescale: number(own(json, 'cfg_rescale')) || undefined,
      scheduler: schedulerIn(text(own(json, 'sampler')), text(own(json, 'noise_schedule'))),
      strength: number(own(json, 'strength')),
    },
  };
}

/** Fooocus: its own scheme (`modules/meta_parser.py`), and that of its log. @param {any} json */
function fooocus(json) {
  const base = text(own(json, 'base_model', 'Base Model'));
  if (base === undefined) return undefined;
  const size = /(\d+)\D+(\d+)/.exec(text(own(json, 'resolution', 'Resolution')) ?? '');
  return {
    model: base,
    options: {
      ...usual(json), ...COMFY,
      ...(size && { width: Number(size[1]), height: Number(size[2]) }),
      scheduler: schedulerIn(text(own(json, 'sampler', 'Sampler')), text(own(json, 'scheduler', 'Scheduler'))),
      clipSkip: clipSkip(own(json, 'clip_skip', 'CLIP Skip')),
    },
  };
}

/** Easy Diffusion, under either kind of names. @param {any} json */
function easy(json) {
  const model = text(own(json, 'use_stable_diffusion_model', 'Stable Diffusion model'));
  if (model === undefined) return undefined;
  return {
    model,
    options: {
      ...usual(json),
      promptSyntax: /** @type {const} */ ('a1111'),
      scheduler: schedulerIn(text(own(json, 'sampler_name', 'Sampler'))),
      clipSkip: own(json, 'clip_skip', 'Clip Skip') === true ? 1 : undefined,
      strength: number(own(json, 'prompt_strength', 'Prompt Strength')),
    },
  };
}

/** Draw Things: the comment in its XMP. @param {any} json */
function drawThings(json) {
  const size = /^(\d+)x(\d+)$/.exec(text(own(json, 'size')) ?? '');
  if (!size || own(json, 'c') === undefined) return undefined;
  return {
    model: text(own(json, 'model')),
    options: {
      ...usual(json),
      prompt: text(own(json, 'c')) ?? '',
      promptSyntax: /** @type {const} */ ('a1111'),
      width: Number(size[1]),
      height: Number(size[2]),
      scheduler: schedulerIn(text(own(json, 'sampler'))),
    },
  };
}

/** XML's names of characters. */
const ENTITIES = new Map(Object.entries({
  'quot': '"', 'amp': '&', 'lt': '<', 'gt': '>', 'apos': '\'', '#34': '"', '#39': '\'',
}));

/** The comment in XMP, which is JSON with XML's names for quotes. @param {string | undefined} xmp */
function commentIn(xmp) {
  const tag = xmp?.indexOf('<exif:UserComment>') ?? -1;
  if (!xmp || tag < 0) return undefined;
  const [start, end] = [xmp.indexOf('{', tag), xmp.indexOf('</exif:UserComment>', tag)];
  if (start < 0 || end < start) return undefined;
  const json = xmp.slice(start, xmp.lastIndexOf('}', end) + 1);
  return json.replace(/&(#?\w{1,6});/g, (whole, name) => ENTITIES.get(name) ?? whole);
}

/**
 * Readers of a JSON text that may be any program's.
 * @type {((json: any, texts?: Texts) => Omit<Told, 'source'> | undefined)[]}
 */
const READERS = [swarm, fooocus, invoke, invoke2, easy, drawThings, novel, comfyOptions];

/**
 * What a text of JSON tells.
 * @param {string | undefined} source
 * @param {Texts} [texts] those beside it
 * @returns {Told | undefined}
 */
export function toldByJson(source, texts) {
  const json = objectIn(source);
  if (source === undefined || json === undefined) return undefined;
  for (const read of READERS) {
    const told = read(json, texts);
    if (told) return { source, ...told };
  }
  return undefined;
}

/** Easy Diffusion writes each setting into a chunk of its own. @param {Texts} texts @returns {Told | undefined} */
function toldByChunks(texts) {
  const found = easy(Object.fromEntries(texts));
  return found && { source: JSON.stringify(Object.fromEntries(texts)), ...found };
}

/**
 * What the texts of a picture tell that are not A1111's.
 * @param {Texts} texts
 * @returns {Told | undefined}
 */
export function toldBy(texts) {
  for (const name of ['invokeai_metadata', 'sd-metadata', 'Comment', 'UserComment', 'prompt']) {
    const told = toldByJson(texts.get(name), texts);
    if (told) return told;
  }
  // ComfyUI's WebP: "prompt:{...}" in a tag of Exif.
  for (const name of ['Model', 'Make', 'ImageDescription']) {
    const told = toldByJson(texts.get(name)?.replace(/^prompt: ?/i, ''), texts);
    if (told) return told;
  }
  const dream = texts.get('Dream');
  const old = dream === undefined ? undefined : invoke1(dream);
  if (dream !== undefined && old) return { source: dream, ...old };
  return toldByJson(commentIn(texts.get('XML:com.adobe.xmp')), texts) ?? toldByChunks(texts);
}
