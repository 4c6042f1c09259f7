/**
 * The files beside the model that a picture was drawn with: LoRAs, from tags of its prompt, A1111's "Lora hashes" and our
 * own "LoRA 0"; ControlNets, from "ControlNet 0"; IP-Adapters, which A1111's extension has among these, and our own
 * "IP-Adapter 0".
 */
import { NAMES } from '../names.js';
import { number } from './values.js';

/** @typedef {import('./text.js').Fields} Fields */
/** @typedef {import('../browser-diffusion.js').Needs} Needs */

/** A1111's word for guess mode. */
export const GUESSES = 'ControlNet is more important';
/** No picture has more; a text that says so is not believed. */
const MOST_NEEDS = 64;

/**
 * The values of a list, the parts of each by their names in small letters.
 * @param {Fields} fields
 * @param {string} name "name", "name 0", "name 1" ...
 * @returns {Partial<Fields>[]}
 */
export function listIn(fields, name) {
  const values = Object.entries(fields).filter(([key]) => key.replace(/ \d+$/, '') === name);
  return values.slice(0, MOST_NEEDS).map(([, value]) =>
    Object.fromEntries(partsIn(value).map(([part, its]) => [part.toLowerCase(), its])));
}

/** The parts of "Module: canny, Model: ...". @param {string} value @returns {[string, string][]} */
function partsIn(value) {
  return value.split(/, (?=[^,:]+: )/).flatMap((part) => {
    const colon = part.indexOf(': ');
    return colon < 0 ? [] : [[part.slice(0, colon).trim(), part.slice(colon + 2).trim()]];
  });
}

/** The LoRAs that "LoRA 0", "LoRA 1" ... name, and how strong each is. @param {Fields} fields */
const fieldLoras = (fields) => listIn(fields, 'LoRA').flatMap(({ model, weight }) =>
  (model ? [/** @type {const} */ ([model, number(weight) ?? 1])] : []));

/** @typedef {import('../browser-diffusion.js').ControlNet} Control */
/**
 * A ControlNet as A1111's extension for them writes it, now and until 2023 ("starting/ending: (0, 1)").
 * @param {Partial<Fields>} parts
 * @returns {Needs['controlnets']}
 */
function controlIn(parts) {
  const { module = parts.preprocessor ?? 'none', model = 'None', weight } = parts;
  const name = withoutHash(model);
  if (name === 'None' || name === '') return []; // a preprocessor alone, which changes nothing here
  const both = (/** @type {string} */ old) => parts[old]?.replace(/[()]/g, '').split(',').map(Number) ?? [];
  const [from, to] = both('starting/ending');
  const [, a, b] = both('preprocessor params');
  const start = number(parts['guidance start']) ?? from;
  const end = number(parts['guidance end']) ?? to;
  const low = number(parts['threshold a']) ?? a ?? NaN;
  const high = number(parts['threshold b']) ?? b ?? NaN;
  const preprocess = /** @type {Control['preprocess']} */ (NAMES.preprocess.find((its) => its === module));
  const named = NAMES.mode.find((its) => its === parts['union control type']);
  const mode = /** @type {Control['mode']} */ (named);
  return [{
    name,
    module,
    ...(preprocess && { preprocess }),
    ...(module === 'canny' && low >= 0 && high >= 0 && { low, high }),
    ...(mode && { mode }),
    scale: number(weight) ?? 1,
    ...(0 <= start && start < end && end <= 1 ? { start, end } : { start: 0, end: 1 }),
  }];
}

/** Whether a ControlNet of A1111's is an IP-Adapter. @param {Partial<Fields>} parts */
const isAdapter = ({ module = '' }) => module.startsWith('ip-adapter');

/** @param {Partial<Fields>} parts @returns {NonNullable<Needs['ipAdapters']>} */
function adapterIn({ model = 'None', 'image encoder': imageEncoder, weight }) {
  const name = withoutHash(model);
  if (name === 'None' || name === '') return [];
  return [{ name, ...(imageEncoder && { imageEncoder }), scale: number(weight) ?? 1 }];
}

/** "control_v11p_sd15_canny [d14c016b]": the name. @param {string} model */
const withoutHash = (model) => model.replace(/ \[\w+\]$/, '');

/**
 * The LoRAs that tags of a prompt name. What a tag does, the engine knows (src/prompt/grammar.rs); which file it takes
 * is all that is read here.
 * @param {string} prompt
 * @param {string} [syntax] of the prompt; in a plain one a tag is text
 */
export function tagged(prompt, syntax = 'plain') {
  const tags = syntax === 'plain' ? [] : prompt.split('<lora:').slice(1).filter((tag) => tag.indexOf('>') > 0);
  return tags.map((tag) => {
    const [name, weight = ''] = tag.slice(0, tag.indexOf('>')).split(':');
    return /** @type {const} */ ([name, number(weight.trim() || '1') ?? 1]);
  });
}

/**
 * @param {{ prompt: string, fields: Fields }} text
 * @param {string} [syntax] of the prompt
 * @returns {Needs}
 */
export function needsOf({ prompt, fields }, syntax) {
  /** @type {Map<string, Needs['loras'][number]>} by name: a tag counts before a field, the last tag before the first */
  const loras = new Map();
  for (const [name, hash] of partsIn(fields['Lora hashes'] ?? '')) loras.set(name, { name, scale: 1, hash });
  for (const [name, scale] of [...fieldLoras(fields), ...tagged(prompt, syntax)]) {
    loras.set(name, { ...loras.get(name), name, scale });
  }
  const units = listIn(fields, 'ControlNet');
  const ipAdapters = [...listIn(fields, 'IP-Adapter'), ...units.filter(isAdapter)].flatMap(adapterIn);
  return {
    loras: [...loras.values()].slice(0, MOST_NEEDS),
    controlnets: units.filter((parts) => !isAdapter(parts)).flatMap(controlIn),
    ...(ipAdapters.length > 0 && { ipAdapters }),
  };
}
