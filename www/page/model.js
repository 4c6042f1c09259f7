/** The model: which one is asked for, what it costs, and the one that is loaded. */
import { DiffusionError, DiffusionPipeline, cache } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { cost, keptName, readCatalogue, readKeptName, readSource } from './catalogue.js';
import { describeCost } from './cost.js';
import { Download } from './download.js';
import { any, input, say, select, size } from './ui.js';

/**
 * @typedef {import('./catalogue.js').Entry} Entry
 * @typedef {import('./catalogue.js').Weights} Weights
 * @typedef {import('../browser-diffusion.js').ModelSource} ModelSource
 */

/**
 * What is loaded, or on its way.
 * @typedef {{ key: string, source: string, controller: AbortController, promise: Promise<DiffusionPipeline> }} Loaded
 */

/**
 * @typedef {object} On
 * @property {() => ModelSource | undefined} decoder another one than the model's own
 * @property {(entry: Entry) => void} chosen from the catalogue
 * @property {(pipeline: DiffusionPipeline, source: string, entry?: Entry) => Promise<void>} loaded
 *   whoever waits for the pipeline waits for this too
 * @property {() => void} another the visitor wants one that the catalogue does not have
 * @property {() => void} changed what the cache holds
 * @property {() => void} costs what models cost here has changed, or which one is chosen
 */

export const EMBEDDED = 'embedded';

/** A server answered 401 or 403. @param {unknown} error */
const asksForToken = (error) =>
  error instanceof DiffusionError && error.code === 'network' && /HTTP 40[13]/.test(error.message);

/** Another Hub, for those who have a mirror: the address's ?hub=. A link may name any: the token does not go there. */
const hub = new URLSearchParams(location.search).get('hub') ?? undefined;

export class Models {
  #source = input('source');
  #weights = select('weights');
  #memory = select('memory');
  #prediction = select('prediction');
  #catalogue = select('catalogue');
  #cost = any('cost');
  #note = any('generate-cost');
  #token = input('token');
  #askToken = any('ask-token');
  #keepFile = input('keep-file');
  #on;
  /**
   * The checkpoint from disk, a file or a folder; its name stands in the field.
   * @type {File | FileSystemDirectoryHandle | undefined}
   */
  #picked;
  /** How many were chosen: two may have one name. */
  #picks = 0;
  /** What the page offers. @type {Entry[]} */
  #entries = [];
  /** What the catalogue's choice of another one says while none is asked for. */
  #other = '';
  /** Bytes of the model that comes with the page. */
  #small = 0;
  /** @type {Loaded | undefined} */
  #loaded;
  #costsAsked = 0;
  /** @type {import('../browser-diffusion.js').Detection} */
  gpu = { webgpu: false };

