/** From a job to pictures: one call of `generate` after another, every step shown. */
import { DiffusionError } from '../browser-diffusion.js';
import { list, t } from '../messages/index.js';
import { cells, sheet } from './grid.js';
import { stage, tell } from './how.js';
import { insideOf } from './looking.js';
import { asRead, asTyped } from './read-as.js';
import { any, duration, fileName, isAbort, left, say, showError, showProgress, stepWords } from './ui.js';
import { variantsOf } from './variants.js';

/**
 * @typedef {import('../browser-diffusion.js').GenerateResult} GenerateResult
 * @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions
 * @typedef {import('../browser-diffusion.js').DiffusionPipeline} DiffusionPipeline
 * @typedef {import('../browser-diffusion.js').Step} Step
 * @typedef {import('./strip.js').Frame} Frame
 */

/**
 * What was asked for with one press of a button.
 * @typedef {object} Job
 * @property {string} source
 * @property {GenerateOptions} options
 * @property {import('./grid.js').Axis[]} [axes] a grid: three axes
 * @property {boolean} fresh the form still stands as it was read: what a model that is loaded now sets there goes along
 */

/**
 * What a drawing needs of the rest of the page.
 * @typedef {object} Rest
 * @property {import('./strip.js').Strip} strip
 * @property {(source: string) => Promise<DiffusionPipeline>} load
 * @property {(options: GenerateOptions) => void} again reads from the form what a model may have set
 * @property {() => Promise<import('../browser-diffusion.js').Upscaler>} upscaler the one that was chosen
 * @property {() => { width: number, height: number }} size what is drawn where nothing else is asked for
 * @property {(seed: number) => void} drawn with which seed
 * @property {() => void} lost the GPU, or the worker
 */

/**
 * What is shown while one job is drawn.
 * @typedef {{ kept: Frame[], made: Frame[] }} Shown kept: from before; made: of the picture that is drawn now
 */

export class Drawing {
  #rest;
  /** @type {{ pipeline: DiffusionPipeline, lastResult: GenerateResult } | undefined} */
  #last;

  /** @param {Rest} rest */
  constructor(rest) {
    this.#rest = rest;
  }

  /** Draws, shows and says what became of it; never throws. @param {Job} job @param {AbortSignal} signal */
  async run(job, signal) {
    /** @type {Shown} */
    const shown = { kept: this.#rest.strip.frames, made: [] };
    try {
      await this.#drawAll(job, shown, signal);
    } catch (error) {
      this.#failed(error, job, shown);
    } finally {
      stage();
      showProgress(0);
    }
  }

  /** @param {Job} job @param {Shown} shown @param {AbortSignal} signal */
  async #drawAll(job, shown, signal) {
    const { strip, load, again, upscaler, drawn } = this.#rest;
    const pipeline = await load(job.source);
    if (signal.aborted) throw new DiffusionError('aborted', t('draw.stopped'));
    if (job.fresh) again(job.options);
    if (job.options.hires && !job.options.hires.upscaler) job.options.hires.upscaler = await upscaler();
    // A grid has the same words everywhere, but where its axes say otherwise.
    const [same = job.options, ...more] = await filled(job.axes ? [job.options] : variants(job.options));
    const all = job.axes ? cells(same, job.axes) : [same, ...more].flatMap(oneByOne);
    const started = performance.now();
    /** @type {(ImageData | undefined)[]} */
    const pictures = all.map(() => undefined);
    /** @type {unknown} */
    let failed;
    /** @type {number | undefined} */
    let first;
    for (const [i, options] of all.entries()) {
      shown.made = [];
      const place = all.length > 1 ? t('draw.drawingOne', i + 1, all.length) : t('draw.drawing');
      // All cells of a grid that do not name a seed have one; pictures of a seed each have those after the first's.
      if (job.axes) options.seed ??= this.#last?.lastResult.seed ?? 1;
      else if (first !== undefined) options.seed ??= first + (options.variationSeed === undefined ? i : 0);
      try {
        const typed = options.prompt;
        const read = (/** @type {string} */ words) => asRead(words, job.source, options.promptSyntax);
        options.prompt = await read(options.prompt);
        if (options.negativePrompt) options.negativePrompt = await read(options.negativePrompt);
        const { seed } = await this.#drawOne(pipeline, options, { made: shown.made, signal, place, typed });
        if (!job.axes) first ??= seed;
        pictures[i] = strip.frames.at(-1)?.image;
        for (const frame of shown.kept) frame.preview?.close();
        shown.kept = strip.frames;
      } catch (error) {
        failed = error;
        break; // what was drawn of a grid is shown
      }
    }
    if (job.axes && pictures.some(Boolean)) {
      this.#showGrid(job, pictures);
      shown.made = [];
    }
    if (failed) throw failed;
    if (!this.#last) return;
    const { pipeline: { model }, lastResult: { seed, unmatched, truncated, latents } } = this.#last;
    first ??= seed;
    drawn(first);
    const done = t('draw.done', duration(performance.now() - started), first, seed);
    const glaring = isGlaring(latents[0], model.latentChannels) ? t('draw.glaring') : '';
    say(`${done}${strays(unmatched)}${unread(truncated)}${glaring}`);
  }

  /**
   * Nothing is lost: a picture that was finished before comes back; without one, the steps made stay.
   * @param {unknown} error @param {Job} job @param {Shown} shown
   */
  #failed(error, job, { kept, made }) {
    const finished = kept.at(-1)?.image !== undefined && !job.axes;
    if (made.length > 0) this.#rest.strip.restore(finished ? kept : made);
    if (isAbort(error)) {
      const where = made.length > 0 ? t('draw.stoppedAfter', made.length) : t('draw.stopped');
      say(finished && made.length > 0 ? t('draw.before', where) : where);
      return;
    }
    say(t('draw.none'));
    showError(error);
    // A worker or a GPU that was lost is not asked again.
    if (error instanceof DiffusionError && error.code === 'device-lost') this.#rest.lost();
  }

