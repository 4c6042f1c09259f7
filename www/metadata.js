/**
 * The `parameters` text of AUTOMATIC1111: how a picture was made, as its PNG carries it, and back into options of
 * `generate`. Layout and words: `create_infotext` and `parse_generation_parameters` of A1111 1.10. No DOM.
 */
import { SAMPLERS, SCHEDULES } from './samplers.js';

/**
 * @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions
 * @typedef {import('./browser-diffusion.js').Needs} Needs
 */

/** Of Cargo.toml; a test compares them. */
const VERSION = '0.1.0';

/**
 * A request as it was drawn: the caller's options, with what the engine settled in place of those left out.
 * @typedef {{ key: string, source?: string, preprocess?: string, low?: number, high?: number, scale?: number,
 *   start?: number, end?: number }} MadeControl
 * @typedef {{ source: string, name: string, scale: number }} MadeLora
 * @typedef {Omit<GenerateOptions, 'image' | 'maskImage' | 'controlnets' | 'loras'> & { model: string, image?: object,
 *   maskImage?: object, controlnets?: MadeControl[], loras?: MadeLora[] }} Made
 */

/**
 * A field of the text. `write` gives its value, or nothing where the field is left out; the values of a list are
 * written as "name 0", "name 1". `read` turns its value, where there is one, into options; what it cannot read is
 * undefined.
 * @typedef {string | number | false | undefined} Value
 * @typedef {Record<string, string>} Fields
 * @typedef {{
 *   name: string,
 *   write(made: Made): Value | string[],
 *   read?(value: string | undefined, fields: Fields): Partial<GenerateOptions>,
 * }} Field
 */

// ------------------------------------------------------------------------------------------- values as text

/** @param {string | undefined} value */
const numberIn = (value) => (value !== undefined && Number.isFinite(Number(value)) ? Number(value) : undefined);

/** @param {string | undefined} value @returns {[number, number] | undefined} */
function sizeIn(value) {
  const found = /^(\d+)x(\d+)$/.exec(value ?? '');
  return found ? [Number(found[1]), Number(found[2])] : undefined;
}

