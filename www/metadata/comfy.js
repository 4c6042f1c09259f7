/**
 * ComfyUI's graph, as its pictures carry it: which sampler drew first, and what its links lead to. A second sampler over
 * the enlarged result is the second pass.
 */
import { schedulerIn } from './schedulers.js';
import { number, text } from './values.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/**
 * @typedef {{ type: string, inputs: Map<string, unknown> }} Node
 * @typedef {Map<string, Node>} Graph
 */

/** Links followed one after another; a graph that is drawn by hand has no more. */
const DEEPEST = 200;

/** Inputs that hold a value of another node's output, in primitive nodes and those of packs. */
const PRIMITIVES =
  ['value', 'text', 'string', 'seed', 'noise_seed', 'int', 'float', 'number', 'Value', 'Text', 'prompt'];

/** Links that lead on to where a value may stand: SamplerCustom's parts. */
const PARTS = ['guider', 'sampler', 'sigmas', 'noise'];

/** Links along which a latent comes. */
const LATENTS = ['samples', 'latent_image', 'latent', 'pixels', 'image', 'images'];

/**
 * @param {Record<string, any>} json
 * @returns {{ options: GenerateOptions, model?: string } | undefined} nothing where it is no graph with a sampler
 */
export function comfyOptions(json) {
  /** @type {Graph} */
  const graph = new Map();
  for (const [id, node] of Object.entries(json)) {
    const inputs = node?.inputs;
    if (typeof node?.class_type !== 'string' || typeof inputs !== 'object' || !inputs) continue;
    graph.set(id, { type: node.class_type, inputs: new Map(Object.entries(inputs)) });
  }
  const passes = longestChain(graph);
  return passes.length > 0 ? optionsOf(graph, passes) : undefined;
}

/** @param {Graph} graph @param {unknown} link @returns {Node | undefined} */
const linked = (graph, link) => (Array.isArray(link) ? graph.get(String(link[0])) : undefined);

/** @param {Node} node */
const isSampler = ({ type, inputs }) =>
  (/KSampler|SamplerCustom/.test(type) && type !== 'KSamplerSelect') ||
  (inputs.has('sampler_name') && inputs.has('steps'));

/** A sampler and what its latent came through. @typedef {{ sampler: Node, between: Node[] }} Pass */

/** The samplers that drew one after another, the last first: the longest such row. @param {Graph} graph */
function longestChain(graph) {
  /** @type {Pass[]} */
  let longest = [];
  for (const node of graph.values()) {
    if (!isSampler(node) || longest.some(({ sampler }) => sampler === node)) continue;
    const chain = chainFrom(graph, node);
    if (chain.length > longest.length) longest = chain;
  }
  return longest;
}

/** @param {Graph} graph @param {Node} last @returns {Pass[]} */
function chainFrom(graph, last) {
  /** @type {Pass[]} */
  const chain = [];
  const seen = new Set();
  for (let node = /** @type {Node | undefined} */ (last); node && !seen.has(node) && seen.size < DEEPEST;) {
    seen.add(node);
    if (isSampler(node)) chain.push({ sampler: node, between: [] });
    else chain.at(-1)?.between.push(node);
    const from = node;
    node = LATENTS.map((name) => linked(graph, from.inputs.get(name))).find(Boolean);
  }
  return chain;
}

/** The value of an input: its own, or of the nodes that it leads to. @param {Graph} graph @param {unknown} value */
function valueOf(graph, value) {
  for (let depth = 0; Array.isArray(value) && depth < DEEPEST; depth++) {
    const inputs = linked(graph, value)?.inputs;
    value = inputs && PRIMITIVES.map((name) => inputs.get(name)).find((each) => each !== undefined);
  }
  return Array.isArray(value) ? undefined : value;
}

/**
 * An input of a sampler, or of the nodes that it is put together from.
 * @param {Graph} graph
 * @param {Node} sampler
 * @param {string[]} names
 */
function inputOf(graph, sampler, ...names) {
  const parts = PARTS.map((part) => linked(graph, sampler.inputs.get(part))).filter((part) => part !== undefined);
  for (const { inputs } of [sampler, ...parts]) {
    const name = names.find((each) => inputs.has(each));
    if (name) return inputs.get(name);
  }
  return undefined;
}

/**
 * The words that a conditioning was made of.
 * @param {Graph} graph
 * @param {unknown} link
 * @param {string} kind 'positive' or 'negative', for nodes that pass both on
 */