  /**
   * One call of `generate`, every step shown.
   * @param {DiffusionPipeline} pipeline
   * @param {GenerateOptions} options
   * @param {{ made: Frame[], signal: AbortSignal, place: string, typed: string }} how made gets the steps; place: that it
   *   draws, and which picture of many; typed: the prompt before it was read
   */
  async #drawOne(pipeline, options, { made, signal, place, typed }) {
    say(place);
    any('spoken').textContent = '';
    // A GPU's driver compiles what is new to it, and may begin when it meets it.
    const first = this.#last?.pipeline !== pipeline;
    showProgress(undefined, t(first ? 'draw.readingFirst' : 'draw.reading'));
    stage('text');
    const started = performance.now();
    const { looking } = this.#rest.strip;
    const inside = looking.asked(options);
    const lastResult = await pipeline.generate({
      ...options,
      ...(inside && { inside }),
      signal,
      onStep: (step) => {
        if (made.length === 0) {
          this.#rest.strip.begin(made);
          stage('unet');
        }
        this.#showStep(step, options, { spent: performance.now() - started, channels: pipeline.model.latentChannels });
      },
    });
    this.#showResult(lastResult, typed, made.at(-1));
    looking.drawn(lastResult.timings.steps, Boolean(inside));
    this.#last = { pipeline, lastResult };
    /** @type {any} */ (window).browserDiffusion = this.#last;
    return lastResult;
  }

  /**
   * @param {Step} told
   * @param {GenerateOptions} options
   * @param {{ spent: number, channels: number }} how spent: milliseconds; channels: of latents
   */
  #showStep(told, options, { spent, channels }) {
    const { step, total, timestep, sigma, preview, latents } = told;
    const { strip, size } = this.#rest;
    const remaining = step < total ? ` · ${left((spent / step) * (total - step))}` : '';
    showProgress(step / total, step < total ? `${t('draw.step', step, total)}${remaining}` : t('draw.painting'));
    if (step === total) stage('vae');
    speakQuarter(step, total);
    /** @type {Frame} */
    const frame = { preview, sigma, ...stepWords(step, total, { timestep, sigma }) };
    const { width = size().width, height = size().height, numImages = 1 } = options;
    if (told.noise) frame.inside = insideOf(told, channels, numImages);
    strip.add(frame, { width, height }, total + numImages);
    latents?.().then((values) => {
      frame.latents = { values: values.subarray(0, values.length / numImages), channels };
      strip.latentsCame(frame);
    });
  }

  /**
   * @param {GenerateResult} result
   * @param {string} prompt as typed
   * @param {Frame} [last] the last step, of the first picture
   */
  #showResult(result, prompt, last) {
    const { images, seed } = result;
    for (const [i, image] of images.entries()) {
      const which = images.length > 1 ? t('draw.which', i + 1, images.length) : '';
      this.#rest.strip.addFinished({
        image: new ImageData(image.data, image.width, image.height),
        file: () => image.toBlob('image/png'),
        parameters: image.parameters,
        name: `${fileName(prompt)}-${seed}${i > 0 ? `-${i + 1}` : ''}`,
        ...(i === 0 && last && { latents: last.latents, inside: last.inside }),
        title: prompt.trim() || t('draw.wordless'),
        detail: t('draw.detail', seed, which, `${image.width} × ${image.height}`),
      });
    }
    tell(result, last?.latents?.values);
  }

  /** @param {Job} job @param {(ImageData | undefined)[]} pictures */
  #showGrid({ options, axes = [] }, pictures) {
    const drawn = pictures.filter((picture) => picture !== undefined);
    const image = sheet(pictures, axes, drawn[0]);
    const canvas = new OffscreenCanvas(image.width, image.height);
    canvas.getContext('2d')?.putImageData(image, 0, 0);
    this.#rest.strip.begin();
    this.#rest.strip.addFinished({
      image,
      file: () => canvas.convertToBlob({ type: 'image/png' }),
      name: `grid-${fileName(options.prompt)}`,
      title: options.prompt.trim() || t('draw.wordless'),
      detail: t('draw.grid', drawn.length),
    });
  }
}