/** A number that the engine computes with in f32: the shortest decimal that stands for it. @param {number} value */
function single(value) {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(Math.fround(value).toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return Number(Math.fround(value).toPrecision(9));
}

/**
 * A number that an option of `generate` has. `usual`: the value that is left out; `f32`: the engine computes with it in
 * f32.
 * @param {string} name
 * @param {keyof GenerateOptions} option
 * @param {{ usual?: number, f32?: boolean, when?(made: Made): unknown }} [how] when: what else it takes to be written
 * @returns {Field}
 */
const number = (name, option, { usual, f32 = false, when = () => true } = {}) => ({
  name,
  write: (made) => {
    const value = /** @type {number | undefined} */ (made[option]);
    return value !== undefined && value !== usual && Boolean(when(made)) && (f32 ? single(value) : value);
  },
  read: (value) => ({ [option]: numberIn(value) }),
});

/** A1111's words for values of an option. */
const EMPHASIS = /** @type {const} */ ({ None: 'plain', Comfy: 'comfy' });
const UPSCALERS = /** @type {const} */ ({
  'Latent': 'latent', 'Latent (nearest)': 'latent-nearest', 'Latent (bicubic)': 'latent-bicubic', 'Lanczos': 'picture',
});
const MASKED_CONTENTS = /** @type {const} */ ({
  'fill': 'fill', 'original': 'original', 'latent noise': 'noise', 'latent nothing': 'nothing',
});

/**
 * @template {string} T
 * @param {Record<string, T>} words
 * @param {string | undefined} word
 * @returns {T | undefined}
 */
const valueOf = (words, word) => (word !== undefined && Object.hasOwn(words, word) ? words[word] : undefined);

/** @param {Record<string, string>} words @param {string | undefined} value */
const wordOf = (words, value) => Object.keys(words).find((word) => words[word] === value);

// ----------------------------------------------------------------------------------------------- samplers

/**
 * The rows of the sampler and the schedule that a name of `scheduler` stands for.
 * @param {string} name
 */
function partsOf(name) {
  for (const sampler of SAMPLERS) {
    if (name === sampler.name) return { sampler };
    const schedule = SCHEDULES.find((each) => sampler.schedules && name === `${sampler.name}_${each.name}`);
    if (schedule) return { sampler, schedule };
  }
  return {};
}

/**
 * What can be turned on a sampler: the usual `eta`, and whether it knows `sChurn`.
 * @param {string} name of `scheduler`
 * @returns {{ eta?: number, sChurn: boolean }}
 */
export function tuningOf(name) {
  const { sampler } = partsOf(name);
  return { eta: sampler?.eta, sChurn: sampler?.churn ?? false };
}

/**
 * A name of `scheduler` in A1111's words: "DPM++ 2M · Karras".
 * @param {string} name
 */
export function schedulerLabel(name) {
  const { sampler, schedule } = partsOf(name);
  return schedule ? `${sampler.label} · ${schedule.label}` : sampler?.label ?? name;
}

/**
 * The name of `scheduler` that two fields mean, if there is one.
 * @param {string | undefined} label
 * @param {string | undefined} scheduleLabel
 */
function schedulerIn(label, scheduleLabel) {
  if (label === undefined) return undefined;
  const isLabel = (/** @type {string} */ other) => SAMPLERS.some((each) => each.label === other);
  // Until A1111 1.8 the schedule stood in the sampler's name.
  const within = isLabel(label) ? undefined : SCHEDULES.find((each) => label.endsWith(` ${each.label}`));
  const own = within ? label.slice(0, -within.label.length - 1) : label;
  const schedule = within ?? SCHEDULES.find((each) => each.label === scheduleLabel);
  const name = SAMPLERS.find((each) => each.label === own)?.name ?? own;
  return [schedule && `${name}_${schedule.name}`, name].find((each) => each !== undefined && partsOf(each).sampler);
}

// --------------------------------------------------------------------------------------------- the fields

/** @param {NonNullable<GenerateOptions['hires']>['upscaler']} [upscaler] */
const upscalerWord = (upscaler = 'latent') =>
  (typeof upscaler === 'string' ? wordOf(UPSCALERS, upscaler) : 'ESRGAN');

/** @param {Made} made */
const hasMask = ({ maskImage, outpaint }) => Boolean(maskImage || outpaint);

/**
 * A ControlNet as A1111's extension for them writes it.
 * @param {MadeControl} control
 * @param {boolean} [guessMode]
 */
function controlText({ key, source = key, preprocess = 'none', ...more }, guessMode) {
  const { low = 100, high = 200, scale = 1, start = 0, end = 1 } = more;
  const module = preprocess === 'canny' ? `canny, Threshold A: ${low}, Threshold B: ${high}` : preprocess;
  const mode = guessMode ? GUESSES : 'Balanced';
  return `Module: ${module}, Model: ${source}, Weight: ${single(scale)}, Guidance Start: ${start}, ` +
    `Guidance End: ${end}, Control Mode: ${mode}`;
}

/** A1111's word for guess mode. */
const GUESSES = 'ControlNet is more important';
/** No picture has more; a text that says so is not believed. */
const MOST_NEEDS = 64;

/**
 * The values of a list, the parts of each by their names in small letters.
 * @param {Fields} fields
 * @param {string} name "name", "name 0", "name 1" ...
 * @returns {Partial<Fields>[]}
 */
function listIn(fields, name) {
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
  (model ? [/** @type {const} */ ([model, numberIn(weight) ?? 1])] : []));

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
  const start = numberIn(parts['guidance start']) ?? from;
  const end = numberIn(parts['guidance end']) ?? to;
  const low = numberIn(parts['threshold a']) ?? a ?? NaN;
  const high = numberIn(parts['threshold b']) ?? b ?? NaN;
  return [{
    name,
    module,
    ...((module === 'none' || module === 'canny') && { preprocess: module }),
    ...(module === 'canny' && low >= 0 && high >= 0 && { low, high }),
    scale: numberIn(weight) ?? 1,
    ...(0 <= start && start < end && end <= 1 ? { start, end } : { start: 0, end: 1 }),
  }];
}

