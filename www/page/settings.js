/**
 * The form. One table says of each field which option of `generate` it is and how it is read, whether it is remembered
 * until the next visit, and what a picture's PNG text does to it; everything here goes through that table.
 */
import { t } from '../messages/index.js';
import { schedulerLabel, tuningOf } from '../metadata.js';
import { openDrawer, reveal } from './levels.js';
import { PageError } from './page-error.js';
import { any, button, make } from './ui.js';

/**
 * @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions
 * @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field
 */

/**
 * What a drawing takes from elsewhere on the page.
 * @typedef {object} Beside
 * @property {ImageBitmap} [image] to start from
 * @property {ImageData} [maskImage]
 * @property {NonNullable<GenerateOptions['controlnets']>} controlnets
 * @property {NonNullable<GenerateOptions['ipAdapters']>} ipAdapters
 * @property {GenerateOptions['loras']} loras
 * @property {GenerateOptions['embeddings']} embeddings
 */

/**
 * What the loaded model is used to, or the embedded one before any is loaded.
 * @typedef {object} Usual
 * @property {number} defaultSize
 * @property {number} numInferenceSteps
 * @property {number} guidanceScale
 * @property {string} [scheduler]
 * @property {boolean} [instructPix2Pix] it edits the picture to start from
 * @property {string} [source] which model that is
 */

/**
 * What decides whether a field counts.
 * @typedef {object} Asks
 * @property {boolean} image there is a picture to start from
 * @property {boolean} extended which grows at a side
 * @property {boolean} mask which is painted on, and does not grow
 * @property {boolean} controlnets
 * @property {boolean} edits the model is InstructPix2Pix
 * @property {{ eta?: number, sChurn: boolean }} tuning what the chosen sampler knows
 * @property {(id: string) => string} value of another field
 */

/**
 * One field.
 * @typedef {object} Setting
 * @property {string} id of the element
 * @property {string} [option] of `generate`; `hires.scale` is `scale` of `hires`
 * @property {(value: string, asks: Asks) => unknown} [read] the option's value; undefined: it is not asked for
 * @property {(asks: Asks) => boolean} [when] otherwise it is not asked for either
 * @property {boolean} [kept] until the next visit
 * @property {{ usual?: string | number } | ((told: GenerateOptions) => string | number | undefined)} [png]
 *   a picture's text sets it: to its option or, where the text has none, to `usual`; without `usual` the field stays
 * @property {(usual: Usual) => string | number} [model] a model that is loaded sets it to this
 * @property {'number' | 'whole' | 'word'} [axis] a grid compares it
 */

/** @param {string} value */ const text = (value) => value;
/** @param {string} value */ const word = (value) => value || undefined;
/** @param {string} value */ const number = (value) => Number(value);
/** 0 is nothing. @param {string} value */
const some = (value) => Number(value) || undefined;
/** An empty field is nothing. @param {string} value */
const given = (value) => (value === '' ? undefined : Number(value));

/** @param {Asks} asks */ const starts = ({ image }) => image;
/** @param {Asks} asks */ const paints = ({ mask }) => mask;
/** @param {Asks} asks */ const repaints = ({ mask, extended }) => mask || extended;
/** @param {Asks} asks */ const extends_ = ({ extended }) => extended;
/** @param {Asks} asks */ const enlarges = ({ image, value }) => !image && value('hires-scale') !== '';
/** @param {Asks} asks */
const resizes = ({ value }) => SEED_RESIZE.some((side) => value(`seed-resize-${side}`) !== '');
/** @param {Asks} asks */ const edits = (asks) => asks.edits;
/** @param {Asks} asks */ const caches = ({ value }) => Number(value('deep-cache-interval')) > 1;
/** @param {Asks} asks */
const interrupts = ({ value }) => GUIDANCE.some((end, i) => Number(value(`guidance-${end}`)) !== i);

const SIDES = ['left', 'right', 'top', 'bottom'];
const SEED_RESIZE = ['width', 'height'];
const GUIDANCE = ['start', 'end'];