function wordsOf(graph, link, kind) {
  /** @type {string[]} */
  const words = [];
  /** @type {Node[]} */
  const encoders = [];
  const seen = new Set();
  for (const waiting = [link]; waiting.length > 0;) {
    const next = waiting.shift();
    const node = linked(graph, next);
    if (typeof next === 'string') words.push(next);
    if (!node || seen.has(node) || node.type === 'ConditioningZeroOut') continue;
    seen.add(node);
    const own = ['text', 'text_g', 'text_l', 'prompt'].filter((name) => node.inputs.has(name));
    const texts = own.map((name) => text(valueOf(graph, node.inputs.get(name)))).filter(Boolean);
    if (own.length > 0) {
      encoders.push(node);
      words.push(...new Set(/** @type {string[]} */ (texts)));
    } else if (node.inputs.has(kind)) waiting.push(node.inputs.get(kind));
    else waiting.push(...[...node.inputs].filter(([name]) => /^cond/.test(name)).map(([, value]) => value));
  }
  return { words: words.join(', '), encoders };
}

/** Along links of one name to a node that has an input. @param {Graph} graph @param {Node | undefined} node */
function upTo(graph, node, /** @type {string} */ along, /** @type {string[]} */ names) {
  for (let depth = 0; node && depth < DEEPEST; depth++) {
    const { inputs } = node;
    const name = names.find((each) => inputs.has(each));
    if (name) return valueOf(graph, inputs.get(name));
    node = linked(graph, inputs.get(along));
  }
  return undefined;
}

/** @param {Graph} graph @param {Pass[]} passes */
function optionsOf(graph, passes) {
  const { sampler, between } = /** @type {Pass} */ (passes.at(-1));
  /** @param {...string} names */
  const input = (...names) => valueOf(graph, inputOf(graph, sampler, ...names));
  const positive = wordsOf(graph, inputOf(graph, sampler, 'positive', 'conditioning'), 'positive');
  const negative = wordsOf(graph, inputOf(graph, sampler, 'negative'), 'negative');
  const skip = upTo(graph, linked(graph, positive.encoders[0]?.inputs.get('clip')), 'clip', ['stop_at_clip_layer']);
  const latent = between.find(({ inputs }) => inputs.has('width') && inputs.has('height'));
  const denoise = number(input('denoise'));
  const fromPicture = between.some(({ type }) => /^VAEEncode/.test(type));
  const model = linked(graph, inputOf(graph, sampler, 'model'));
  return {
    model: text(upTo(graph, model, 'model', ['ckpt_name', 'unet_name'])),
    options: {
      prompt: positive.words,
      negativePrompt: negative.words,
      promptSyntax: /** @type {const} */ ('comfy'),
      numInferenceSteps: number(input('steps')),
      guidanceScale: number(input('cfg')) ?? (sampler.inputs.has('guider') ? 1 : undefined),
      seed: number(input('seed', 'noise_seed')),
      rng: /** @type {const} */ ('torch-cpu'),
      scheduler: schedulerIn(text(input('sampler_name')), text(input('scheduler'))),
      width: number(valueOf(graph, latent?.inputs.get('width'))),
      height: number(valueOf(graph, latent?.inputs.get('height'))),
      // -1 is all layers.
      clipSkip: skip === undefined ? undefined : Math.max(0, -1 - (number(skip) ?? -1)),
      ...(fromPicture && denoise !== undefined && { strength: denoise, strengthSteps: /** @type {const} */ ('exact') }),
      ...(!fromPicture && secondPass(graph, passes.at(-2))),
    },
  };
}

const UPSCALERS = new Map(Object.entries(/** @type {const} */ ({
  'nearest-exact': 'latent-nearest', 'bilinear': 'latent', 'area': 'latent', 'bicubic': 'latent-bicubic',
  'bislerp': 'latent-bicubic',
})));

/** @param {Graph} graph @param {Pass | undefined} pass */
function secondPass(graph, pass) {
  const enlarges = pass?.between.find(({ type, inputs }) => /Upscale|Scale/.test(type) &&
    (inputs.has('scale_by') || (inputs.has('width') && inputs.has('height'))));
  if (!pass || !enlarges) return {};
  /** @param {string} name */
  const size = (name) => number(valueOf(graph, enlarges.inputs.get(name))) || undefined;
  const byLatents = /^Latent/.test(enlarges.type);
  const method = text(enlarges.inputs.get('upscale_method')) ?? '';
  return {
    strengthSteps: /** @type {const} */ ('exact'),
    hires: {
      scale: size('scale_by'), width: size('width'), height: size('height'),
      upscaler: byLatents ? UPSCALERS.get(method) : /** @type {const} */ ('picture'),
      steps: number(valueOf(graph, inputOf(graph, pass.sampler, 'steps'))),
      strength: number(valueOf(graph, inputOf(graph, pass.sampler, 'denoise'))) ?? 1,
    },
  };
}
