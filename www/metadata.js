/**
 * The `parameters` text of AUTOMATIC1111: how a picture was made, as its file carries it, and back into options of
 * `generate`. Layout and words: `create_infotext` and `parse_generation_parameters` of A1111 1.10. What other programs
 * write is read by metadata/formats.js. No DOM.
 */
import { accepted } from './metadata/accepted.js';
import { toldBy, toldByJson } from './metadata/formats.js';
import { GUESSES, listIn, needsOf, tagged } from './metadata/needs.js';
import { partsOf, schedulerIn } from './metadata/schedulers.js';
import { parseParameters } from './metadata/text.js';

export { schedulerLabel, tuningOf } from './metadata/schedulers.js';

/** @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./browser-diffusion.js').Needs} Needs */

/** Of Cargo.toml; a test compares them. */
const VERSION = '0.1.0';

/**
 * A request as it was drawn: the caller's options, with what the engine settled in place of those left out.
 * @typedef {{ key: string, source?: string, preprocess?: string, low?: number, high?: number, mode?: string, scale?: number,
 *   start?: number, end?: number }} MadeControl
 * @typedef {{ source: string, name: string, scale: number }} MadeLora
 * @typedef {{ source: string, imageEncoder: { source: string }, scale: number }} MadeIpAdapter
 * @typedef {Omit<GenerateOptions, 'image' | 'maskImage' | 'controlnets' | 'loras' | 'ipAdapters'> & { model: string,
 *   image?: object, maskImage?: object, controlnets?: MadeControl[], loras?: MadeLora[], ipAdapters?: MadeIpAdapter[] }}
 *   Made
 */

/**
 * A field of the text. `write` gives its value, or nothing where the field is left out; the values of a list are
 * written as "name 0", "name 1". `read` turns its value, where there is one, into options; what it cannot read is
 * undefined.
 * @typedef {string | number | false | undefined} Value
 * @typedef {import('./metadata/text.js').Fields} Fields
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

// --------------------------------------------------------------------------------------------- the fields

/** @param {NonNullable<GenerateOptions['hires']>['upscaler']} [upscaler] */
const upscalerWord = (upscaler = 'latent') =>
  (typeof upscaler === 'string' ? wordOf(UPSCALERS, upscaler) : 'ESRGAN');

/** @param {Fields} fields */
const isOurs = ({ Version = '' }) => Version.startsWith('browser-diffusion');

/** Whether a program wrote this that takes k-diffusion's levels where it names no schedule, as A1111 and its kin do. */
const isKDiffusion = (/** @type {Fields} */ fields) =>
  !isOurs(fields) && (fields.Version !== undefined || fields['Model hash'] !== undefined);

/** Whether there was a second pass. @param {Fields} fields */
const isTwice = (fields) => fields['Hires upscale'] !== undefined || fields['Hires resize'] !== undefined;

/** @param {Made} made */
const hasMask = ({ maskImage, outpaint }) => Boolean(maskImage || outpaint);

/**
 * A ControlNet as A1111's extension for them writes it.
 * @param {MadeControl} control
 * @param {boolean} [guessMode]
 */