/** @type {readonly Setting[]} */
const TABLE = [
  { id: 'prompt', option: 'prompt', read: text, kept: true, png: {} },
  { id: 'negative-prompt', option: 'negativePrompt', read: text, kept: true, png: { usual: '' } },
  { id: 'prompt-syntax', option: 'promptSyntax', read: text, kept: true, png: {} },
  { id: 'seed', option: 'seed', read: given, kept: true, png: {}, axis: 'whole' },
  { id: 'steps', option: 'numInferenceSteps', read: number, kept: true, png: {}, axis: 'whole',
    model: (usual) => usual.numInferenceSteps },
  { id: 'guidance', option: 'guidanceScale', read: number, kept: true, png: {}, axis: 'number',
    model: (usual) => usual.guidanceScale },
  { id: 'image-guidance', option: 'imageGuidanceScale', read: number, when: edits, kept: true, png: {}, axis: 'number',
    model: () => 1.5 },
  { id: 'width', option: 'width', read: number, kept: true, png: {}, model: (usual) => usual.defaultSize },
  { id: 'height', option: 'height', read: number, kept: true, png: {}, model: (usual) => usual.defaultSize },
  { id: 'scheduler', option: 'scheduler', read: word, kept: true, png: { usual: '' }, model: () => '', axis: 'word' },
  { id: 'preview', option: 'preview', read: text, kept: true },
  { id: 'count', option: 'numImages', read: number, kept: true },
  { id: 'clip-skip', option: 'clipSkip', read: some, kept: true, png: { usual: 0 }, axis: 'whole' },
  // Which model: page/model.js reads these.
  { id: 'source', kept: true },
  { id: 'weights', kept: true },
  { id: 'memory', kept: true },
  // From a picture.
  { id: 'strength', option: 'strength', read: number, when: starts, kept: true, png: {}, axis: 'number',
    model: (usual) => (usual.instructPix2Pix ? 1 : 0.75) },
  { id: 'strength-steps', option: 'strengthSteps', read: text, when: starts, png: { usual: 'diffusers' } },
  { id: 'mask-blur', option: 'maskBlur', read: number, when: repaints, png: { usual: 0 } },
  { id: 'masked-content', option: 'maskedContent', read: word, when: paints, png: { usual: '' } },
  { id: 'inpaint-area', option: 'inpaintArea', read: text, when: paints, png: { usual: 'whole' } },
  { id: 'mask-padding', option: 'maskPadding', read: number, when: (asks) => asks.mask && onlyMasked(asks), png: {} },
  ...SIDES.map((side) => ({ id: `extend-${side}`, option: `outpaint.${side}`, read: number, when: extends_ })),
  // A second pass.
  { id: 'hires-scale', option: 'hires.scale', read: number, when: enlarges,
    png: ({ hires, width = 1 }) => (hires ? hires.scale ?? (hires.width ?? 0) / width : '') },
  { id: 'hires-strength', option: 'hires.strength', read: number, when: enlarges, png: {} },
  { id: 'hires-steps', option: 'hires.steps', read: given, when: enlarges, png: { usual: '' } },
  { id: 'hires-upscaler', option: 'hires.upscaler', when: enlarges,
    read: (value) => (value === 'file' ? undefined : value), // a model from disk, which page/enlarge.js has
    png: ({ hires }) => hires && /** @type {string} */ (hires.upscaler ?? 'file') },
  // The sampler.
  ...GUIDANCE.map((end, i) => ({
    id: `guidance-${end}`, option: `guidanceInterval.${i}`, read: number, when: interrupts, kept: true,
    png: { usual: i },
  })),
  { id: 'deep-cache-interval', option: 'deepCache.interval', read: number, when: caches, kept: true,
    png: { usual: 1 } },
  { id: 'deep-cache-branch', option: 'deepCache.branch', read: number, when: caches, kept: true, png: { usual: 0 } },
  { id: 'guidance-rescale', option: 'guidanceRescale', read: some, kept: true, png: { usual: 0 } },
  { id: 'eta', option: 'eta', read: given, when: ({ tuning }) => tuning.eta !== undefined, kept: true,
    png: { usual: '' } },
  { id: 's-churn', option: 'sChurn', read: some, when: ({ tuning }) => tuning.sChurn, kept: true, png: { usual: 0 } },
  { id: 'guess-mode', option: 'guessMode', read: Boolean, when: (asks) => asks.controlnets,
    png: ({ guessMode }) => (guessMode ? 'guess' : '') },
  // The noise.
  { id: 'variation-seed', option: 'variationSeed', read: given, kept: true, png: { usual: '' } },
  { id: 'variation-strength', option: 'variationStrength', read: number, kept: true, png: {},
    when: ({ value }) => value('variation-seed') !== '' },
  { id: 'ensd', option: 'etaNoiseSeedDelta', read: some, kept: true, png: { usual: 0 } },
  { id: 'own-seeds', option: 'generatorPerImage', read: Boolean },
  ...SEED_RESIZE.map((side, i) => ({
    id: `seed-resize-${side}`, option: `seedResizeFrom.${i}`, when: resizes, kept: true, png: { usual: '' },
    read: (/** @type {string} */ value, /** @type {Asks} */ asks) => Number(value || asks.value(side)),
  })),
  { id: 'rng', option: 'rng', read: text, kept: true, png: {} },
];