  /** @param {On} on */
  constructor(on) {
    this.#on = on;
    // A file chosen on an earlier visit is out of reach now.
    if (/^[^/]+\.(safetensors|ckpt|pt|pth)$/i.test(this.#source.value)) this.#source.value = EMBEDDED;
    const shows = () => this.showCost();
    for (const field of [this.#source, this.#weights, this.#memory]) field.addEventListener('input', shows);
    // It was said of the model that stood there before.
    this.#source.addEventListener('input', () => { this.#prediction.value = ''; });
    this.#catalogue.addEventListener('change', () => {
      const { value } = this.#catalogue;
      if (value !== '') this.pickOffered(value);
      else on.another();
      this.showCost();
    });
  }

  /** The page's own model, or one of the catalogue with what it is used to. @param {string} source */
  pickOffered(source) {
    this.choose(source);
    const entry = this.offered(source);
    if (entry) this.#on.chosen(entry);
  }

  /** Reads the catalogue. */
  async start() {
    const { models, embedded } = await readCatalogue();
    this.#entries = models;
    this.#other = this.#catalogue.options[1].text;
    this.#small = embedded?.download ?? 0;
    const options = this.#entries.map(({ name, source, download }) =>
      new Option(t('model.option', name, size(download)), source));
    this.#catalogue.options[0].after(...options);
    await this.showCost();
  }

  /** What is asked for. */
  get source() {
    return this.#source.value.trim() || EMBEDDED;
  }

  /** The entry of the catalogue that a source is. */
  offered(source = this.source) {
    return this.#entries.find((entry) => entry.source === source || keptName(entry, 'f16') === source);
  }

  /** The file or folder from disk, if that is the source. */
  picked(source = this.source) {
    return this.#picked && [this.#picked.name, `disk:${this.#picked.name}`].includes(source) ? this.#picked : undefined;
  }

  /** A model's name, where others can have it too: a file from disk is the visitor's alone. @param {string} name */
  shared(name) {
    const isPublic = /^([\w.-]+\/[\w.-]+(@[\w./-]+)?|https?:\/\/\S+)$/.test(name);
    return this.offered(name)?.source ?? (isPublic ? name : undefined);
  }

  /** As if it had been typed. @param {string} source @param {Weights} [weights] */
  choose(source, weights) {
    if (weights) this.#weights.value = weights;
    this.#source.value = source;
    this.#source.dispatchEvent(new Event('input', { bubbles: true }));
  }

  /** A checkpoint from disk. @param {File | FileSystemDirectoryHandle} checkpoint */
  pick(checkpoint) {
    this.#picked = checkpoint;
    this.#picks++;
    this.choose(checkpoint.name);
  }

  /**
   * The model that a picture was made with is chosen, where the page has it: its own, the catalogue's, what is kept.
   * @param {string} name
   * @returns {Promise<boolean>} whether it has
   */
  async take(name) {
    const kept = (await cache.list().catch(() => [])).map((one) => readKeptName(one.name).source);
    const has = [EMBEDDED, this.source, ...kept];
    const source = [name, `disk:${name}`].find((one) => has.includes(one) || this.offered(one));
    if (source) this.choose(source);
    return source !== undefined;
  }

  // ------------------------------------------------------------------------------------------- loading

  /** What is loaded, or on its way. */
  get current() {
    return this.#loaded?.promise;
  }

  /** Stops loading; does nothing to a model that is there. */
  abort() {
    this.#loaded?.controller.abort();
  }

  /** Times the kernels again. */
  async tune() {
    const pipeline = await this.load();
    say(t('tune.trying'));
    await pipeline.tune();
    say(t('tune.done'));
  }

  /** The next drawing loads it again. */
  forget() {
    this.#loaded = undefined;
  }

  /** The pipeline of a model; the one before is let go. @param {string} [source] */
  load(source = this.source) {
    const file = this.picked(source);
    const asked = {
      weights: /** @type {Weights} */ (this.#weights.value), memory: this.#lowMemory ? 'low' : 'auto',
      predictionType: this.#prediction.value || undefined,
    };
    const keeps = file ? this.#keepFile.checked : undefined;
    const vae = this.#on.decoder();
    const mark = file ? [file.name, this.#picks] : source;
    const vaeMark = vae instanceof File ? [vae.name, vae.size, vae.lastModified] : vae;
    const key = JSON.stringify([mark, vaeMark, keeps, asked]);
    if (this.#loaded?.key === key) return this.#loaded.promise;
    const before = this.#loaded;
    const controller = new AbortController();
    const options = /** @type {import('../browser-diffusion.js').LoadOptions} */ ({ ...asked, vae, cache: keeps });
    const promise = (async () => {
      before?.controller.abort();
      await before?.promise.then((pipeline) => pipeline.dispose(), () => {});
      return this.#fetch(source, file, { ...options, signal: controller.signal });
    })();
    const mine = this.#loaded = { key, source, controller, promise };
    this.showCost();
    promise.then(async () => {
      // What took long to fetch is not to be cleared when space runs short.
      if (source !== EMBEDDED && keeps !== false) await cache.persist();
      this.#on.changed();
    }, () => {
      if (this.#loaded === mine) this.#loaded = undefined;
      this.showCost();
    });
    return promise;
  }

  /**
   * @param {string} source
   * @param {File | FileSystemDirectoryHandle | undefined} file from disk
   * @param {import('../browser-diffusion.js').LoadOptions} options
   */
  async #fetch(source, file, options) {
    const entry = this.offered(source);
    say(source === EMBEDDED ? t('model.loadingSmall') : t('model.loading', entry?.name ?? source));
    const download = new Download();
    const typed = readSource(source);
    const keepable = !entry || (await this.#costOf(entry)).keepable;
    const loading = DiffusionPipeline.fromPretrained(file ?? entry?.source ?? typed.source, {
      ...options,
      hub,
      revision: entry ? entry.revision : typed.revision,
      variant: entry?.variant,
      cache: keepable ? options.cache : false,
      token: hub ? undefined : this.#token.value.trim() || undefined,
      onProgress: (progress) => download.update(progress),
    });
    // The field is out of sight until a server asks who is there; a mirror is never told.
    loading.catch((error) => {
      if (!hub && asksForToken(error)) this.#askToken.hidden = false;
    });
    const pipeline = await loading;
    const renamed = file && options.cache && this.#source.value === file.name;
    if (renamed) this.#source.value = `disk:${file.name}`;
    await this.#on.loaded(pipeline, renamed ? this.#source.value : source, entry);
    return pipeline;
  }

  // ---------------------------------------------------------------------------------------------- cost

  get #lowMemory() {
    return this.#memory.value === 'low';
  }

  /** What an entry of the catalogue costs here and now. @param {Entry} entry */
  async #costOf(entry) {
    const [kept, estimate] = await Promise.all([cache.list().catch(() => []), cache.estimate()]);
    const weights = /** @type {Weights} */ (this.#weights.value);
    return cost(entry, { weights, low: this.#lowMemory, kept, estimate, gpu: this.gpu });
  }

  /**
   * All that the page offers, and what each costs here; first the page's own, of which only the download counts.
   * @returns {Promise<{ small: number, entries: { entry: Entry, cost: import('./catalogue.js').Cost }[] }>}
   */
  async offers() {
    const [has, entries] = await Promise.all([
      this.keepsSmall(),
      Promise.all(this.#entries.map(async (entry) => ({ entry, cost: await this.#costOf(entry) }))),
    ]);
    return { small: has ? 0 : this.#small, entries };
  }

  /**
   * Whether the model that comes with the page is kept here. The engine knows, and costs a megabyte to ask where it was
   * not fetched yet: a service worker is there only after it was.
   */
  async keepsSmall() {
    if (!navigator.serviceWorker?.controller) return false;
    return (await cache.list().catch(() => [])).some(({ name, complete }) => complete && name === EMBEDDED);
  }

  /** Says what the chosen model costs, before it is fetched: of the catalogue's all, and on the button the bytes. */
  async showCost() {
    const mine = ++this.#costsAsked;
    const entry = this.offered();
    this.#catalogue.value = entry?.source ?? (this.#source.value.trim() === EMBEDDED ? EMBEDDED : '');
    const found = entry && await this.#costOf(entry);
    const note = await this.#noteOf(found?.download);
    if (mine !== this.#costsAsked) return;
    const isOther = this.#catalogue.value === '' && this.#source.value.trim();
    const { options } = this.#catalogue;
    if (this.#other) options[options.length - 1].text = isOther || this.#other;
    this.#note.textContent = note;
    this.#note.hidden = note === '';
    if (entry && found) this.#cost.replaceChildren(...describeCost(entry, found));
    this.#cost.hidden = !entry;
    this.#on.costs();
  }

  /** What Generate would fetch first. @param {number} [bytes] of the catalogue's model */
  async #noteOf(bytes) {
    const { source } = this;
    if (this.#loaded?.source === source || this.picked() || source.startsWith('disk:')) return '';
    if (bytes !== undefined) return bytes > 0 ? t('model.fetches', size(bytes)) : '';
    if (source !== EMBEDDED) return t('model.fetchesUnknown');
    return await this.keepsSmall() ? '' : t('model.fetches', size(this.#small));
  }
}
