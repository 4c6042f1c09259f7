/**
 * The page: a form, a canvas that shows every step, and a strip to look at the steps again.
 * It knows the engine only through browser-diffusion.js, like any other site.
 */
import { DiffusionPipeline, DiffusionError, Upscaler, cache, detect, readParameters } from './browser-diffusion.js';
import { PictureEditor } from './page/editor.js';
import { AXES, cells, readAxes, sheet } from './page/grid.js';
import { Controls } from './page/controls.js';
import { cost, keptName, readCatalogue, readKeptName, readSource } from './page/catalogue.js';
import { Parts } from './page/parts.js';
import { schedulerLabel, tuningOf } from './metadata.js';
import { namesOf, recipeOf } from './page/recipes.js';

/**
 * @typedef {import('./browser-diffusion.js').GenerateResult} GenerateResult
 * @typedef {import('./browser-diffusion.js').GeneratedImage} GeneratedImage
 * @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions
 */

/**
 * What was asked for with one press of a button.
 * @typedef {object} Job
 * @property {string} source
 * @property {GenerateOptions} options
 * @property {import('./page/grid.js').Axis[]} [axes] a grid: three axes
 * @property {boolean} fresh the form still stands as it was read: size goes along with a model that is loaded now
 */

/**
 * One picture of the strip: a step, or (with `image`) the finished picture.
 * @typedef {object} Frame
 * @property {ImageBitmap} [preview]
 * @property {ImageData} [image]
 * @property {() => Promise<Blob>} [file] the finished picture as PNG
 * @property {string} [name] of that file
 * @property {Float32Array} [latents]
 * @property {number} [sigma]
 * @property {string} title
 * @property {string} detail
 */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new TypeError(`#${id} is missing`);
  return found;
}
/** @param {string} id */ const input = (id) => element(id, HTMLInputElement);
/** @param {string} id */ const select = (id) => element(id, HTMLSelectElement);
/** @param {string} id */ const button = (id) => element(id, HTMLButtonElement);
/** @param {string} id */ const any = (id) => element(id, HTMLElement);

const ui = {
  form: element('form', HTMLFormElement),
  prompt: element('prompt', HTMLTextAreaElement),
  negativePrompt: input('negative-prompt'),
  steps: input('steps'),
  guidance: input('guidance'),
  width: input('width'),
  height: input('height'),
  scheduler: select('scheduler'),
  preview: select('preview'),
  seed: input('seed'),
  count: input('count'),
  clipSkip: input('clip-skip'),
  start: element('start', HTMLDetailsElement),
  image: input('image'),
  editor: any('editor'),
  strength: input('strength'),
  strengthSteps: select('strength-steps'),
  maskBlur: input('mask-blur'),
  maskedContent: select('masked-content'),
  inpaintArea: select('inpaint-area'),
  maskPadding: input('mask-padding'),
  takeSettings: button('take-settings'),
  extend: ['left', 'right', 'top', 'bottom'].map((side) => input(`extend-${side}`)),
  guidanceRescale: input('guidance-rescale'),
  eta: input('eta'),
  sChurn: input('s-churn'),
  hiresScale: select('hires-scale'),
  hiresStrength: input('hires-strength'),
  hiresSteps: input('hires-steps'),
  hiresUpscaler: select('hires-upscaler'),
  upscalerFile: input('upscaler-file'),
  upscale: button('upscale'),
  guessMode: select('guess-mode'),
  variationSeed: input('variation-seed'),
  variationStrength: input('variation-strength'),
  rng: select('rng'),
  ownSeeds: input('own-seeds'),
  seedResize: ['width', 'height'].map((side) => input(`seed-resize-${side}`)),
  promptSyntax: select('prompt-syntax'),
  brush: input('brush'),
  erase: button('erase'),
  redraw: button('redraw'),
  enqueue: button('enqueue'),
  queue: any('queue'),
  gallery: any('gallery'),
  catalogue: select('catalogue'),
  cost: any('cost'),
  source: input('source'),
  token: input('token'),
  files: input('files'),
  keepFile: input('keep-file'),
  weights: select('weights'),
  memory: select('memory'),
  generate: button('generate'),
  stop: button('stop'),
  save: button('save'),
  canvas: element('canvas', HTMLCanvasElement),
  status: any('status'),
  progress: element('progress', HTMLProgressElement),
  progressText: any('progress-text'),
  error: any('error'),
  caption: any('caption'),
  stepsView: any('steps-view'),
  noiseBar: any('noise-bar'),
  scrub: input('scrub'),
  strip: any('strip'),
  latents: any('latents'),
  channels: any('channels'),
  latentsText: any('latents-text'),
  keepSeed: button('keep-seed'),
  usedSeed: any('used-seed'),
};

/** @type {{ pipeline: DiffusionPipeline, lastResult: GenerateResult } | undefined} */
let last;
/** @type {{ key: string, controller: AbortController, promise: Promise<DiffusionPipeline> } | undefined} */
let model;
/** @type {File | FileSystemDirectoryHandle | undefined} the checkpoint from disk, a file or a folder; its name stands in the field */
let picked;
/** How many were chosen: two may have one name. */
let picks = 0;
/** @type {import('./page/catalogue.js').Entry[]} the models that the page offers */
let catalogue = [];
/** @type {import('./browser-diffusion.js').Detection} */
let gpu = { webgpu: false };
/** Another Hub, for those who have a mirror: the address's ?hub=. A link may name any, so the token does not go there. */
const hub = new URLSearchParams(location.search).get('hub') ?? undefined;
/** @type {AbortController | undefined} set while a picture is being made */
let drawing;
/** @type {Frame[]} what the strip shows */
let frames = [];
/** @type {Job[]} what waits to be drawn */
const waiting = [];
const editor = new PictureEditor(element('paint', HTMLCanvasElement), drawnSize);
const loras = new Parts(any('loras'), button('add-lora'), 'LoRA', [
  { key: 'source', label: 'LoRA', kind: 'source' }, { key: 'scale', label: 'Strength', kind: 'number', value: '1', min: -4, max: 4, step: 0.05 },
], () => { followRecipe(); });
const embeddings = new Parts(any('embeddings'), button('add-embedding'), 'word', [
  { key: 'token', label: 'Word', kind: 'text' }, { key: 'source', label: 'stands for', kind: 'source' },
], () => readPrompt());
const controls = new Controls(any('controls'), button('add-control'), drawnSize, () => editor.picture, showError);
const vaes = new Parts(any('vaes'), button('add-vae'), 'decoder', [{ key: 'source', label: 'Decoder', kind: 'source' }], () => {
  button('add-vae').hidden = any('vaes').childElementCount > 0;
});
/** @type {[HTMLSelectElement, HTMLInputElement][]} */
const axisFields = ['x', 'y', 'z'].map((axis) => [select(`axis-${axis}`), input(`values-${axis}`)]);

// ---------------------------------------------------------------------------------------------- words

/** Width and height that the form asks for. */
function drawnSize() {
  return { width: ui.width.valueAsNumber || learnt.defaultSize, height: ui.height.valueAsNumber || learnt.defaultSize };
}

