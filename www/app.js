/**
 * The page: a form, a canvas that shows every step, and a strip to look at the steps again. Each part of it has a file
 * in page/; here they are made and wired. The page knows the engine only through browser-diffusion.js, like any other
 * site.
 */
import { DiffusionPipeline, detect } from './browser-diffusion.js';
import { t } from './messages/index.js';
import { Additions } from './page/additions.js';
import { clears } from './page/clear.js';
import { Compare } from './page/compare.js';
import { Completion } from './page/completion.js';
import { Controls } from './page/controls.js';
import { Drawing } from './page/drawing.js';
import { Enlarger } from './page/enlarge.js';
import { showFirst } from './page/example.js';
import { takeFiles } from './page/files.js';
import { Grid } from './page/grid.js';
import { History } from './page/history.js';
import { KeptModels } from './page/kept.js';
import './page/languages.js';
import { showLevels } from './page/levels.js';
import { Likeness } from './page/likeness.js';
import { EMBEDDED, Models } from './page/model.js';
import { keepPage, unmetered } from './page/network.js';
import { takePasted } from './page/pasted.js';
import { Places } from './page/places.js';
import { Presets } from './page/presets.js';
import { Prompts } from './page/prompts.js';
import { Queue } from './page/queue.js';
import { asRead, showReading } from './page/read-as.js';
import { Recipes, offeredRecipe } from './page/recipes.js';
import { Settings } from './page/settings.js';
import { sharesWhatIs } from './page/share.js';
import { Shop } from './page/shop.js';
import { Start } from './page/start.js';
import { Strip } from './page/strip.js';
import { Styles } from './page/styles.js';
import { Suggestions } from './page/suggestions.js';
import { Tags } from './page/tags.js';
import { Tokens } from './page/tokens.js';
import { TranslationOffer } from './page/translation-offer.js';
import { showGpu, tunes } from './page/tuning.js';
import { Uses } from './page/uses.js';
import { weighsIn } from './page/weigh.js';
import { Work } from './page/work.js';
import { element, hideError, input, isAbort, say, showError } from './page/ui.js';

/** @typedef {import('./page/drawing.js').Job} Job */

// --------------------------------------------------------------------------------------------- the form

const form = element('form', HTMLFormElement);
// What the place of the models shows is read when it is opened.
const places = new Places(() => {
  shop.show();
  kept.show();
});
const settings = new Settings(DiffusionPipeline.schedulers);
showLevels((hidden) => settings.changed(hidden, models.offered()?.defaults));
const start = new Start(() => settings.size, takeSettings);
const controls = new Controls(() => settings.size, () => start.picture);
const likeness = new Likeness();
const additions = new Additions({ loras: () => recipes.follow(), words: () => tokens.show() });
const grid = new Grid(settings.axes, () => drawGrid());

/** What the form asks for; nothing if a field is wrong, which is said. @returns {Job | undefined} */
function readJob() {
  hideError();
  try {
    settings.check();
    const options = settings.read({
      image: start.picture,
      maskImage: start.mask,
      controlnets: controls.read(),
      ipAdapters: likeness.read(),
      loras: /** @type {any} */ (additions.loras.read()),
      embeddings: additions.words,
    });
    prompts.add({ prompt: options.prompt, negative: options.negativePrompt ?? '' });
    return { source: models.source, options, fresh: true };
  } catch (error) {
    showError(error);
    return undefined;
  }
}

/**
 * Sets the form to what a picture tells.
 * @param {import('./page/start.js').Told} told
 * @returns {Promise<string>} what else to say: what it needs and does not bring
 */
async function takeSettings({ options, model, needs }) {
  const has = model === undefined || await models.take(model);
  const { loras, controlnets, ipAdapters } = needs;
  const files = [...additions.loras.take(loras), ...controls.take(controlnets), ...likeness.take(ipAdapters)];
  // The picture's settings come after those that go with the model and the LoRAs.
  await recipes.follow();
  settings.take(options);
  return [
    has ? '' : t('taken.noModel', model),
    files.length > 0 ? t('taken.files', files.join(', ')) : '',
    controlnets.length > 0 ? t('taken.controls') : '',
    ipAdapters ? t('taken.likeness') : '',
  ].join('');
}

settings.on('change', ['width', 'height'], () => {
  start.resize();
  controls.resize();
});