/** "control_v11p_sd15_canny [d14c016b]": the name. @param {string} model */
const withoutHash = (model) => model.replace(/ \[\w+\]$/, '');

/**
 * The LoRAs that tags of a prompt name. What a tag does, the engine knows (src/prompt/grammar.rs); which file it takes
 * is all that is read here.
 * @param {string} prompt
 * @param {string} [syntax] of the prompt; in a plain one a tag is text
 */
function tagged(prompt, syntax = 'plain') {
  const tags = syntax === 'plain' ? [] : prompt.split('<lora:').slice(1).filter((tag) => tag.indexOf('>') > 0);
  return tags.map((tag) => {
    const [name, weight = ''] = tag.slice(0, tag.indexOf('>')).split(':');
    return /** @type {const} */ ([name, numberIn(weight.trim() || '1') ?? 1]);
  });
}

/**
 * Every field, in the order in which they are written: an option of `generate` that a PNG is to tell is one row. Names
 * and values are A1111's, but for those of guidance and "LoRA", which it does not have.
 * @type {Field[]}
 */
const FIELDS = [
  number('Steps', 'numInferenceSteps'),
  {
    name: 'Sampler',
    write: ({ scheduler = '' }) => partsOf(scheduler).sampler?.label ?? scheduler,
    read: (value, fields) => ({ scheduler: schedulerIn(value, fields['Schedule type']) }),
  },
  { name: 'Schedule type', write: ({ scheduler = '' }) => partsOf(scheduler).schedule?.label },
  number('CFG scale', 'guidanceScale', { f32: true }),
  number('Seed', 'seed'),
  {
    name: 'Size',
    write: ({ width, height }) => `${width}x${height}`,
    read: (value) => {
      const [width, height] = sizeIn(value) ?? [];
      return { width, height };
    },
  },
  { name: 'Model', write: ({ model }) => model },
  number('Denoising strength', 'strength', { when: ({ image }) => image }),
  {
    // A1111 counts the layer that it stops at, diffusers the layers left out.
    name: 'Clip skip',
    write: ({ clipSkip = 0 }) => clipSkip > 0 && clipSkip + 1,
    read: (value) => {
      const layer = numberIn(value);
      return { clipSkip: layer === undefined ? undefined : Math.max(0, layer - 1) };
    },
  },
  {
    name: 'Variation seed',
    write: ({ variationSeed = 0, variationStrength }) => (variationStrength ? variationSeed : undefined),
    read: (value) => ({ variationSeed: numberIn(value) }),
  },
  number('Variation seed strength', 'variationStrength', { usual: 0, f32: true }),
  {
    name: 'Seed resize from',
    write: ({ seedResizeFrom }) => seedResizeFrom?.join('x'),
    read: (value) => ({ seedResizeFrom: sizeIn(value) }),
  },
  number('Eta', 'eta', { f32: true }),
  number('Sigma churn', 'sChurn', { usual: 0, f32: true }),
  number('Sigma tmin', 'sTmin', { usual: 0, f32: true }),
  number('Sigma tmax', 'sTmax', { f32: true }),
  number('Sigma noise', 'sNoise', { usual: 1, f32: true }),
  {
    // A1111 writes the generator unless it is the graphics card's.
    name: 'RNG',
    write: ({ rng }) => (rng === 'torch-cuda' ? 'NV' : 'CPU'),
    read: (value, { Seed }) => ({ rng: Seed === undefined ? undefined : value === 'CPU' ? 'torch-cpu' : 'torch-cuda' }),
  },
  {
    // "None" is A1111's word for reading brackets and colons as they stand.
    name: 'Emphasis',
    write: ({ promptSyntax = 'plain' }) => wordOf(EMPHASIS, promptSyntax),
    read: (value) => ({ promptSyntax: valueOf(EMPHASIS, value) ?? 'a1111' }),
  },
  {
    name: 'ControlNet',
    write: ({ controlnets = [], guessMode }) => controlnets.map((control) => controlText(control, guessMode)),
    // There each has its own mode.
    read: (_, fields) => {
      const guesses = listIn(fields, 'ControlNet').some((parts) => parts['control mode'] === GUESSES);
      return { guessMode: guesses || undefined };
    },
  },
  {
    // Those that no tag of the prompt names, for which A1111 has no field: there every LoRA has a tag.
    name: 'LoRA',
    write: ({ loras = [], prompt, promptSyntax }) => {
      const names = tagged(prompt, promptSyntax).map(([name]) => name);
      return loras.filter(({ name, scale }) => scale !== 0 && !names.includes(name))
        .map(({ source, scale }) => `Model: ${source}, Weight: ${single(scale)}`);
    },
  },
  {
    // The second pass's, where there is one: see optionsOf.
    name: 'Denoising strength',
    write: ({ hires }) => hires && (hires.strength ?? 0.7),
    read: (value) => ({ hires: { strength: numberIn(value) } }),
  },
  {
    name: 'Hires resize',
    write: ({ hires }) => hires?.width && hires.height && `${hires.width}x${hires.height}`,
    read: (value) => {
      const [width, height] = sizeIn(value) ?? [];
      return { hires: { width, height } };
    },
  },
  {
    name: 'Hires upscale',
    write: ({ hires }) => hires && !(hires.width && hires.height) && (hires.scale ?? 2),
    read: (value, fields) => ({ hires: { scale: sizeIn(fields['Hires resize']) ? undefined : numberIn(value) } }),
  },
  {
    name: 'Hires steps',
    write: ({ hires }) => hires?.steps,
    read: (value) => ({ hires: { steps: numberIn(value) } }),
  },
  {
    name: 'Hires upscaler',
    write: ({ hires }) => hires && upscalerWord(hires.upscaler),
    // Without a word it is A1111's usual.
    read: (value = 'Latent') => ({ hires: { upscaler: valueOf(UPSCALERS, value) } }),
  },
  number('Mask blur', 'maskBlur', { usual: 0, when: hasMask }),
  {
    name: 'Mask mode',
    write: (made) => hasMask(made) && made.invertMask && 'Inpaint not masked',
    read: (value) => ({ invertMask: value === 'Inpaint not masked' || undefined }),
  },
  {
    name: 'Masked content',
    write: (made) => hasMask(made) && wordOf(MASKED_CONTENTS, made.maskedContent),
    read: (value) => ({ maskedContent: valueOf(MASKED_CONTENTS, value) }),
  },
  {
    name: 'Inpaint area',
    write: (made) => hasMask(made) && made.inpaintArea === 'masked' && 'Only masked',
    read: (value) => ({ inpaintArea: value === 'Only masked' ? 'masked' : undefined }),
  },
  {
    name: 'Masked area padding',
    write: (made) => hasMask(made) && made.inpaintArea === 'masked' && (made.maskPadding ?? 32),
    read: (value) => ({ maskPadding: numberIn(value) }),
  },
  number('Guidance rescale', 'guidanceRescale', { usual: 0 }),
  {
    name: 'Guidance interval',
    write: ({ guidanceInterval: [start, end] = [0, 1] }) => (start > 0 || end < 1) && `${start} to ${end}`,
    read: (value = '') => {
      const [start = NaN, end = NaN] = value.split(' to ').map(Number);
      return { guidanceInterval: 0 <= start && start < end && end <= 1 ? [start, end] : undefined };
    },
  },
  { name: 'Version', write: () => `browser-diffusion ${VERSION}` },
];