function controlText({ key, source = key, preprocess = 'none', ...more }, guessMode) {
  const { low = 100, high = 200, scale = 1, start = 0, end = 1 } = more;
  const union = more.mode ? `, Union Control Type: ${more.mode}` : '';
  const module = preprocess === 'canny' ? `canny, Threshold A: ${low}, Threshold B: ${high}` : preprocess;
  const mode = guessMode ? GUESSES : 'Balanced';
  return `Module: ${module}, Model: ${source}, Weight: ${single(scale)}, Guidance Start: ${start}, ` +
    `Guidance End: ${end}, Control Mode: ${mode}${union}`;
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
    read: (value, fields) => (
      { scheduler: schedulerIn(value, fields['Schedule type'] ?? fields.Scheduler, isKDiffusion(fields)) }),
  },
  { name: 'Schedule type', write: ({ scheduler = '' }) => partsOf(scheduler).schedule?.label },
  number('CFG scale', 'guidanceScale', { f32: true }),
  number('Image CFG scale', 'imageGuidanceScale', { f32: true }),
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
  number('ENSD', 'etaNoiseSeedDelta', { usual: 0 }),
  number('Eta', 'eta', { f32: true }),
  number('Sigma churn', 'sChurn', { usual: 0, f32: true }),
  number('Sigma tmin', 'sTmin', { usual: 0, f32: true }),
  number('Sigma tmax', 'sTmax', { f32: true }),
  number('Sigma noise', 'sNoise', { usual: 1, f32: true }),
  {
    // A1111 writes the generator unless it is the graphics card's.
    name: 'RNG',
    write: ({ rng }) => (rng === 'torch-cuda' ? 'NV' : 'CPU'),
    read: (value, { Seed, Version = '' }) => {
      const cpu = value?.toUpperCase() === 'CPU' || Version.startsWith('Fooocus');
      return { rng: Seed === undefined ? undefined : cpu ? 'torch-cpu' : 'torch-cuda' };
    },
  },
  {
    // "None" is A1111's word for reading brackets and colons as they stand.
    name: 'Emphasis',
    write: ({ promptSyntax = 'plain' }) => wordOf(EMPHASIS, promptSyntax),
    read: (value, { Version = '' }) => (
      { promptSyntax: valueOf(EMPHASIS, value) ?? (Version.startsWith('Fooocus') ? 'comfy' : 'a1111') }),
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
    // A1111's extension has them among ControlNets, by the name of a module, and without their image encoder.
    name: 'IP-Adapter',
    write: ({ ipAdapters = [] }) => ipAdapters.map(({ source, imageEncoder, scale }) =>
      `Model: ${source}, Image Encoder: ${imageEncoder.source}, Weight: ${single(scale)}`),
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
    read: (value, { Size }) => {
      const [width = 0, height = 0] = sizeIn(value) ?? [];
      const [firstWidth, firstHeight] = sizeIn(Size) ?? [];
      // A1111 takes one side from the other where that is 0.
      const other = firstWidth && firstHeight ? firstWidth / firstHeight : undefined;
      return { hires: {
        width: width || (height && other && Math.floor(height * other)) || undefined,
        height: height || (width && other && Math.floor(width / other)) || undefined,
      } };
    },
  },
  {
    name: 'Hires upscale',
    write: ({ hires }) => hires && !(hires.width && hires.height) && (hires.scale ?? 2),
    read: (value, fields) => (
      { hires: { scale: sizeIn(fields['Hires resize'])?.some(Boolean) ? undefined : numberIn(value) } }),
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
  number('Aesthetic score', 'aestheticScore', { f32: true }),
  number('Negative aesthetic score', 'negativeAestheticScore', { f32: true }),
  {
    name: 'Guidance interval',
    write: ({ guidanceInterval: [start, end] = [0, 1] }) => (start > 0 || end < 1) && `${start} to ${end}`,
    read: (value = '') => {
      const [start = NaN, end = NaN] = value.split(' to ').map(Number);
      return { guidanceInterval: 0 <= start && start < end && end <= 1 ? [start, end] : undefined };
    },
  },
  {
    name: 'DeepCache',
    write: ({ deepCache }) =>
      deepCache && (deepCache.interval ?? 3) > 1 && `${deepCache.interval ?? 3} branch ${deepCache.branch ?? 0}`,
    read: (value = '') => {
      const [interval, branch] = value.split(' branch ').map(numberIn);
      return { deepCache: interval === undefined ? undefined : present({ interval, branch }) };
    },
  },
  {
    // Other programs do not write theirs. A1111: int(strength * steps) + 1 of a picture, all steps in a second pass.
    name: 'Strength steps',
    write: ({ image, hires, strengthSteps = 'diffusers' }) =>
      (image || hires) && strengthSteps !== 'diffusers' && strengthSteps,
    read: (value, fields) => {
      const own = isOurs(fields) || fields['Denoising strength'] === undefined;
      const rule = value ?? (own ? undefined : isTwice(fields) ? 'exact' : 'a1111');
      return { strengthSteps: /** @type {GenerateOptions['strengthSteps']} */ (rule) };
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
 * What `generate` takes to draw that picture again. What was not written, or is not had here, is left out.
 * @param {string} text
 * @returns {GenerateOptions}
 */
export const optionsOf = (text) => optionsIn(parseParameters(text));

/** @param {ReturnType<typeof parseParameters>} parsed @returns {GenerateOptions} */
function optionsIn({ prompt, negativePrompt, fields }) {
  /** @type {GenerateOptions} */
  const options = { prompt, negativePrompt };
  /** @type {NonNullable<GenerateOptions['hires']>} */
  const hires = {};
  for (const { name, read } of FIELDS) {
    const { hires: part, ...others } = read?.(fields[name], fields) ?? {};
    Object.assign(options, present(others));
    Object.assign(hires, present(part ?? {}));
  }
  const kept = accepted({ ...options, hires });
  // With a second pass "Denoising strength" is that one's.
  if (isTwice(fields)) delete kept.strength;
  return kept;
}

/** What is not undefined. @param {object} options */
const present = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));

// ----------------------------------------------------------------------------------- of any program's text

/** Options that say how a picture is started from; without one `generate` refuses them. */
const OF_PICTURE = /** @type {const} */ (['strength', 'strengthSteps']);

/**
 * What a picture's texts tell: A1111's, or another program's. `options` are such as `generate` takes; what it takes only
 * with `image` is in `withImage`.
 * @param {import('./metadata/containers.js').Texts | string} texts or the text itself
 * @returns {{ parameters?: string, options: GenerateOptions, withImage: Partial<GenerateOptions>, model?: string,
 *   needs: Needs }}
 */
export function settingsIn(texts) {
  const all = typeof texts === 'string' ? new Map([['parameters', texts]]) : texts;
  const own = all.get('parameters');
  const told = own === undefined ? toldBy(all) : toldByJson(own, all);
  if (told) return settings(told.source, accepted(told.options), told.model);
  // A comment of A1111's, or of a photograph: only with fields it is taken for settings.
  const comments = [all.get('UserComment'), all.get('Comment'), all.get('Description')];
  const text = own ?? comments.find((each) => Object.keys(parseParameters(each ?? '').fields).length > 0);
  const parsed = parseParameters(text ?? '');
  const options = optionsIn(parsed);
  return settings(text, options, parsed.fields.Model, needsOf(parsed, options.promptSyntax));
}

/**
 * @param {string | undefined} parameters
 * @param {GenerateOptions} options
 * @param {string} [model]
 * @param {Needs} [needs]
 */
function settings(parameters, options, model, needs = { loras: [], controlnets: [] }) {
  /** @type {Partial<GenerateOptions>} */
  const withImage = {};
  if (!options.hires && options.strength !== undefined) {
    for (const name of OF_PICTURE) {
      Object.assign(withImage, present({ [name]: options[name] }));
      delete options[name];
    }
  }
  return { parameters, options, withImage, model, needs };
}