// -------------------------------------------------------------------------------------------- the model

const models = new Models({
  decoder: () => additions.decoder,
  another: () => places.go('models', 'source'),
  async chosen(entry) {
    const { width, height } = entry.defaults;
    settings.set({ width, height });
    await recipes.follow();
    // A recipe's stay: its own, or those of a LoRA.
    if (!recipes.followed && models.offered() === entry) settings.set(offeredRecipe(entry));
  },
  async loaded({ model }, source, entry) {
    const { scheduler, instructPix2Pix } = model;
    const { width, steps, guidance } = entry?.defaults ?? {};
    settings.learn({
      source, scheduler, instructPix2Pix,
      defaultSize: width ?? model.defaultSize,
      numInferenceSteps: steps ?? model.numInferenceSteps,
      guidanceScale: guidance ?? model.guidanceScale,
    }, !entry);
    await recipes.follow();
    showWords();
    keepPage();
  },
  changed() {
    kept.show();
    models.showCost();
  },
  costs: () => shop.show(),
});
const shop = new Shop({ models, open: () => places.current === 'models', taken: () => places.go('draw') });
const kept = new KeptModels({
  offered: (source) => models.offered(source),
  use: (source, weights) => models.choose(source, weights),
  deleted: () => models.showCost(),
});
const recipes = new Recipes(settings, () => {
  const { source, numInferenceSteps: steps, guidanceScale: guidance, scheduler = '' } = settings.usual;
  const entry = models.offered(), file = models.picked();
  return [
    ...additions.loras.read().map((lora) => ({ what: /** @type {const} */ ('LoRA'), source: lora.source })),
    {
      what: 'model',
      source: file instanceof File ? file : models.source,
      catalogue: entry && offeredRecipe(entry),
      pipeline: source === models.source ? { steps, guidance, scheduler } : undefined,
    },
  ];
});
takeFiles({
  checkpoint: (checkpoint) => models.pick(checkpoint),
  picture(file) {
    places.go('draw');
    return start.drop(file);
  },
});

// --------------------------------------------------------------------------------------------- drawing

const work = new Work({ stopped: () => models.abort(), enqueue: () => enqueue(readJob()) });
const queue = new Queue(() => work.focusEnqueue());
const enlarger = new Enlarger(enlarge);
function enlarge() {
  if (work.drawing) return;
  hideError();
  work.draw((signal) => enlarger.run(strip, signal));
}
const strip = new Strip(() => work.drawing, {
  redraw: (image) => start.redraw(image),
  finished: (frame) => history.add(frame),
  shown(frame) {
    enlarger.shown(frame !== undefined);
    history.shown(frame);
    uses.shown(frame);
    compare.shown(frame);
    sharesWhatIs(frame);
  },
});
const history = new History({ show: (frame) => strip.open(frame), drawing: () => work.drawing });
const compare = new Compare((option) => settings.nameOf(option));
const uses = new Uses({
  settings: takeSettings,
  seed: (seed) => settings.set({ seed }),
  mask: (image) => start.paintBy(image),
  control: (file) => controls.show(file),
  enlarge() {
    enlarger.open();
    enlarge();
  },
  link: ({ options, model = EMBEDDED }) => settings.link(options, models.shared(model)),
});
const drawing = new Drawing({
  strip,
  load: (source) => models.load(source),
  again: (options) => settings.again(options),
  upscaler: () => enlarger.model(),
  size: () => ({ width: settings.usual.defaultSize, height: settings.usual.defaultSize }),
  drawn: (seed) => settings.offerSeed(seed),
  lost: () => models.forget(),
});

/** Draws a job, and then what waits. @param {Job | undefined} job */
async function draw(job) {
  if (work.drawing) return;
  for (let next = job; next; next = queue.take()) {
    const now = next;
    await work.draw((signal) => drawing.run(now, signal));
  }
  showWords(); // by the model that came meanwhile
}

/** Puts a job behind what is drawn now. @param {Job | undefined} job */
function enqueue(job) {
  if (job && work.drawing) queue.add({ ...job, fresh: false });
  else draw(job);
}

function drawGrid() {
  const job = readJob();
  if (!job) return;
  try {
    enqueue({ ...job, axes: grid.read(job.options), options: { ...job.options, numImages: 1 } });
  } catch (error) {
    showError(error);
  }
}