// ------------------------------------------------------------------------------------ the text, both ways

/**
 * The text of a picture.
 * @param {Made} made
 */
export function parametersOf(made) {
  const fields = FIELDS.flatMap(({ name, write }) => {
    const value = write(made);
    if (value === undefined || value === false) return [];
    if (Array.isArray(value)) return value.map((each, i) => `${name} ${i}: ${quoted(each)}`);
    return [`${name}: ${quoted(String(value))}`];
  });
  const negative = made.negativePrompt ? `\nNegative prompt: ${made.negativePrompt}` : '';
  return `${made.prompt}${negative}\n${fields.join(', ')}`;
}

/** A value with a comma, a colon or a line break is written as a JSON string. @param {string} value */
const quoted = (value) => (/[,:\n]/.test(value) ? JSON.stringify(value) : value);

/**
 * Prompt, negative prompt and the fields of the last line.
 * @param {string} text
 * @returns {{ prompt: string, negativePrompt: string, fields: Fields }}
 */
export function parseParameters(text) {
  const field = /\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g;
  const lines = text.trim().split('\n');
  /** @type {Fields} */
  const fields = {};
  const last = [...(lines.at(-1) ?? '').matchAll(field)];
  // A1111's own rule: a last line of fewer fields is still prompt.
  if (last.length >= 3) {
    lines.pop();
    for (const [, name, value] of last) fields[name] = unquoted(value.trim());
  }
  const negative = lines.findIndex((line) => line.trim().startsWith('Negative prompt:'));
  const prompt = (negative < 0 ? lines : lines.slice(0, negative)).join('\n').trim();
  const negativePrompt =
    negative < 0 ? '' : lines.slice(negative).join('\n').trim().slice('Negative prompt:'.length).trim();
  return { prompt, negativePrompt, fields };
}