/** @param {Pick<Asks, 'value'>} asks */
const onlyMasked = ({ value }) => value('inpaint-area') === 'masked';

const STORED = 'browser-diffusion settings';

export class Settings {
  #fields = new Map(TABLE.map(({ id }) => [id, /** @type {Field} */ (any(id))]));
  #keepSeed = button('keep-seed');
  /** The seed that the button would take over. @type {number | undefined} */
  #offered;
  /** @type {Usual} */
  usual = { defaultSize: 128, numInferenceSteps: 20, guidanceScale: 3 };

  /** @param {readonly string[]} schedulers that there are to choose from */
  constructor(schedulers) {
    /** @type {Map<string, HTMLOptGroupElement>} */
    const groups = new Map();
    for (const name of schedulers) {
      const whole = schedulerLabel(name);
      const [label] = whole.split(' · ');
      const group = groups.get(label) ?? make('optgroup', { label });
      group.append(new Option(whole, name));
      groups.set(label, group);
    }
    this.#field('scheduler').append(...groups.values());
    this.#recall();
    this.#arrange();
    document.addEventListener('input', ({ target }) => {
      if (target instanceof HTMLElement) target.removeAttribute('aria-invalid');
      this.remember();
    });
    this.on('change', ['scheduler', 'inpaint-area'], () => this.#arrange());
    button('swap-size').onclick = () => this.set({ width: this.get('height'), height: this.get('width') });
    this.#keepSeed.onclick = () => {
      this.set({ seed: this.#offered ?? '' });
      this.#keepSeed.hidden = true;
      this.focus('seed');
    };
  }

  /** @param {string} id @returns {Field} */
  #field(id) {
    const field = this.#fields.get(id);
    if (!field) throw new TypeError(`${id} is not in the table of settings`);
    return field;
  }

  /** What stands in a field; a box that is not ticked is empty. @param {string} id */
  get(id) {
    const field = this.#field(id);
    return field instanceof HTMLInputElement && field.type === 'checkbox' && !field.checked ? '' : field.value;
  }

  /** Sets fields, as if it had been typed. @param {Record<string, string | number>} values */
  set(values) {
    for (const [id, value] of Object.entries(values)) {
      const field = this.#field(id);
      // A choice that the page does not offer is one more.
      const choices = field instanceof HTMLSelectElement ? [...field.options].map((option) => option.value) : undefined;
      if (choices && !choices.includes(String(value))) field.append(new Option(String(value)));
      field.value = String(value);
    }
    this.#arrange();
    this.remember();
    for (const id of Object.keys(values)) {
      for (const type of ['input', 'change']) this.#field(id).dispatchEvent(new Event(type));
    }
  }

  /**
   * @param {'input' | 'change'} type
   * @param {string[]} ids
   * @param {() => void} listener not called for a value that is wrong
   */
  on(type, ids, listener) {
    for (const id of ids) {
      const field = this.#field(id);
      field.addEventListener(type, () => {
        if (field.checkValidity()) listener();
      });
    }
  }

  /** @param {string} id */
  focus(id) {
    reveal(this.#field(id));
    this.#field(id).focus();
  }

  // ------------------------------------------------------------------------------------ what is drawn

  /** Width and height that the form asks for. */
  get size() {
    const { width = 0, height = 0 } = this.only('width', 'height');
    return { width: width || this.usual.defaultSize, height: height || this.usual.defaultSize };
  }

  /** @throws {DiffusionError} of the first field that is wrong, which then has the keyboard */
  check() {
    for (const [id, field] of this.#fields) {
      if (field.checkValidity()) continue;
      field.setAttribute('aria-invalid', 'true');
      openDrawer(field);
      field.focus();
      throw new PageError('invalid-option', t('field.wrong', this.#name(id), wrong(field)));
    }
  }

  /** What the form asks for. @param {Beside} beside @returns {GenerateOptions} */
  read({ image, maskImage, controlnets, ipAdapters, loras, embeddings }) {
    const extended = image !== undefined && SIDES.some((side) => Number(this.get(`extend-${side}`)) > 0);
    const mask = maskImage !== undefined && !extended;
    const beside = { image: image !== undefined, extended, mask, controlnets: controlnets.length > 0 };
    const options = this.#read(TABLE, beside);
    Object.assign(options, { loras, embeddings }, image && { image }, mask && { maskImage });
    return Object.assign(options, controlnets.length > 0 && { controlnets }, ipAdapters.length > 0 && { ipAdapters });
  }

  /** Of what the form asks for, these fields. @param {string[]} ids */
  only(...ids) {
    return this.#read(TABLE.filter(({ id }) => ids.includes(id)));
  }

  /** What a model may have set since the form was read, read again. @param {GenerateOptions} options */
  again(options) {
    for (const { option = '' } of TABLE.filter(({ model }) => model)) put(options, option, undefined);
    Object.assign(options, this.#read(TABLE.filter(({ model }) => model), { image: options.image !== undefined }));
  }

  /** @param {readonly Setting[]} settings @param {Partial<Asks>} [beside] @returns {GenerateOptions} */
  #read(settings, beside) {
    const value = (/** @type {string} */ id) => this.get(id);
    const none = { image: false, extended: false, mask: false, controlnets: false };
    const edits = this.usual.instructPix2Pix ?? false;
    const asks = { ...none, edits, tuning: this.#tuning().tuning, value, ...beside };
    const options = /** @type {GenerateOptions} */ ({});
    for (const { id, option, read, when } of settings) {
      const asked = option && read && (when?.(asks) ?? true) ? read(this.get(id), asks) : undefined;
      if (option && asked !== undefined) put(options, option, asked);
    }
    return options;
  }

  /** What a grid can compare. @returns {import('./grid.js').Kind[]} */
  get axes() {
    return TABLE.flatMap(({ id, option, axis }) => {
      if (!axis || !option) return [];
      return [{ name: id, label: this.#name(id), values: axis, set: (options, value) => put(options, option, value) }];
    });
  }

  // --------------------------------------------------------------------------------------- what sets it

  /** Sets the form to what a picture tells; what it does not tell is as usual. @param {GenerateOptions} told */
  take(told) {
    this.set(toldValues(told));
  }

  /**
   * The part of an address, from its "#", that opens the page with a picture's settings. The words, and what depends on
   * the model, are always in it; the rest where it is not as on a first visit.
   * @param {GenerateOptions} told by the picture
   * @param {string} [source] of its model; usually the page's own
   */
  link(told, source) {
    /** @type {Record<string, string | number>} */
    const values = { ...toldValues(told), ...(source && { source }) };
    const pairs = TABLE.flatMap(({ id, model }) => {
      const value = values[id];
      const always = id === 'prompt' || (model && value !== '');
      if (value === undefined || !(always || String(value) !== initial(this.#field(id)))) return [];
      return [[id === 'prompt' ? 'p' : id, String(value)]];
    });
    return `#${new URLSearchParams(pairs)}`;
  }

  /**
   * What a link says of the fields, and the others as on a first visit; a value that its field does not take is passed
   * over. Nothing where it is no such link.
   * @param {string} hash
   * @returns {Record<string, string> | undefined}
   */
  linked(hash) {
    const said = new URLSearchParams(hash.replace(/^#/, ''));
    if (!said.has('p')) return undefined;
    return Object.fromEntries(TABLE.filter(({ kept, png }) => kept || png).map(({ id }) => {
      const field = this.#field(id);
      const value = said.get(id === 'prompt' ? 'p' : id);
      return [id, value !== null && takes(field, value) ? value : initial(field)];
    }));
  }

  /**
   * A model is loaded: size, steps and guidance go along with it, unless the visitor chose others.
   * @param {Usual} usual
   * @param {boolean} sets false: the form was set when the model was chosen
   */
  learn(usual, sets) {
    /** @type {Record<string, string | number>} */
    const values = {};
    for (const { id, model } of TABLE) {
      if (sets && model && this.get(id) === String(model(this.usual))) values[id] = model(usual);
    }
    this.usual = usual;
    any('size-learnt').textContent = t('settings.learnt', usual.defaultSize);
    const own = usual.scheduler ? schedulerLabel(usual.scheduler) : '';
    any('own-scheduler').textContent = t('settings.own', own);
    this.set(values);
  }

  /** What the model would set a field to. @param {string} id */
  usualOf(id) {
    return String(TABLE.find((setting) => setting.id === id)?.model?.(this.usual) ?? '');
  }

  /**
   * Names of the fields that are not as usual, of some.
   * @param {(field: Element) => boolean} of
   * @param {Record<string, string | number>} [usual] for a model that is chosen and not loaded yet
   */
  changed(of, usual = {}) {
    const differs = (/** @type {string} */ id) =>
      ![initial(this.#field(id)), this.usualOf(id), String(usual[id])].includes(this.get(id));
    return TABLE.filter(({ id }) => of(this.#field(id)) && differs(id)).map(({ id }) => this.#name(id));
  }

  /** What an option of `generate` is called here; what has no field, by its own name. @param {string} option */
  nameOf(option) {
    const setting = TABLE.find((one) => one.option === option);
    return setting ? this.#name(setting.id) : option;
  }

  /** What a field is called. @param {string} id */
  #name(id) {
    return this.#field(id).labels?.[0]?.textContent?.trim() ?? id;
  }

  /** The form may take over the seed that was drawn with. @param {number} seed */
  offerSeed(seed) {
    this.#offered = seed;
    any('used-seed').textContent = String(seed);
    this.#keepSeed.hidden = this.get('seed') === String(seed);
  }

  // ------------------------------------------------------------------------------ what is shown and kept

  /** The chosen sampler, or the model's own, and what it knows. */
  #tuning() {
    const name = this.get('scheduler') || this.usual.scheduler || '';
    return { name, tuning: tuningOf(name) };
  }

  /** Shows the fields that count for the chosen sampler and the chosen area. */
  #arrange() {
    const { name, tuning: { eta, sChurn } } = this.#tuning();
    any('image-guidance-field').hidden = !this.usual.instructPix2Pix;
    any('eta-field').hidden = eta === undefined;
    any('s-churn-field').hidden = !sChurn;
    any('eta-hint').textContent = t('settings.eta', eta);
    const label = name ? schedulerLabel(name).split(' · ')[0] : t('settings.ownSampler');
    const turns = eta !== undefined || sChurn;
    any('sampling-hint').textContent = turns ? '' : t('settings.plain', label);
    any('mask-padding-field').hidden = !onlyMasked({ value: (id) => this.get(id) });
  }

  remember() {
    const values = TABLE.filter(({ kept }) => kept).map(({ id }) => [id, this.get(id)]);
    try {
      localStorage.setItem(STORED, JSON.stringify(Object.fromEntries(values)));
    } catch {
      // Storage may be forbidden; then the form starts afresh each time.
    }
  }

  #recall() {
    try {
      const values = JSON.parse(localStorage.getItem(STORED) ?? '{}');
      for (const { id, kept } of TABLE) if (kept && typeof values[id] === 'string') this.#field(id).value = values[id];
    } catch {
      // As above.
    }
  }
}

/** The fields as a picture tells. @param {GenerateOptions} told */
function toldValues(told) {
  /** @type {Record<string, string | number>} */
  const values = {};
  for (const { id, option, png } of TABLE) {
    const value = typeof png === 'function' ? png(told) : png && (at(told, option) ?? png.usual);
    if (value !== undefined) values[id] = value;
  }
  return values;
}

/** What stands in a field on a first visit. @param {Field} field */
function initial(field) {
  if (field instanceof HTMLSelectElement) return field.options[0].value;
  if (field.type === 'checkbox') return /** @type {HTMLInputElement} */ (field).defaultChecked ? field.value : '';
  return field.defaultValue;
}

/** What is wrong in a field, in the page's language: a browser's own words are in the browser's. @param {Field} field */
function wrong(field) {
  const { validity, validationMessage } = field;
  if (!(field instanceof HTMLInputElement)) return validationMessage;
  if (validity.patternMismatch) return t('field.seed');
  if (validity.badInput) return t('field.number');
  if (validity.valueMissing) return t('field.missing');
  if (validity.rangeUnderflow) return t('field.least', field.min);
  if (validity.rangeOverflow) return t('field.most', field.max);
  return validity.stepMismatch ? t('field.step', field.step, field.min) : validationMessage;
}

/** @param {Field} field @param {string} value */
function takes(field, value) {
  const other = /** @type {Field} */ (field.cloneNode(true));
  other.value = value;
  return other.value === value && other.checkValidity();
}

/** @param {any} options @param {string} [path] */
function at(options, path = '') {
  const [name, part] = path.split('.');
  return part === undefined ? options[name] : options[name]?.[part];
}

/** @param {any} options @param {string} path @param {unknown} value */
function put(options, path, value) {
  const [name, part] = path.split('.');
  if (part === undefined) options[name] = value;
  else (options[name] ??= /^\d+$/.test(part) ? [] : {})[part] = value;
}