// ----------------------------------------------------------------------------------------------- words

const WORDS = ['prompt', 'prompt-syntax'];
const tokens = new Tokens(
  () => (work.drawing ? undefined : models.current),
  async () => {
    const { prompt, ...options } = settings.only(...WORDS);
    const read = await asRead(prompt, models.source, options.promptSyntax);
    return { ...options, prompt: read, source: models.source, embeddings: additions.words };
  },
  () => translation.known(settings.usual.source ?? ''),
);
/** Shows how the prompt will be read: as English, and as tokens. */
function showWords() {
  tokens.show();
  translation.show(models.source);
  showReading(settings.only('prompt').prompt, models.source);
}
const words = {
  read: () => ({ prompt: settings.get('prompt'), negative: settings.get('negative-prompt') }),
  /** @param {{ prompt: string, negative: string }} words */
  set: ({ prompt, negative }) => settings.set({ prompt, 'negative-prompt': negative }),
};
const prompts = new Prompts(words.set);
new Styles(words);
const translation = new TranslationOffer(words);
clears({ ...words, typed: (listener) => settings.on('input', ['prompt', 'negative-prompt'], listener) });
new Presets(settings, () => models.offered()?.defaults);
const suggestions = new Suggestions((prompt) => settings.set({ prompt }));
settings.on('input', [...WORDS, 'negative-prompt'], showWords);
settings.on('input', ['source'], () => {
  showWords();
  recipes.follow();
  suggestions.show(models.source === EMBEDDED);
});

// ----------------------------------------------------------------------------------------------- begin

const tags = new Tags();
for (const field of [element('prompt', HTMLTextAreaElement), input('negative-prompt')]) {
  weighsIn(field);
  new Completion(field, () => ({ ...additions.names, tags: tags.all }));
}
takePasted(element('prompt', HTMLTextAreaElement), (text) => start.paste(text));
tunes(work, models);
form.addEventListener('submit', (event) => {
  event.preventDefault();
  draw(readJob());
});
document.addEventListener('keydown', (event) => {
  // Enter then takes what is being composed: 229 is how Safari says so of the key that ends it.
  if (event.isComposing || event.keyCode === 229 || places.current !== 'draw') return;
  if (event.key === 'Escape') work.stop();
  // In the text box Enter draws and Shift+Enter is a new line; Ctrl+Enter draws from anywhere.
  const inText = event.target instanceof HTMLTextAreaElement && !event.shiftKey;
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey || inText) && work.open) {
    event.preventDefault();
    draw(readJob());
  }
});

/** The small model comes by itself, so that the first picture does not have to wait for it. @param {boolean} slow */
async function loadEmbedded(slow) {
  try {
    await models.load(EMBEDDED);
    if (!work.drawing) say(t(slow ? 'draw.readySlow' : 'draw.ready'));
  } catch (error) {
    if (work.drawing) return;
    say(t(isAbort(error) ? 'draw.loadStopped' : 'draw.notLoaded'));
    if (!isAbort(error)) showError(error);
  }
}

/** The link that was opened last: who comes back to it from the models does not open it again. */
let opened = '';

/** Sets the form as a link says, if the address is one. @param {Promise<void>} [catalogue] until it is read */
async function openLink(catalogue) {
  const values = location.hash === opened ? undefined : settings.linked(location.hash);
  if (values) opened = location.hash;
  if (values) settings.set(values);
  await catalogue;
  await recipes.follow();
  // The link names steps and guidance itself: a recipe for its model takes second place.
  if (values) settings.set(values);
}

async function begin() {
  openLink(models.start());
  places.start();
  addEventListener('hashchange', () => openLink());
  models.gpu = await detect();
  showGpu(models.gpu);
  models.showCost();
  if (!models.gpu.webgpu) {
    work.close(models.gpu.reason ?? '');
    return;
  }
  showFirst(strip, history, () => work.drawing).catch(() => {}); // a help, not a need
  suggestions.load();
  suggestions.show(models.source === EMBEDDED);
  if (work.drawing) return;
  const slow = models.gpu.adapter?.fallback === true;
  const costsNothing = models.source === EMBEDDED && (unmetered() || await models.keepsSmall());
  if (work.drawing) return;
  if (costsNothing) await work.beside(() => loadEmbedded(slow));
  else say(t('draw.ready'));
}

begin();
