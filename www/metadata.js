/**
 * The `parameters` text of AUTOMATIC1111, out of a PNG and back into options of `generate`. No DOM.
 * Layout: `create_infotext` and `parse_generation_parameters` of A1111 1.10; chunks: PNG specification, 11.3.3.
 */

/** @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions */

/** A1111's samplers by the names of `scheduler`, the schedule left out. */
const SAMPLERS = /** @type {Record<string, string>} */ ({
  'Euler': 'euler', 'Euler a': 'euler_a', 'Heun': 'heun', 'LMS': 'lms', 'DPM2': 'dpm2', 'DPM2 a': 'dpm2_a', 'DPM++ 2S a': 'dpmpp_2s_a',
  'DPM++ 2M': 'dpmpp_2m', 'DPM++ SDE': 'dpmpp_sde', 'DPM++ 2M SDE': 'dpmpp_2m_sde', 'DPM++ 3M SDE': 'dpmpp_3m_sde', 'DPM fast': 'dpm_fast',
  'DPM adaptive': 'dpm_adaptive', 'Restart': 'restart', 'DDPM': 'ddpm', 'DDIM': 'ddim', 'DDIM CFG++': 'ddim_cfgpp', 'PLMS': 'pndm',
  'DPM++ 2S': 'dpmpp_2s', 'UniPC': 'unipc', 'DEIS': 'deis', 'iPNDM': 'ipndm', 'LCM': 'lcm', 'TCD': 'tcd',
});

/** Its schedule types by the suffixes of `scheduler`; the checkpoint's own has none. */
const SCHEDULES = /** @type {Record<string, string>} */ ({
  'Karras': 'karras', 'Exponential': 'exponential', 'Polyexponential': 'polyexponential', 'SGM Uniform': 'sgm_uniform', 'Simple': 'simple',
  'Normal': 'normal', 'DDIM': 'ddim_uniform', 'Beta': 'beta', 'KL Optimal': 'kl_optimal', 'Align Your Steps': 'align_your_steps',
});

/** Samplers that have fresh noise (`eta`), by how much of it is usual, and those that put noise back (`sChurn`). */
const ETA = /** @type {Record<string, number>} */ ({
  euler_a: 1, dpm2_a: 1, dpmpp_2s_a: 1, dpmpp_sde: 1, dpmpp_2m_sde: 1, dpmpp_3m_sde: 1, ddim: 0, ddim_cfgpp: 0, tcd: 0, dpm_fast: 0, dpm_adaptive: 0,
});
const CHURN = ['euler', 'heun', 'dpm2'];

/**
 * What can be turned on a sampler: the usual `eta`, and whether it knows `sChurn`.
 * @param {string} name of `scheduler`
 * @returns {{ eta?: number, sChurn: boolean }}
 */
export function tuningOf(name) {
  const schedule = Object.values(SCHEDULES).find((suffix) => name.endsWith(`_${suffix}`));
  const sampler = schedule ? name.slice(0, -schedule.length - 1) : name;
  return { eta: ETA[sampler], sChurn: CHURN.includes(sampler) };
}

/**
 * A name of `scheduler` in A1111's words: "DPM++ 2M · Karras".
 * @param {string} name
 */
export function schedulerLabel(name) {
  for (const [label, short] of Object.entries(SAMPLERS)) {
    if (name === short) return label;
    const schedule = Object.entries(SCHEDULES).find(([, suffix]) => name === `${short}_${suffix}`);
    if (schedule) return `${label} · ${schedule[0]}`;
  }
  return name;
}

/**
 * The text called `parameters` in a PNG.
 * @param {Uint8Array<ArrayBuffer>} png
 * @returns {Promise<string | undefined>} nothing where it has none, or is no PNG
 */
export async function parametersIn(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  if (png.length < 8 || view.getUint32(0) !== 0x89504e47 || view.getUint32(4) !== 0x0d0a1a0a) return undefined;
  for (let at = 8; at + 12 <= png.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > png.length) return undefined;
    const type = latin1(png.subarray(at + 4, at + 8));
    const content = png.subarray(at + 8, at + 8 + length);
    const nul = content.indexOf(0);
    if (['tEXt', 'zTXt', 'iTXt'].includes(type) && latin1(content.subarray(0, nul)) === 'parameters') {
      const rest = content.subarray(nul + 1);
      if (type === 'tEXt') return latin1(rest);
      if (type === 'zTXt') return latin1(await inflate(rest.subarray(1)));
      // iTXt: compressed or not, how, language, translated keyword, text in UTF-8
      const translated = rest.indexOf(0, 2) + 1;
      const text = rest.subarray(rest.indexOf(0, translated) + 1);
      return new TextDecoder().decode(rest[0] === 1 ? await inflate(text) : text);
    }
    at += 12 + length;
  }
  return undefined;
}