/** @param {number} bytes */
function size(bytes) {
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** @param {number} ms */
function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** @param {number} ms */
const left = (ms) => `${ms < 60_000 ? `${Math.ceil(ms / 1000)} s` : duration(ms)} left`;

/** @param {string[]} ends of prompts that were too long */
function unread(ends) {
  if (ends.length === 0) return '';
  const words = ends.map((end) => `“${end.length > 80 ? `${end.slice(0, 79).trim()}…` : end}”`).join(' and ');
  return ` The model reads about 60 words; what came after was left out: ${words}`;
}

/** @param {GenerateResult['unmatched']} loras whose tensors do not all have a place in this model */
function strays(loras) {
  return loras.map(({ source, keys }) => {
    const name = source.split(/[/ ]/).findLast((part) => /\.\w+$/.test(part)) ?? source;
    const some = keys.slice(0, 3).join(', ');
    return ` Of ${name} ${keys.length} ${keys.length === 1 ? 'tensor belongs' : 'tensors belong'} to no weight of this model: ${some}${keys.length > 3 ? ', …' : ''}.`;
  }).join('');
}

/** @param {string} message */
function say(message) {
  ui.status.textContent = message;
}

const TITLES = /** @type {Record<string, string>} */ ({
  'webgpu-unavailable': 'No GPU to draw with',
  'unsupported-model': 'This model cannot be drawn with yet',
  'bad-checkpoint': 'The model’s files are damaged or incomplete',
  network: 'The model could not be fetched',
  integrity: 'The model arrived damaged',
  quota: 'No room left to keep the model',
  'out-of-memory': 'Too big for this GPU',
  'device-lost': 'The GPU stopped answering',
  'invalid-option': 'This setting does not work',
});

/** @param {unknown} error */
function showError(error) {
  const title = document.createElement('b');
  title.textContent = (error instanceof DiffusionError && TITLES[error.code]) || 'Something went wrong';
  ui.error.replaceChildren(title, error instanceof Error ? error.message : String(error));
  ui.error.hidden = false;
}

/** @param {unknown} error */
const isAbort = (error) => error instanceof DiffusionError && error.code === 'aborted';

/** @param {string | undefined} id the stage that is at work */
function stage(id) {
  for (const item of document.querySelectorAll('.how li')) {
    if (item.id === id) item.setAttribute('aria-current', 'step');
    else item.removeAttribute('aria-current');
  }
}

// ------------------------------------------------------------------------------------- loading a model

/** Bytes, rate and time left over all files of one load. */
class Download {
  /** @type {Map<string, { loaded: number, total: number, moving: boolean }>} */
  #files = new Map();
  #fetched = 0;
  #started = 0;

  /** @param {import('./browser-diffusion.js').Progress} progress */
  update({ status, file, loaded, total, fromCache }) {
    if (status === 'ready') this.#show('ready', 1);
    if (file === undefined) return;
    const before = this.#files.get(file) ?? { loaded: 0, total: 0, moving: false };
    const now = { loaded: loaded ?? before.loaded, total: total ?? before.total, moving: status === 'progress' };
    this.#files.set(file, now);
    if (status !== 'progress') return;
    if (!fromCache) {
      this.#started ||= performance.now();
      // A file's first figure may hold what was there from a broken download: that was not fetched now.
      if (before.moving) this.#fetched += now.loaded - before.loaded;
    }
    let done = 0, all = 0;
    for (const each of this.#files.values()) {
      done += each.loaded;
      all += Math.max(each.total, each.loaded);
    }
    const seconds = (performance.now() - this.#started) / 1000;
    let text = `${size(done)} of ${size(all)}`;
    if (fromCache) text += ', kept from before';
    else if (seconds > 1 && this.#fetched > 0 && all > done) {
      const rate = this.#fetched / seconds;
      text += ` · ${size(rate)}/s · ${left(((all - done) / rate) * 1000)}`;
    }
    this.#show(text, done / Math.max(all, 1));
  }

  /** @param {string} text @param {number} share */
  #show(text, share) {
    ui.progressText.textContent = text;
    ui.progress.value = share;
  }
}

/** The entry of the catalogue that a source is. @param {string} source */
const offered = (source) => catalogue.find((entry) => entry.source === source || keptName(entry, 'f16') === source);

/** The file or folder from disk, if that is the source. @param {string} source */
const fileOf = (source) => (picked && [picked.name, `disk:${picked.name}`].includes(source) ? picked : undefined);

/**
 * The pipeline of the model that is asked for; the one before is let go.
 * @param {string} source
 */
function pipelineOf(source) {
  const weights = /** @type {'f16' | 'q8' | 'q4'} */ (ui.weights.value);
  const memory = /** @type {'auto' | 'low'} */ (ui.memory.value);
  const file = fileOf(source);
  const keeps = file ? ui.keepFile.checked : undefined;
  const [{ source: vae } = { source: undefined }] = vaes.read();
  const marks = [file ? [file.name, picks] : source, vae instanceof File ? [vae.name, vae.size, vae.lastModified] : vae];
  const key = JSON.stringify([marks, keeps, weights, memory]);
  if (model?.key === key) return model.promise;
  const before = model;
  const controller = new AbortController();
  const promise = (async () => {
    before?.controller.abort();
    await before?.promise.then((p) => p.dispose(), () => {});
    const entry = offered(source);
    say(source === 'embedded' ? 'Loading the small model …' : `Loading ${entry?.name ?? source} …`);
    const download = new Download();
    const { revision, variant } = entry ?? { ...readSource(source), variant: undefined };
    const keepable = !entry || (await costOf(entry)).keepable;
    const loaded = await DiffusionPipeline.fromPretrained(file ?? entry?.source ?? readSource(source).source, {
      weights,
      memory,
      vae,
      hub,
      revision,
      variant,
      cache: keepable ? keeps : false,
      token: hub ? undefined : ui.token.value.trim() || undefined,
      signal: controller.signal,
      onProgress: (progress) => download.update(progress),
    });
    const renamed = keeps && ui.source.value === file?.name;
    if (renamed) ui.source.value = `disk:${file.name}`;
    await learn(loaded.model, renamed ? ui.source.value : source, entry);
    return loaded;
  })();
  const mine = { key, controller, promise };
  model = mine;
  promise.then(async () => {
    readPrompt();
    // What took long to fetch is not to be cleared when space runs short.
    if (source !== 'embedded' && keeps !== false) await cache.persist();
    modelsChanged();
  }, () => {
    if (model === mine) model = undefined;
  });
  return promise;
}

/** What the cache holds has changed. */
function modelsChanged() {
  listCache();
  showCost();
}

/** What an entry of the catalogue costs here and now. @param {import('./page/catalogue.js').Entry} entry */
async function costOf(entry) {
  const [kept, estimate] = await Promise.all([cache.list().catch(() => []), cache.estimate()]);
  const weights = /** @type {'f16' | 'q8' | 'q4'} */ (ui.weights.value);
  return cost(entry, { weights, low: ui.memory.value === 'low', kept, estimate, gpu });
}

let costs = 0;
/** Says what the chosen model of the catalogue costs, before it is fetched. */
async function showCost() {
  const mine = ++costs;
  const entry = offered(ui.source.value.trim());
  ui.catalogue.value = entry?.source ?? (ui.source.value.trim() === 'embedded' ? 'embedded' : '');
  if (!entry) {
    ui.cost.hidden = true;
    return;
  }
  const c = await costOf(entry);
  if (mine !== costs) return;
  const rows = document.createElement('dl');
  const row = (/** @type {string} */ term, /** @type {string} */ text) => {
    const [dt, dd] = [document.createElement('dt'), document.createElement('dd')];
    dt.textContent = term;
    dd.textContent = text;
    rows.append(dt, dd);
  };
  row('Download', c.download > 0 ? `${size(c.download)}, once` : 'nothing: it is kept here');
  row('Storage', `${size(c.keeps)}${c.loading > c.keeps ? `, while it loads ${size(c.loading)}` : ''}; ${size(c.free)} are free here`);
  row('GPU memory', `${size(c.gpu)}${c.low ? ', one part of the model at a time' : ''}`);
  row('Licence', entry.licence);
  const words = {
    'no-webgpu': 'This browser has no WebGPU, and cannot draw with it.',
    software: 'This browser draws without a graphics card: each step takes minutes.',
    storage: 'There is not room enough to keep it: it would be fetched anew at each visit. Free some space, or choose fewer bits.',
    gpu: 'As far as this graphics card tells, that is more than it has. Choose fewer bits, or as little GPU memory as possible.',
  };
  const verdicts = c.problems.map((problem) => words[problem]);
  if (verdicts.length === 0) verdicts.push('This browser and this graphics card can do it, as far as they tell.');
  const about = document.createElement('p');
  about.textContent = entry.about;
  ui.cost.replaceChildren(about, rows, ...verdicts.map((text) => {
    const line = document.createElement('p');
    line.className = c.problems.length > 0 ? 'cannot' : 'can';
    line.textContent = text;
    return line;
  }));
  ui.cost.hidden = false;
}

/** The catalogue's models to choose from; one that is chosen brings its settings along. */
async function wireCatalogue() {
  ui.catalogue.addEventListener('change', async () => {
    ui.source.value = ui.catalogue.value;
    ui.source.dispatchEvent(new Event('input', { bubbles: true }));
    const entry = offered(ui.catalogue.value);
    if (entry) {
      const { width, height } = entry.defaults;
      for (const [field, value] of /** @type {const} */ ([[ui.width, width], [ui.height, height]])) field.value = String(value);
      editor.resize();
      await followRecipe();
      const own = ownSettings(entry);
      // A recipe's stay: its own, or those of a LoRA.
      if (!followed && ui.source.value === entry.source) for (const id of RECIPE_FIELDS) ui[id].value = String(own[id]);
      showTuning();
    } else if (ui.catalogue.value === '') ui.source.focus();
    remember();
  });
  for (const field of [ui.source, ui.weights, ui.memory]) field.addEventListener('input', showCost);
  catalogue = await readCatalogue();
  ui.catalogue.options[0].after(...catalogue.map(({ name, source, download }) => new Option(`${name}, ${size(download)}`, source)));
  await showCost();
}

/** What the form starts with: the embedded model's. @type {{ defaultSize: number, numInferenceSteps: number, guidanceScale: number, scheduler?: string, source?: string }} */
let learnt = { defaultSize: 128, numInferenceSteps: 20, guidanceScale: 3 };
/**
 * Size, steps and guidance go along with the model, unless the visitor chose others. Those of the catalogue came when it
 * was chosen.
 * @param {import('./browser-diffusion.js').Model} model
 * @param {string} source
 * @param {import('./page/catalogue.js').Entry} [entry]
 */
async function learn(model, source, entry) {
  const { defaultSize, numInferenceSteps, guidanceScale, scheduler } = entry
    ? { defaultSize: entry.defaults.width, numInferenceSteps: entry.defaults.steps, guidanceScale: entry.defaults.guidance, scheduler: model.scheduler } : model;
  /** @type {[HTMLInputElement, number, number][]} */
  const fields = [
    [ui.width, learnt.defaultSize, defaultSize], [ui.height, learnt.defaultSize, defaultSize],
    [ui.steps, learnt.numInferenceSteps, numInferenceSteps], [ui.guidance, learnt.guidanceScale, guidanceScale],
  ];
  for (const [field, before, now] of fields) {
    if (!entry && Number(field.value) === before) field.value = String(now);
  }
  learnt = { defaultSize, numInferenceSteps, guidanceScale, scheduler, source };
  any('size-learnt').textContent = `: this one ${defaultSize} × ${defaultSize}`;
  any('own-scheduler').textContent = `${scheduler ? `${schedulerLabel(scheduler)}, ` : ''}the model’s own`;
  showTuning();
  remember();
  await followRecipe();
}

/** Of an entry of the catalogue, what a recipe sets. @param {import('./page/catalogue.js').Entry} entry */
const ownSettings = ({ defaults: { steps, guidance, scheduler } }) => ({ steps, guidance, scheduler });

const RECIPE_FIELDS = /** @type {const} */ (['steps', 'guidance', 'scheduler']);
/** What the form follows, what that set, and what stood there before. @type {{ mark: string, set: string[], before: string[] } | undefined} */
let followed;
let recipesRead = 0;

/** The source and the kind of few-step model that each LoRA and the model is, where one is. */
async function recipes() {
  const source = ui.source.value.trim();
  const file = fileOf(source);
  const all = /** @type {[string | File, string][]} */ ([
    ...loras.read().map(({ source }) => [source, 'LoRA']), [file instanceof File ? file : source, 'model'],
  ]);
  return Promise.all(all.map(async ([one, what]) => {
    const { numInferenceSteps: steps, guidanceScale: guidance, scheduler = '' } = learnt;
    // A pipeline that is made for few steps says so itself, which is better than a name.
    const told = what === 'model' && learnt.source === source && steps < 10;
    const names = await namesOf(one);
    const named = recipeOf(names);
    // The catalogue knows its models better than a name tells.
    const entry = what === 'model' ? offered(source) : undefined;
    if (entry) return { what, by: 'name', recipe: named && { ...named, ...ownSettings(entry) } };
    return { what, by: told ? 'pipeline' : 'name', recipe: told ? { kind: 'LCM', steps, guidance, scheduler, name: names.at(-1) } : named };
  }));
}

/**
 * A LoRA or a model that is made for few steps sets steps, guidance and sampler, and says so; when it is gone, what stood
 * there before comes back, unless the visitor has chosen otherwise meanwhile.
 */
async function followRecipe() {
  const mine = ++recipesRead;
  const now = (await recipes()).find(({ recipe }) => recipe);
  const mark = now && JSON.stringify(now);
  if (mine !== recipesRead || mark === followed?.mark) return;
  putBack();
  if (!now?.recipe || !mark) return;
  const { what, by, recipe: { kind, steps, guidance, scheduler, name } } = now;
  const set = [steps, guidance, scheduler].map(String);
  const usual = [learnt.numInferenceSteps, learnt.guidanceScale, ''].map(String);
  // A form that was kept from an earlier visit may stand so already.
  followed = { mark, set, before: RECIPE_FIELDS.map((id, i) => (ui[id].value === set[i] ? usual[i] : ui[id].value)) };
  RECIPE_FIELDS.forEach((id, i) => { ui[id].value = set[i]; });
  any('recipe-text').textContent = `${name} is ${kind === 'LCM' ? 'an' : 'a'} ${kind} ${what}, by its ${by}. Set for it: ` +
    `${steps} ${steps === 1 ? 'step' : 'steps'}, guidance ${guidance}${guidance > 1 ? '' : ' (off)'}, sampler ${schedulerLabel(scheduler)}.`;
  any('recipe').hidden = false;
  showTuning();
  remember();
}

/** What a recipe set goes, where it still stands. */
function putBack() {
  if (!followed) return;
  const { set, before } = followed;
  RECIPE_FIELDS.forEach((id, i) => { if (ui[id].value === set[i]) ui[id].value = before[i]; });
  followed = undefined;
  any('recipe').hidden = true;
  showTuning();
  remember();
}

/** Of what can be turned, shows what the chosen sampler has. */
function showTuning() {
  const name = ui.scheduler.value || learnt.scheduler || '';
  const { eta, sChurn } = tuningOf(name);
  any('eta-field').hidden = eta === undefined;
  any('s-churn-field').hidden = !sChurn;
  any('eta-hint').textContent = `How much of the noise is new at each step; usual for this sampler: ${eta ?? 'none'}.`;
  const label = name ? schedulerLabel(name).split(' · ')[0] : 'The model’s own sampler';
  any('sampling-hint').textContent = eta === undefined && !sChurn ? `${label} has nothing more to turn. Euler, Euler a and DDIM do.` : '';
}

// -------------------------------------------------------------------------------------------- drawing

/** @returns {GenerateOptions | undefined} nothing, if a field is wrong */
function readForm() {
  for (const field of [ui.steps, ui.guidance, ui.guidanceRescale, ui.eta, ui.sChurn, ui.width, ui.height, ui.seed, ui.count, ui.clipSkip, ui.strength, ui.variationSeed, ui.variationStrength, ...ui.seedResize, ui.maskBlur, ui.maskPadding, ...ui.extend, ui.hiresStrength, ui.hiresSteps]) {
    if (field.checkValidity()) continue;
    field.setAttribute('aria-invalid', 'true');
    field.closest('details')?.setAttribute('open', '');
    const message = field === ui.seed || field === ui.variationSeed ? 'a whole number, or nothing for a random one.' : field.validationMessage;
    showError(new DiffusionError('invalid-option', `${field.labels?.[0]?.textContent}: ${message}`));
    field.focus();
    return undefined;
  }
  /** @type {import('./browser-diffusion.js').ControlNet[]} */
  let controlnets;
  try {
    controlnets = controls.read();
  } catch (error) {
    showError(error);
    any('guiding').setAttribute('open', '');
    return undefined;
  }
  return {
    prompt: ui.prompt.value,
    negativePrompt: ui.negativePrompt.value,
    promptSyntax: syntax(),
    width: ui.width.valueAsNumber,
    height: ui.height.valueAsNumber,
    numInferenceSteps: ui.steps.valueAsNumber,
    guidanceScale: ui.guidance.valueAsNumber,
    guidanceRescale: ui.guidanceRescale.valueAsNumber || undefined,
    scheduler: ui.scheduler.value || undefined,
    ...(!any('eta-field').hidden && ui.eta.value && { eta: ui.eta.valueAsNumber }),
    ...(!any('s-churn-field').hidden && { sChurn: ui.sChurn.valueAsNumber || undefined }),
    seed: ui.seed.value === '' ? undefined : Number(ui.seed.value),
    numImages: ui.count.valueAsNumber,
    clipSkip: ui.clipSkip.valueAsNumber || undefined,
    rng: /** @type {'torch-cpu' | 'torch-cuda'} */ (ui.rng.value),
    generatorPerImage: ui.ownSeeds.checked,
    ...(ui.seedResize.some(({ value }) => value) && {
      seedResizeFrom: /** @type {[number, number]} */ (ui.seedResize.map((side, i) => side.valueAsNumber || [ui.width, ui.height][i].valueAsNumber)),
    }),
    ...(ui.variationSeed.value && { variationSeed: Number(ui.variationSeed.value), variationStrength: ui.variationStrength.valueAsNumber }),
    loras: /** @type {any} */ (loras.read()),
    ...(controlnets.length > 0 && { controlnets, guessMode: ui.guessMode.value === 'guess' }),
    embeddings: /** @type {any} */ (embeddings.read().filter(({ token }) => token)),
    ...(editor.picture ? readStart() : ui.hiresScale.value && {
      hires: {
        scale: Number(ui.hiresScale.value), strength: ui.hiresStrength.valueAsNumber,
        ...(ui.hiresSteps.value && { steps: ui.hiresSteps.valueAsNumber }),
        ...(ui.hiresUpscaler.value !== 'file' && { upscaler: /** @type {any} */ (ui.hiresUpscaler.value) }),
      },
    }),
    preview: /** @type {'fast' | 'tiny' | 'full'} */ (ui.preview.value),
  };
}

/** How the prompt is read. */
const syntax = () => /** @type {'a1111' | 'comfy' | 'plain'} */ (ui.promptSyntax.value);

/** What is done with the picture to start from. */
function readStart() {
  const [left, right, top, bottom] = ui.extend.map((field) => field.valueAsNumber);
  const extends_ = left + right + top + bottom > 0;
  const mask = extends_ ? undefined : editor.mask;
  return {
    image: editor.picture,
    strength: ui.strength.valueAsNumber,
    strengthSteps: /** @type {'diffusers' | 'a1111' | 'exact'} */ (ui.strengthSteps.value),
    ...(extends_ && { outpaint: { left, right, top, bottom } }),
    ...(mask && { maskImage: mask, inpaintArea: /** @type {'whole' | 'masked'} */ (ui.inpaintArea.value) }),
    ...(mask && ui.inpaintArea.value === 'masked' && { maskPadding: ui.maskPadding.valueAsNumber }),
    ...((mask || extends_) && {
      maskBlur: ui.maskBlur.valueAsNumber,
      maskedContent: /** @type {'fill' | 'original' | 'noise' | 'nothing' | undefined} */ (extends_ ? undefined : ui.maskedContent.value || undefined),
    }),
  };
}

/** @type {{ file: File, promise: Promise<Upscaler> } | undefined} */
let upscaler;
/** The ESRGAN model that was chosen. */
function chosenUpscaler() {
  const [file] = ui.upscalerFile.files ?? [];
  if (!file) throw new DiffusionError('invalid-option', 'Choose an ESRGAN model (.pth or .safetensors) to enlarge with, under “Bigger”.');
  if (upscaler?.file === file) return upscaler.promise;
  upscaler?.promise.then((old) => old.dispose(), () => {});
  const mine = upscaler = { file, promise: Upscaler.fromPretrained(file) };
  mine.promise.catch(() => { if (upscaler === mine) upscaler = undefined; });
  return mine.promise;
}

/** Times the kernels again. */
async function tune() {
  if (drawing) return;
  ui.error.hidden = true;
  busy(true);
  try {
    const pipeline = await pipelineOf(ui.source.value.trim() || 'embedded');
    say('Trying what is fastest here …');
    await pipeline.tune();
    say('What is fastest here is used from now on.');
  } catch (error) {
    say('');
    if (!isAbort(error)) showError(error);
  } finally {
    busy(false);
  }
}

/** Enlarges the finished picture that is shown. */
async function upscaleShown() {
  const shown = finishedFrame();
  if (drawing || !shown?.image) return;
  ui.error.hidden = true;
  const controller = drawing = new AbortController();
  busy(true);
  try {
    say('Enlarging …');
    const model = await chosenUpscaler();
    const big = await model.upscale(shown.image, { signal: controller.signal, onProgress: ({ done, total }) => { ui.progress.value = done / total; } });
    /** @type {Frame} */
    const frame = {
      image: new ImageData(big.data, big.width, big.height), file: () => big.toBlob('image/png'), name: `${shown.name}-x${model.scale}`,
      title: shown.title, detail: `enlarged to ${big.width} × ${big.height} pixels`,
    };
    addFrame(frame, big.width, big.height, frames.length + 1);
    keep(frame);
    say(`Enlarged to ${big.width} × ${big.height} pixels.`);
  } catch (error) {
    say('Not enlarged; your picture is as it was.');
    if (!isAbort(error)) showError(error);
  } finally {
    drawing = undefined;
    ui.progress.value = 0;
    busy(false);
  }
}

/**
 * Lets Generate and Stop be pressed when they make sense. A button that no longer can be must not take the
 * keyboard's focus with it.
 * @param {boolean} yes
 */
function busy(yes) {
  const focused = document.activeElement;
  ui.generate.disabled = yes && Boolean(drawing);
  ui.stop.disabled = !yes;
  if (focused === ui.generate && ui.generate.disabled) ui.stop.focus();
  if (focused === ui.stop && ui.stop.disabled) ui.generate.focus();
  ui.enqueue.hidden = !drawing;
  ui.form.classList.toggle('idle', !yes);
}

/** What the form asks for, as a job; nothing if a field is wrong. @returns {Job | undefined} */
function readJob() {
  ui.error.hidden = true;
  const options = readForm();
  return options && { source: ui.source.value.trim() || 'embedded', options, fresh: true };
}

/** Draws what the form asks for, and then what waits. @param {Job | undefined} [job] */
async function draw(job = readJob()) {
  if (drawing || !job) return;
  for (let next = /** @type {Job | undefined} */ (job); next; next = waiting.shift()) {
    listWaiting();
    await run(next);
  }
  listWaiting();
}

/** Puts what the form asks for behind what is drawn now. @param {Job | undefined} [job] */
function enqueue(job = readJob()) {
  if (!job) return;
  if (!drawing) {
    draw(job);
    return;
  }
  waiting.push({ ...job, fresh: false });
  listWaiting();
}

function listWaiting() {
  ui.queue.hidden = waiting.length === 0;
  ui.queue.replaceChildren(...waiting.map((job) => {
    const item = document.createElement('li');
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = 'Remove';
    const words = `${job.axes ? 'Grid: ' : ''}${job.options.prompt.trim() || 'a picture without words'}`;
    remove.setAttribute('aria-label', `Remove ${words}`);
    remove.onclick = () => {
      const place = waiting.indexOf(job);
      waiting.splice(place, 1);
      listWaiting();
      // The button that had the keyboard is gone.
      const next = ui.queue.querySelectorAll('button')[Math.min(place, waiting.length - 1)] ?? ui.enqueue;
      next.focus();
    };
    item.append(words, remove);
    return item;
  }));
}

/**
 * Pictures that have a seed each are drawn one after another, which gives the same: each can be seen and kept when it is
 * done. Where there is a variation, that one's seed counts (A1111).
 * @param {GenerateOptions} options
 * @returns {GenerateOptions[]}
 */
function oneByOne(options) {
  const { numImages = 1, seed = crypto.getRandomValues(new Uint32Array(1))[0], variationSeed } = options;
  if (numImages === 1 || !(options.generatorPerImage || options.seedResizeFrom || variationSeed !== undefined)) return [options];
  return Array.from({ length: numImages }, (_, i) => ({ ...options, numImages: 1, ...(variationSeed === undefined ? { seed: seed + i } : { seed, variationSeed: variationSeed + i }) }));
}

/** @param {Job} job */
async function run(job) {
  const controller = drawing = new AbortController();
  const { signal } = controller;
  let kept = frames;
  /** @type {Frame[]} */
  let made = [];
  busy(true);
  try {
    const pipeline = await pipelineOf(job.source);
    if (signal.aborted) throw new DiffusionError('aborted', 'Stopped.');
    if (job.fresh) {
      // The model may have brought its own size, steps, guidance and sampler.
      job.options.width = ui.width.valueAsNumber;
      job.options.height = ui.height.valueAsNumber;
      job.options.numInferenceSteps = ui.steps.valueAsNumber;
      job.options.guidanceScale = ui.guidance.valueAsNumber;
      job.options.scheduler = ui.scheduler.value || undefined;
    }
    if (job.options.hires && !job.options.hires.upscaler) job.options.hires.upscaler = await chosenUpscaler();
    const all = job.axes ? cells(job.options, job.axes) : oneByOne(job.options);
    const started = performance.now();
    /** @type {(ImageData | undefined)[]} */
    const drawn = all.map(() => undefined);
    /** @type {unknown} */
    let failed;
    for (const [i, options] of all.entries()) {
      made = [];
      const place = all.length > 1 ? `Picture ${i + 1} of ${all.length}: ` : '';
      try {
        // All cells of a grid that do not name a seed have one.
        if (job.axes) options.seed ??= last?.lastResult.seed ?? 1;
        const lastResult = await drawOne(pipeline, options, made, signal, place);
        last = { pipeline, lastResult };
        drawn[i] = frames.at(-1)?.image;
        for (const frame of kept) frame.preview?.close();
        kept = frames;
        /** @type {any} */ (window).browserDiffusion = last;
      } catch (error) {
        failed = error;
        break; // what was drawn of a grid is shown
      }
    }
    if (job.axes && drawn.some(Boolean)) {
      finishGrid(job, drawn);
      made = [];
    }
    if (failed) throw failed;
    if (!last) return;
    const [{ seed: first = last.lastResult.seed }] = job.axes ? [last.lastResult] : all;
    offerSeed(first);
    const seeds = first === last.lastResult.seed ? `Seed ${first}` : `Seeds ${first} to ${last.lastResult.seed}`;
    say(`Done in ${duration(performance.now() - started)}. ${seeds}.${strays(last.lastResult.unmatched)}${unread(last.lastResult.truncated)}`);
  } catch (error) {
    // Nothing is lost: a picture that was finished before comes back; without one, the steps made stay.
    const finished = kept.at(-1)?.image !== undefined && !job.axes;
    if (made.length > 0) restore(finished ? kept : made);
    if (isAbort(error)) {
      const where = made.length > 0 ? `Stopped after step ${made.length}.` : 'Stopped.';
      say(finished && made.length > 0 ? `${where} This is your picture from before.` : where);
    } else {
      say('No new picture this time.');
      showError(error);
      // A worker or a GPU that was lost is not asked again.
      if (error instanceof DiffusionError && error.code === 'device-lost') model = undefined;
    }
  } finally {
    drawing = undefined;
    stage(undefined);
    ui.progress.value = 0;
    busy(false);
  }
}

/**
 * One call of `generate`, every step shown.
 * @param {DiffusionPipeline} pipeline
 * @param {GenerateOptions} options
 * @param {Frame[]} made gets the steps
 * @param {AbortSignal} signal
 * @param {string} place which picture of many
 */
async function drawOne(pipeline, options, made, signal, place) {
  const { width = learnt.defaultSize, height = learnt.defaultSize } = options;
  say(`${place}Drawing …`);
  ui.progress.removeAttribute('value');
  ui.progressText.textContent = 'reading your words';
  stage('stage-text');
  const started = performance.now();
  const result = await pipeline.generate({
    ...options,
    signal,
    onStep(step) {
      if (made.length === 0) {
        frames = made;
        ui.strip.replaceChildren();
        stage('stage-unet');
      }
      const spent = performance.now() - started;
      ui.progress.value = step.step / step.total;
      ui.progressText.textContent = `step ${step.step} of ${step.total}` +
        (step.step < step.total ? ` · ${left((spent / step.step) * (step.total - step.step))}` : '');
      if (step.step === step.total) {
        stage('stage-vae');
        ui.progressText.textContent = 'painting the picture out';
      }
      /** @type {Frame} */
      const frame = {
        preview: step.preview,
        sigma: step.sigma,
        title: `Step ${step.step} of ${step.total}`,
        detail: `timestep ${Math.round(step.timestep)} · noise level σ ${sigmaText(step.sigma)}`,
      };
      addFrame(frame, width, height, step.total + (options.numImages ?? 1));
      step.latents?.().then((latents) => {
        frame.latents = latents;
        if (frames[ui.scrub.valueAsNumber - 1] === frame) drawLatents(frame);
      });
    },
  });
  finish(result, options.prompt, made.at(-1)?.latents);
  return result;
}

/** @param {Job} job @param {(ImageData | undefined)[]} drawn */
function finishGrid({ options, axes = [] }, drawn) {
  const [{ width, height }] = drawn.filter((picture) => picture !== undefined);
  const image = sheet(drawn, axes, { width, height });
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext('2d')?.putImageData(image, 0, 0);
  frames = [];
  ui.strip.replaceChildren();
  /** @type {Frame} */
  const frame = {
    image,
    file: () => canvas.convertToBlob({ type: 'image/png' }),
    name: `grid-${fileName(options.prompt)}`,
    title: options.prompt.trim() || 'A picture without words',
    detail: `a grid of ${drawn.filter(Boolean).length} pictures`,
  };
  addFrame(frame, image.width, image.height, 1);
  keep(frame);
}

/**
 * @param {GenerateResult} result
 * @param {string} prompt
 * @param {Float32Array} [latents]
 */
function finish(result, prompt, latents) {
  const [image] = result.images;
  const { textEncoder, steps, vae } = result.timings;
  for (const [i, image] of result.images.entries()) {
    const which = result.images.length > 1 ? ` · picture ${i + 1} of ${result.images.length}` : '';
    /** @type {Frame} */
    const frame = {
      image: new ImageData(image.data, image.width, image.height),
      file: () => image.toBlob('image/png'),
      name: `${fileName(prompt)}-${result.seed}${i > 0 ? `-${i + 1}` : ''}`,
      latents: i === 0 ? latents : undefined,
      title: prompt.trim() || 'A picture without words',
      detail: `painted out by the decoder · seed ${result.seed}${which} · ${image.width} × ${image.height} pixels`,
    };
    addFrame(frame, image.width, image.height, Math.max(frames.length + 1, Number(ui.scrub.max)));
    keep(frame);
  }
  ui.canvas.setAttribute('aria-label', `Picture: ${prompt}`);
  const mean = steps.reduce((sum, ms) => sum + ms, 0) / Math.max(steps.length, 1);
  any('live-text').textContent = `took ${duration(textEncoder)}`;
  any('live-noise').textContent = `seed ${result.seed}` + (latents ? `: ${latents.length.toLocaleString('en')} numbers` : '');
  any('live-unet').textContent = `${steps.length} × ${duration(mean)}`;
  any('live-vae').textContent = `${image.width} × ${image.height} pixels in ${duration(vae)}`;
}

/** @param {number} seed that the form may take over */
function offerSeed(seed) {
  ui.usedSeed.textContent = String(seed);
  ui.keepSeed.hidden = ui.seed.value === String(seed);
}

/** @param {string} prompt */
const fileName = (prompt) => prompt.split('\n')[0].toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60) || 'picture';