/** @param {string} value */
function unquoted(value) {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value;
  }
}

/**
 * What `generate` takes to draw that picture again. What was not written, or is not had here, is left out.
 * @param {string} text
 * @returns {GenerateOptions}
 */
export function optionsOf(text) {
  const { prompt, negativePrompt, fields } = parseParameters(text);
  /** @type {GenerateOptions} */
  const options = { prompt, negativePrompt };
  /** @type {NonNullable<GenerateOptions['hires']>} */
  const hires = {};
  for (const { name, read } of FIELDS) {
    const { hires: part, ...others } = read?.(fields[name], fields) ?? {};
    Object.assign(options, present(others));
    Object.assign(hires, present(part ?? {}));
  }
  if (hires.scale !== undefined || hires.width !== undefined) {
    options.hires = hires;
    // With a second pass "Denoising strength" is that one's.
    delete options.strength;
  }
  return options;
}

/**
 * The files beside the model that the picture was drawn with.
 * @param {string} text
 * @returns {Needs}
 */
export function needsOf(text) {
  const { prompt, fields } = parseParameters(text);
  /** @type {Map<string, Needs['loras'][number]>} by name: a tag counts before a field, the last tag before the first */
  const loras = new Map();
  for (const [name, hash] of partsIn(fields['Lora hashes'] ?? '')) loras.set(name, { name, scale: 1, hash });
  for (const [name, scale] of [...fieldLoras(fields), ...tagged(prompt, optionsOf(text).promptSyntax)]) {
    loras.set(name, { ...loras.get(name), name, scale });
  }
  return {
    loras: [...loras.values()].slice(0, MOST_NEEDS),
    controlnets: listIn(fields, 'ControlNet').flatMap(controlIn),
  };
}

/** What is not undefined. @param {object} options */
const present = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));

/** The model that a picture was made with, as its text calls it. @param {string} text @returns {string | undefined} */
export const modelOf = (text) => parseParameters(text).fields.Model;