/** @param {Uint8Array} bytes */
const latin1 = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');

/** More than any prompt: what claims to be larger is no text of a person's. */
const MOST_TEXT = 1 << 20;

/** @param {Uint8Array<ArrayBuffer>} bytes zlib's */
async function inflate(bytes) {
  const parts = [];
  let size = 0;
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  for (let part = await reader.read(); !part.done && size < MOST_TEXT; part = await reader.read()) {
    parts.push(part.value);
    size += part.value.length;
  }
  await reader.cancel();
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/**
 * Prompt, negative prompt and the fields of the last line.
 * @param {string} text
 * @returns {{ prompt: string, negativePrompt: string, fields: Record<string, string> }}
 */
export function parseParameters(text) {
  const field = /\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g;
  const lines = text.trim().split('\n');
  /** @type {Record<string, string>} */
  const fields = {};
  const last = [...(lines.at(-1) ?? '').matchAll(field)];
  // A1111's own rule: a last line of fewer fields is still prompt.
  if (last.length >= 3) {
    lines.pop();
    for (const [, name, value] of last) fields[name] = unquoted(value.trim());
  }
  const negative = lines.findIndex((line) => line.trim().startsWith('Negative prompt:'));
  const prompt = (negative < 0 ? lines : lines.slice(0, negative)).join('\n').trim();
  const negativePrompt = negative < 0 ? '' : lines.slice(negative).join('\n').trim().slice('Negative prompt:'.length).trim();
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
 * @param {readonly string[]} schedulers the names that `scheduler` takes
 * @returns {GenerateOptions}
 */
export function optionsOf(text, schedulers) {
  const { prompt, negativePrompt, fields } = parseParameters(text);
  /** @param {string} name */
  const number = (name) => (fields[name] !== undefined && Number.isFinite(Number(fields[name])) ? Number(fields[name]) : undefined);
  /** @param {string} name @returns {[number, number] | undefined} */
  const size = (name) => {
    const found = /^(\d+)x(\d+)$/.exec(fields[name] ?? '');
    return found ? [Number(found[1]), Number(found[2])] : undefined;
  };
  const [width, height] = size('Size') ?? [];
  const clipSkip = number('Clip skip');
  const syntax = /** @type {const} */ ({ None: 'plain', Comfy: 'comfy' });
  /** @type {GenerateOptions} */
  const options = {
    prompt,
    negativePrompt,
    promptSyntax: syntax[/** @type {keyof typeof syntax} */ (fields.Emphasis)] ?? 'a1111',
    width,
    height,
    numInferenceSteps: number('Steps'),
    guidanceScale: number('CFG scale'),
    scheduler: schedulerOf(fields, schedulers),
    seed: number('Seed'),
    // A1111 writes the generator unless it is the graphics card's.
    rng: fields.Seed === undefined ? undefined : fields.RNG === 'CPU' ? 'torch-cpu' : 'torch-cuda',
    variationSeed: number('Variation seed'),
    variationStrength: number('Variation seed strength'),
    seedResizeFrom: size('Seed resize from'),
    eta: number('Eta'),
    sChurn: number('Sigma churn'),
    sTmin: number('Sigma tmin'),
    sTmax: number('Sigma tmax'),
    sNoise: number('Sigma noise'),
    guidanceRescale: number('Guidance rescale'),
    clipSkip: clipSkip === undefined ? undefined : Math.max(0, clipSkip - 1),
    strength: number('Denoising strength'),
    maskBlur: number('Mask blur'),
    maskedContent: wordOf(CONTENTS, fields['Masked content']),
    inpaintArea: fields['Inpaint area'] === 'Only masked' ? 'masked' : undefined,
    maskPadding: number('Masked area padding'),
    invertMask: fields['Mask mode'] === 'Inpaint not masked' || undefined,
  };
  const scale = number('Hires upscale');
  const [wide, high] = size('Hires resize') ?? [];
  if (scale !== undefined || wide !== undefined) {
    // Without a word it is A1111's usual; one that is not had here is left out.
    const upscaler = wordOf(ENLARGES, fields['Hires upscaler'] ?? 'Latent');
    options.hires = { ...(wide === undefined ? { scale } : { width: wide, height: high }), upscaler, steps: number('Hires steps'), strength: options.strength };
    for (const key of /** @type {('upscaler' | 'steps' | 'strength')[]} */ (['upscaler', 'steps', 'strength'])) if (options.hires[key] === undefined) delete options.hires[key];
    delete options.strength;
  }
  for (const key of /** @type {(keyof GenerateOptions)[]} */ (Object.keys(options))) {
    if (options[key] === undefined) delete options[key];
  }
  return options;
}

/** The model that a picture was made with, as its text calls it. @param {string} text @returns {string | undefined} */
export const modelOf = (text) => parseParameters(text).fields.Model;

/**
 * The text of the engine, and what that leaves to the module: hires fix, whose parts it may not know of, and what is done
 * with a mask. Names and values are A1111's, but for "Guidance rescale", which it does not have.
 * @param {string} text
 * @param {Partial<GenerateOptions>} options
 */
export function withMore(text, { hires, maskImage, outpaint, maskBlur = 0, maskedContent, inpaintArea, maskPadding = 32, invertMask, guidanceRescale = 0 }) {
  /** @type {[string, string | number | undefined][]} */
  const fields = [];
  if (hires) {
    const { scale = 2, width, height, upscaler = 'latent', steps, strength = 0.7 } = hires;
    fields.push(['Denoising strength', strength], width && height ? ['Hires resize', `${width}x${height}`] : ['Hires upscale', scale]);
    fields.push(['Hires steps', steps], ['Hires upscaler', typeof upscaler === 'string' ? keyOf(ENLARGES, upscaler) : 'ESRGAN']);
  }
  if (maskImage || outpaint) {
    fields.push(['Mask blur', maskBlur || undefined], ['Mask mode', invertMask ? 'Inpaint not masked' : undefined]);
    fields.push(['Masked content', maskedContent && keyOf(CONTENTS, maskedContent)]);
    if (inpaintArea === 'masked') fields.push(['Inpaint area', 'Only masked'], ['Masked area padding', maskPadding]);
  }
  fields.push(['Guidance rescale', guidanceRescale || undefined]);
  const more = fields.filter(([, value]) => value !== undefined).map(([name, value]) => `${name}: ${value}, `).join('');
  const version = text.lastIndexOf('Version: ');
  return version < 0 ? text : text.slice(0, version) + more + text.slice(version);
}

/** A1111's words for how the second pass begins, and for what lies under a mask. */
const ENLARGES = /** @type {const} */ ({ 'Latent': 'latent', 'Latent (nearest)': 'latent-nearest', 'Latent (bicubic)': 'latent-bicubic', 'Lanczos': 'picture' });
const CONTENTS = /** @type {const} */ ({ 'fill': 'fill', 'original': 'original', 'latent noise': 'noise', 'latent nothing': 'nothing' });

/**
 * @template {string} T
 * @param {Record<string, T>} words @param {string | undefined} word
 * @returns {T | undefined}
 */
const wordOf = (words, word) => (word !== undefined && Object.hasOwn(words, word) ? words[word] : undefined);
/** @param {Record<string, string>} words @param {string} value */
const keyOf = (words, value) => Object.keys(words).find((word) => words[word] === value);

/**
 * @param {Record<string, string>} fields
 * @param {readonly string[]} schedulers
 */
function schedulerOf(fields, schedulers) {
  if (fields.Sampler === undefined) return undefined;
  let name = fields.Sampler;
  let schedule = fields['Schedule type'] ?? '';
  // Until 1.8 the schedule stood in the sampler's name.
  for (const known of Object.keys(SCHEDULES)) {
    if (!(name in SAMPLERS) && name.endsWith(` ${known}`)) [name, schedule] = [name.slice(0, -known.length - 1), known];
  }
  const short = SAMPLERS[name] ?? name;
  const suffixed = schedule in SCHEDULES ? `${short}_${SCHEDULES[schedule]}` : short;
  return [suffixed, short].find((each) => schedulers.includes(each));
}