/** Every finished picture stays within reach. @param {Frame} frame */
function keep(frame) {
  const item = document.createElement('li');
  const open = document.createElement('button');
  open.type = 'button';
  open.title = frame.title;
  open.setAttribute('aria-label', `Show ${frame.title}, ${frame.detail}`);
  open.append(thumbnailOf(frame, 72));
  open.onclick = () => {
    if (drawing) return;
    const { width, height } = /** @type {ImageData} */ (frame.image);
    frames = [];
    ui.strip.replaceChildren();
    addFrame(frame, width, height, 1);
  };
  item.append(open);
  ui.gallery.prepend(item);
  any('gallery-view').hidden = false;
}

function stop() {
  // Without a drawing there may still be a model on its way.
  const loading = model;
  drawing?.abort();
  if (!ui.stop.disabled) loading?.controller.abort(); // does nothing to a model that is there
}

// --------------------------------------------------------------------------------- canvas and strip

/** @param {number} sigma */
function sigmaText(sigma) {
  if (!(sigma < 1000)) return '∞ (nothing but noise)';
  return sigma.toFixed(sigma < 10 ? 2 : 1);
}

/** @param {HTMLCanvasElement} canvas */
function context2d(canvas) {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser gives no 2D canvas.');
  return context;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Frame} frame
 */