/**
 * A picture for each choice in the words.
 * @param {GenerateOptions} options
 */
function variants(options) {
  const typed = asTyped(options.prompt, options.promptSyntax);
  const all = variantsOf(typed);
  return all[0] === typed ? [options] : all.map((prompt) => ({ ...options, prompt }));
}

/** Options of a picture each, wildcards filled in. @param {GenerateOptions[]} all */
const filled = async (all) =>
  (all.some(({ prompt, negativePrompt }) => /__.+__/.test(`${prompt}\n${negativePrompt}`))
    ? (await import('./wildcard-lists.js')).filled(all) : all);

/**
 * Pictures that have a seed each are drawn one after another, which gives the same: each can be seen and kept when it
 * is done. Where there is a variation, that one's seed counts (A1111). Without a seed the first picture brings one.
 * @param {GenerateOptions} options
 * @returns {GenerateOptions[]}
 */
function oneByOne(options) {
  const { numImages = 1, seed, variationSeed, generatorPerImage, seedResizeFrom } = options;
  if (numImages === 1 || !(generatorPerImage || seedResizeFrom || variationSeed !== undefined)) return [options];
  return Array.from({ length: numImages }, (_, i) => {
    const one = { ...options, numImages: 1 };
    if (variationSeed !== undefined) return { ...one, variationSeed: variationSeed + i };
    return seed === undefined ? one : { ...one, seed: seed + i };
  });
}

/** Steps below which there are no quarters worth a word. */
const LONG = 8;

/** A screen reader hears of every quarter, not of every step. @param {number} step @param {number} total */
function speakQuarter(step, total) {
  const quarters = (/** @type {number} */ steps) => Math.floor((4 * steps) / total);
  const now = quarters(step);
  if (total >= LONG && now > quarters(step - 1) && now < 4) any('spoken').textContent = t('draw.spoken', 25 * now);
}

/** @param {string[]} ends of prompts that were too long */
function unread(ends) {
  if (ends.length === 0) return '';
  const words = ends.map((end) => t('draw.quoted', end.length > 80 ? `${end.slice(0, 79).trim()}…` : end));
  return t('draw.unread', list(words));
}

/** @param {GenerateResult['unmatched']} loras whose tensors do not all have a place in this model */
function strays(loras) {
  return loras.map(({ source, keys }) => {
    const name = source.split(/[/ ]/).findLast((part) => /\.\w+$/.test(part)) ?? source;
    const some = `${keys.slice(0, 3).join(', ')}${keys.length > 3 ? ', …' : ''}`;
    return t('draw.strays', name, keys.length, some);
  }).join('');
}

/** Latents of pictures spread by about 1; of a prediction that is taken for another kind by 14 and more, or not at all. */
const GLARING = 4;

/** Whether no channel of a picture's latents is near what a picture has. @param {Float32Array} latents @param {number} n */
function isGlaring(latents, n) {
  const plane = latents.length / n;
  return Array.from({ length: n }, (_, i) => latents.subarray(i * plane, (i + 1) * plane)).every((channel) => {
    const mean = channel.reduce((sum, v) => sum + v, 0) / plane;
    return !(Math.sqrt(channel.reduce((sum, v) => sum + (v - mean) ** 2, 0) / plane) <= GLARING);
  });
}