function paint(canvas, frame) {
  const context = context2d(canvas);
  if (frame.image && canvas.width === frame.image.width && canvas.height === frame.image.height) {
    context.putImageData(frame.image, 0, 0);
    return;
  }
  let picture = /** @type {CanvasImageSource | undefined} */ (frame.preview);
  if (frame.image) {
    const full = document.createElement('canvas');
    full.width = frame.image.width;
    full.height = frame.image.height;
    context2d(full).putImageData(frame.image, 0, 0);
    picture = full;
  }
  if (!picture) return;
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

/**
 * @param {Frame} frame
 * @param {number} width
 * @param {number} height
 * @param {number} expected how many there will be
 */
function addFrame(frame, width, height, expected) {
  frames.push(frame);
  if (ui.canvas.width !== width || ui.canvas.height !== height) {
    ui.canvas.width = width;
    ui.canvas.height = height;
    ui.canvas.style.setProperty('--aspect', String(width / height));
  }
  ui.stepsView.hidden = false;
  ui.scrub.max = String(expected);
  ui.strip.style.setProperty('--count', String(expected));
  ui.scrub.disabled = Boolean(drawing) && !frame.image;
  addThumbnail(frame, frames.length, width / height);
  show(frames.length);
}

/**
 * @param {Frame} frame
 * @param {number} side the longer one, in pixels
 * @param {number} [aspect]
 */
function thumbnailOf(frame, side, aspect = frame.image ? frame.image.width / frame.image.height : 1) {
  const thumbnail = document.createElement('canvas');
  thumbnail.width = Math.round(side * Math.min(1, aspect));
  thumbnail.height = Math.round(side / Math.max(1, aspect));
  paint(thumbnail, frame);
  return thumbnail;
}

/**
 * @param {Frame} frame
 * @param {number} number
 * @param {number} aspect
 */
function addThumbnail(frame, number, aspect) {
  const item = document.createElement('li');
  item.title = frame.title;
  item.append(thumbnailOf(frame, 64, aspect));
  item.onclick = () => {
    if (!ui.scrub.disabled) show(number);
  };
  ui.strip.append(item);
}

/** @param {Frame[]} kept */
function restore(kept) {
  const finished = kept.at(-1)?.image;
  frames = [];
  ui.strip.replaceChildren();
  const { width, height } = finished ?? ui.canvas;
  for (const frame of kept) addFrame(frame, width, height, kept.length);
  ui.scrub.disabled = false;
}

/**
 * Shows one frame of the strip.
 * @param {number} number from 1
 */
function show(number) {
  const frame = frames[number - 1];
  if (!frame) return;
  paint(ui.canvas, frame);
  ui.save.disabled = ui.redraw.disabled = ui.upscale.disabled = frames.at(-1)?.image === undefined;
  ui.scrub.value = String(number);
  ui.scrub.setAttribute('aria-valuetext', `${frame.title}, ${frame.detail}`);
  const detail = document.createElement('small');
  detail.textContent = frame.detail;
  const title = document.createElement('span');
  title.textContent = frame.title;
  ui.caption.replaceChildren(title, detail);
  // The share of the noise where picture and noise each have unit spread: sigma / sqrt(1 + sigma^2).
  const { sigma = 0 } = frame;
  ui.noiseBar.style.transform = `scaleX(${sigma < 1e6 ? sigma / Math.hypot(1, sigma) : 1})`;
  for (const [i, item] of [...ui.strip.children].entries()) {
    item.toggleAttribute('aria-current', i === number - 1);
  }
  const current = /** @type {HTMLElement} */ (ui.strip.children[number - 1]);
  const left = current.offsetLeft - ui.strip.offsetLeft;
  if (left < ui.strip.scrollLeft || left + current.offsetWidth > ui.strip.scrollLeft + ui.strip.clientWidth) {
    ui.strip.scrollLeft = left - ui.strip.clientWidth / 2;
  }
  drawLatents(frame);
}

/**
 * The four channels that the UNet sees, in grey: nothing in the middle, three times the usual to either side
 * (samplers differ in how they scale noisy latents).
 * @param {Frame} frame
 */
function drawLatents({ latents }) {
  ui.latents.hidden = !latents;
  if (!latents) return;
  const channels = 4;
  const scale = Math.sqrt((ui.canvas.width * ui.canvas.height * channels) / latents.length);
  const width = Math.round(ui.canvas.width / scale), height = Math.round(ui.canvas.height / scale);
  if (width * height * channels !== latents.length) return;
  const usual = Math.sqrt(latents.reduce((sum, value) => sum + value * value, 0) / latents.length) || 1;
  for (let channel = 0; channel < channels; channel++) {
    const canvas = /** @type {HTMLCanvasElement} */ (ui.channels.children[channel] ?? ui.channels.appendChild(document.createElement('canvas')));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const image = new ImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      const grey = 128 + (latents[channel * width * height + i] / (3 * usual)) * 127;
      image.data.set([grey, grey, grey, 255], i * 4);
    }
    context2d(canvas).putImageData(image, 0, 0);
  }
  ui.latentsText.textContent = `The latents, as the UNet sees them: ${channels} channels of ${width} × ${height} numbers.`;
}

/** Something for the eye before the first picture: soft noise, as every picture begins. */
function drawEmpty() {
  const points = 16;
  const noise = new ImageData(points, points);
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  for (let i = 0; i < noise.data.length; i++) {
    noise.data[i] = i % 4 === 3 ? 255 : (dark ? 20 : 215) + Math.random() * 40;
  }
  const small = new OffscreenCanvas(points, points);
  small.getContext('2d')?.putImageData(noise, 0, 0);
  context2d(ui.canvas).drawImage(small, 0, 0, ui.canvas.width, ui.canvas.height);
}

/** The finished picture that is shown, or the last. */
const finishedFrame = () => [frames[ui.scrub.valueAsNumber - 1], ...frames.toReversed()].find((frame) => frame?.file);

async function save() {
  const frame = finishedFrame();
  if (!frame?.file) return;
  try {
    const url = URL.createObjectURL(await frame.file());
    Object.assign(document.createElement('a'), { href: url, download: `${frame.name}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    showError(error);
  }
}

// ------------------------------------------------------------------------- starting from a picture

/** What the picture to start from tells of how it was made. @type {{ options: GenerateOptions, model?: string } | undefined} */
let told;

/** The picture that the next one starts from; nothing takes it away. @param {ImageBitmapSource | undefined} source */
async function startFrom(source) {
  try {
    await editor.open(source);
  } catch {
    showError(new DiffusionError('invalid-option', 'That file is no picture that this browser can read. Choose a PNG, JPEG or WebP.'));
    return;
  }
  told = undefined;
  if (source instanceof Blob) {
    const { parameters, ...more } = await readParameters(source);
    if (parameters !== undefined) told = more;
  }
  ui.takeSettings.hidden = !told;
  ui.editor.hidden = !editor.picture;
  if (!editor.picture) ui.image.value = '';
  else ui.start.open = true;
}

/**
 * A picture that was dropped: one that tells how it was made brings the settings back, any other is started from.
 * @param {File} file
 */
async function takePicture(file) {
  const { options, parameters, model } = await readParameters(file);
  if (parameters === undefined) {
    await startFrom(file);
    say(`${file.name} is the picture to start from.`);
    return;
  }
  say(`The settings of ${file.name} are back. To start from the picture itself, choose it below.${await takeSettings(options, model)}`);
}

/**
 * The model that a picture was made with becomes the model, where the page has it: its own, the catalogue's, what is kept.
 * @param {string} name
 * @returns {Promise<string>} what to say where it has not
 */
async function takeModel(name) {
  const kept = (await cache.list().catch(() => [])).map((one) => readKeptName(one.name).source);
  const source = [name, `disk:${name}`].find((one) => one === 'embedded' || offered(one) || kept.includes(one) || one === ui.source.value.trim());
  if (!source) return ` It was drawn with ${name}, which this page does not have.`;
  ui.source.value = source;
  ui.source.dispatchEvent(new Event('input', { bubbles: true }));
  await followRecipe(); // the picture's settings come after those that go with the model
  return '';
}

/**
 * Sets the form to what a picture tells; what it does not tell is as usual.
 * @param {GenerateOptions} options
 * @param {string} [model]
 * @returns {Promise<string>} what to say of the model
 */
async function takeSettings(options, model) {
  const words = model === undefined ? '' : await takeModel(model);
  const { hires, scheduler = '', seedResizeFrom = ['', ''] } = options;
  const upscaler = /** @type {string | undefined} */ (hires?.upscaler);
  /** @type {[HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement, string | number | undefined][]} */
  const values = [
    [ui.prompt, options.prompt], [ui.negativePrompt, options.negativePrompt ?? ''], [ui.promptSyntax, options.promptSyntax],
    [ui.width, options.width], [ui.height, options.height], [ui.steps, options.numInferenceSteps], [ui.guidance, options.guidanceScale],
    [ui.guidanceRescale, options.guidanceRescale ?? 0], [ui.scheduler, scheduler], [ui.eta, options.eta ?? ''], [ui.sChurn, options.sChurn ?? 0],
    [ui.seed, options.seed], [ui.rng, options.rng], [ui.variationSeed, options.variationSeed ?? ''], [ui.variationStrength, options.variationStrength],
    ...ui.seedResize.map((side, i) => /** @type {[HTMLInputElement, string | number]} */ ([side, seedResizeFrom[i]])),
    [ui.clipSkip, options.clipSkip ?? 0], [ui.strength, options.strength], [ui.maskBlur, options.maskBlur ?? 0], [ui.maskPadding, options.maskPadding],
    [ui.maskedContent, options.maskedContent ?? ''], [ui.inpaintArea, options.inpaintArea ?? 'whole'],
    [ui.hiresScale, hires ? hires.scale ?? (hires.width ?? 0) / (options.width ?? 1) : ''], [ui.hiresStrength, hires?.strength], [ui.hiresSteps, hires?.steps ?? ''],
    [ui.hiresUpscaler, hires && (upscaler ?? 'file')],
  ];
  for (const [field, value] of values) {
    if (value === undefined) continue;
    // A choice that the page does not offer is one more.
    if (field instanceof HTMLSelectElement && ![...field.options].some((option) => option.value === String(value))) field.add(new Option(String(value)));
    field.value = String(value);
  }
  resize();
  showTuning();
  showPadding();
  readPrompt();
  remember();
  return words;
}

/** The padding counts where only what is painted is drawn. */
function showPadding() {
  any('mask-padding-field').hidden = ui.inpaintArea.value !== 'masked';
}

/** What is painted follows a change of the size that is drawn. */
function resize() {
  editor.resize();
  controls.resize(any('controls'));
}

function wireEditor() {
  ui.image.addEventListener('change', () => {
    const [file] = ui.image.files ?? [];
    if (file) startFrom(file);
  });
  ui.takeSettings.onclick = async () => {
    if (told) say(`The settings of your picture are back.${await takeSettings(told.options, told.model)}`);
  };
  ui.inpaintArea.addEventListener('change', showPadding);
  ui.brush.addEventListener('input', () => { editor.brush = ui.brush.valueAsNumber; });
  ui.erase.onclick = () => {
    editor.erasing = !editor.erasing;
    ui.erase.setAttribute('aria-pressed', String(editor.erasing));
  };
  button('clear-paint').onclick = () => editor.clear();
  button('remove-image').onclick = () => startFrom(undefined);
  for (const field of [ui.width, ui.height]) field.addEventListener('change', () => { if (field.checkValidity()) resize(); });
  ui.upscale.onclick = upscaleShown;
  ui.redraw.onclick = async () => {
    const image = finishedFrame()?.image;
    if (!image) return;
    await startFrom(image);
    ui.editor.scrollIntoView({ block: 'nearest' });
    element('paint', HTMLCanvasElement).focus();
  };
}

// ------------------------------------------------------------------------------- how the prompt is read

let readings = 0;
/** Shows the prompt's tokens, once a model is there and the prompt has been still for a moment. */
async function readPrompt() {
  const mine = ++readings;
  await new Promise((resolve) => setTimeout(resolve, 250));
  if (mine !== readings || drawing) return;
  try {
    const pipeline = await model?.promise;
    if (!pipeline || mine !== readings) return;
    const options = { promptSyntax: syntax(), embeddings: /** @type {any} */ (embeddings.read().filter(({ token }) => token)) };
    const { tokens, chunks, foreign } = await pipeline.tokenize(ui.prompt.value, options);
    if (mine !== readings) return;
    any('foreign').hidden = !foreign;
    any('tokens').replaceChildren(...tokens.map(({ text, id, weight, cut, unknown }) => {
      const token = document.createElement('span');
      token.textContent = text;
      token.title = `token ${id}${weight === 1 ? '' : `, weight ${weight.toFixed(2)}`}${cut ? ', not read' : ''}${unknown ? ', a scrap of a word that the model does not know' : ''}`;
      token.className = [weight > 1 && 'heavy', weight < 1 && 'light', unknown && 'unknown', cut && 'cut'].filter(Boolean).join(' ');
      return token;
    }));
    any('tokens-text').textContent = `${tokens.length} tokens${chunks > 1 ? `, read in ${chunks} portions of 75` : ' of 75'}. Bold weighs more, grey less; dashed is a scrap of an unknown word.`;
  } catch {
    // A view on the side: what is wrong with the model or the files is said where a picture is asked for.
  }
}

// ---------------------------------------------------------------------------------- comparing settings

function wireGrid() {
  for (const [axis] of axisFields) {
    axis.add(new Option('nothing', ''));
    for (const [name, { label }] of Object.entries(AXES)) axis.add(new Option(label, name));
  }
  button('draw-grid').onclick = () => {
    const job = readJob();
    if (!job) return;
    try {
      job.axes = readAxes(axisFields.map(([axis, values]) => [axis.value, values.value]));
      cells(job.options, job.axes); // words that are not in the prompt are found now
      if (!job.axes.some(({ name }) => name)) throw new Error('Choose what changes across or down, and type its values.');
    } catch (error) {
      showError(new DiffusionError('invalid-option', error instanceof Error ? error.message : String(error)));
      return;
    }
    job.options.numImages = 1;
    enqueue(job);
  };
}

// ------------------------------------------------------------------------- suggestions, cache, settings

// What goes with the nouns, in the words that the embedded model learnt from.
const COLOURS = ['red', 'orange', 'yellow', 'green', 'blue', 'light blue', 'purple', 'pink', 'black', 'gray', 'brown', 'white'];
const SCENES = ['on the grass', 'on the beach', 'in the snow', 'in the sea', 'in the sky', 'at sunset', 'at night'];
const WITHOUT_ARTICLE = ['grapes', 'cherries', 'french fries', 'cheese', 'fire', 'pizza'];

/** Offers what the embedded model can draw: the nouns of embedded/concepts.json. */
async function suggest() {
  /** @type {string[]} */
  let nouns;
  try {
    nouns = await (await fetch(new URL('./embedded/concepts.json', import.meta.url))).json();
  } catch {
    return; // suggestions are a help, not a need
  }
  const panel = any('suggestions');
  /** @param {string[]} list */ const pick = (list) => list[Math.floor(Math.random() * list.length)];
  /** @param {string} words */ const article = (words) => (/^[aeio]|^umbrella/.test(words) ? `an ${words}` : `a ${words}`);
  /** @param {string} noun @param {string} [colour] */
  const thing = (noun, colour) => {
    const words = colour ? `${colour} ${noun}` : noun;
    return WITHOUT_ARTICLE.includes(noun) ? words : article(words);
  };
  const kinds = [
    () => thing(pick(nouns)),
    () => thing(pick(nouns), pick(COLOURS.slice(0, -1))), // nothing was tinted white
    () => `${thing(pick(nouns))} on ${article(pick(COLOURS))} background`,
    () => `${thing(pick(nouns))} ${pick(SCENES)}`,
  ];
  /** @param {string} words */
  const chip = (words) => {
    const made = document.createElement('button');
    made.type = 'button';
    made.textContent = words;
    return made;
  };
  const shuffled = () => [...new Set(Array.from({ length: 6 }, (_, i) => kinds[i % kinds.length]()))].map(chip);
  const shuffle = chip('other ideas');
  shuffle.className = 'shuffle';
  const all = document.createElement('details');
  const summary = document.createElement('summary');
  summary.textContent = `All ${nouns.length} things that the small model has learnt`;
  const list = document.createElement('div');
  list.append(...nouns.map((noun) => chip(thing(noun))));
  all.append(summary, list);
  panel.replaceChildren(...shuffled(), shuffle, all);
  panel.addEventListener('click', ({ target }) => {
    if (target === shuffle) {
      for (const old of panel.querySelectorAll(':scope > button:not(.shuffle)')) old.remove();
      panel.prepend(...shuffled());
    } else if (target instanceof HTMLButtonElement) {
      ui.prompt.value = target.textContent;
      remember();
    }
  });
  const toggle = () => {
    panel.hidden = (ui.source.value.trim() || 'embedded') !== 'embedded';
  };
  ui.source.addEventListener('input', toggle);
  toggle();
}

/** A checkpoint from disk, chosen or dropped anywhere on the page, becomes the model; a picture is looked at. */
function wireFiles() {
  /** @param {File | FileSystemDirectoryHandle} checkpoint @param {string} what */
  const choose = (checkpoint, what) => {
    picked = checkpoint;
    picks++;
    ui.source.value = picked.name;
    ui.source.dispatchEvent(new Event('input', { bubbles: true }));
    say(`${what}, is the model now. It is read from your disk; nothing is uploaded.`);
  };
  /** @param {Iterable<File> | null | undefined} list */
  const take = (list) => {
    const [file] = list ?? [];
    if (!file) return;
    if (file.type.startsWith('image/')) {
      takePicture(file).catch(showError);
      return;
    }
    if (!/\.(safetensors|ckpt|pt|pth)$/i.test(file.name)) {
      showError(new DiffusionError('unsupported-model', `${file.name} is no checkpoint and no picture: choose a .safetensors or .ckpt file.`));
      return;
    }
    choose(file, `${file.name}, ${size(file.size)}`);
  };
  ui.files.addEventListener('change', () => take(ui.files.files));
  addEventListener('dragover', (event) => {
    if (event.dataTransfer?.types.includes('Files')) event.preventDefault();
  });
  addEventListener('drop', async (event) => {
    const { files, items } = event.dataTransfer ?? {};
    if (!files?.length) return;
    event.preventDefault();
    // Where the browser hands out folders: one as diffusers keeps it.
    const list = [...files];
    const handle = await /** @type {any} */ (items?.[0]).getAsFileSystemHandle?.();
    if (handle?.kind === 'directory') choose(handle, `The folder ${handle.name}`);
    else take(list);
  });
}

async function listCache() {
  if (!element('cache', HTMLDetailsElement).open) return;
  const list = any('cache-list');
  try {
    const [models, { usage, quota }, persisted] = await Promise.all([
      cache.list(), cache.estimate(), navigator.storage?.persisted?.() ?? false,
    ]);
    list.replaceChildren(...models.map(({ name, bytes, complete }) => {
      const { source, weights } = readKeptName(name);
      const entry = offered(source);
      const shown = entry ? `${entry.name}${weights === 'f16' ? '' : ` (${weights})`}` : name;
      const item = document.createElement('li');
      item.title = name;
      const label = document.createElement('span');
      const note = document.createElement('small');
      note.textContent = complete ? size(bytes) : `${size(bytes)}, not complete yet; loading it goes on from here`;
      label.append(shown, note);
      const use = document.createElement('button');
      use.type = 'button';
      use.textContent = 'Use';
      use.setAttribute('aria-label', `Use ${shown}`);
      use.onclick = () => {
        ui.weights.value = weights;
        ui.source.value = source;
        ui.source.dispatchEvent(new Event('input', { bubbles: true }));
        say(`${shown} is the model now.`);
      };
      const remove = document.createElement('button');
      remove.type = 'button';
      remove.textContent = 'Delete';
      remove.setAttribute('aria-label', `Delete ${shown}`);
      remove.onclick = async () => {
        remove.disabled = true;
        try {
          await cache.delete(name);
          say(`${shown} is deleted.`);
        } catch (error) {
          showError(error);
        }
        await listCache();
        any('cache-list').querySelector('button')?.focus(); // the button that had it is gone
        showCost();
      };
      item.append(label, use, remove);
      return item;
    }));
    if (models.length === 0) list.replaceChildren('None yet.');
    any('cache-usage').textContent = quota > 0 ? `${size(usage)} used of ${size(quota)} that the browser allows.` : '';
    button('persist').hidden = persisted || models.length === 0;
  } catch (error) {
    list.replaceChildren(error instanceof Error ? error.message : String(error));
  }
}

const SETTINGS = 'browser-diffusion settings';
const remembered = [ui.prompt, ui.negativePrompt, ui.steps, ui.guidance, ui.width, ui.height, ui.scheduler, ui.preview, ui.seed, ui.source, ui.weights, ui.memory, ui.count, ui.clipSkip, ui.strength, ui.variationSeed, ui.variationStrength, ui.rng, ...ui.seedResize, ui.promptSyntax, ui.guidanceRescale, ui.eta, ui.sChurn];

function remember() {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(Object.fromEntries(remembered.map((field) => [field.id, field.value]))));
  } catch {
    // Storage may be forbidden; then the form starts afresh each time.
  }
}

function recall() {
  try {
    const values = JSON.parse(localStorage.getItem(SETTINGS) ?? '{}');
    for (const field of remembered) {
      if (typeof values[field.id] === 'string') field.value = values[field.id];
    }
  } catch {
    // As above.
  }
}

// ---------------------------------------------------------------------------------------------- start

function wire() {
  const group = new Map();
  for (const name of DiffusionPipeline.schedulers) {
    const label = schedulerLabel(name);
    const sampler = label.split(' · ')[0];
    if (!group.has(sampler)) group.set(sampler, ui.scheduler.appendChild(Object.assign(document.createElement('optgroup'), { label: sampler })));
    group.get(sampler).append(new Option(label, name));
  }
  recall();
  // A file chosen on an earlier visit is out of reach now.
  if (/^[^/]+\.(safetensors|ckpt|pt|pth)$/i.test(ui.source.value)) ui.source.value = 'embedded';
  wireCatalogue().then(() => followRecipe());
  wireFiles();
  wireEditor();
  wireGrid();
  ui.scheduler.addEventListener('change', showTuning);
  for (const field of [ui.source, any('loras')]) field.addEventListener('input', () => { followRecipe(); });
  button('recipe-undo').onclick = () => {
    const mark = followed?.mark ?? '';
    putBack();
    followed = { mark, set: [], before: [] }; // not again for this one
    ui.steps.focus();
  };
  showTuning();
  ui.enqueue.onclick = () => enqueue();
  ui.form.addEventListener('submit', (event) => {
    event.preventDefault();
    draw();
  });
  ui.form.addEventListener('input', ({ target }) => {
    if (target instanceof HTMLElement) target.removeAttribute('aria-invalid');
    remember();
  });
  for (const field of [ui.prompt, ui.promptSyntax]) field.addEventListener('input', readPrompt);
  ui.stop.onclick = stop;
  ui.save.onclick = save;
  ui.scrub.addEventListener('input', () => show(ui.scrub.valueAsNumber));
  ui.keepSeed.onclick = () => {
    ui.seed.value = ui.usedSeed.textContent ?? '';
    ui.keepSeed.hidden = true;
    ui.seed.focus();
    remember();
  };
  element('cache', HTMLDetailsElement).addEventListener('toggle', listCache);
  button('persist').onclick = async () => {
    const agreed = await cache.persist();
    say(agreed ? 'The browser will keep the models.' : 'The browser did not promise to keep them. It may, once you use this page more often.');
    listCache();
  };
  button('tune').onclick = tune;
  document.addEventListener('keydown', (event) => {
    if (event.isComposing) return;
    if (event.key === 'Escape') stop();
    // In the text box Enter draws and Shift+Enter is a new line; Ctrl+Enter draws from anywhere.
    const enter = event.key === 'Enter' && (event.ctrlKey || event.metaKey || (event.target === ui.prompt && !event.shiftKey));
    if (enter && any('no-webgpu').hidden) {
      event.preventDefault();
      draw();
    }
  });
}

async function start() {
  wire();
  navigator.serviceWorker?.register(new URL('./sw.js', import.meta.url)).catch(() => {
    // Without it the page works just the same, only not without a network.
  });
  gpu = await detect();
  const { webgpu, reason, adapter } = gpu;
  showCost();
  if (!webgpu) {
    any('no-webgpu-reason').textContent = reason ?? '';
    any('no-webgpu').hidden = false;
    for (const card of ui.form.querySelectorAll('.card')) card.toggleAttribute('hidden', true);
    ui.form.classList.add('bare');
    return;
  }
  drawEmpty();
  suggest();
  if (drawing) return;
  // The small model comes by itself, so that the first picture does not have to wait for it.
  const saveData = /** @type {any} */ (navigator).connection?.saveData === true;
  if (ui.source.value.trim() === 'embedded' && !saveData) {
    busy(true);
    try {
      await pipelineOf('embedded');
      if (!drawing) say(adapter?.fallback ? 'Ready. This browser draws without a graphics card, so it will be slow.' : 'Ready.');
    } catch (error) {
      if (!drawing) {
        say(isAbort(error) ? 'Stopped. Generate loads the model again.' : 'The model is not loaded.');
        if (!isAbort(error)) showError(error);
      }
    } finally {
      if (!drawing) busy(false);
    }
  } else {
    say('Ready.');
  }
}

start();
