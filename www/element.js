/**
 * `<diffusion-picture prompt="a red apple" seed="1" steps="20">`: a picture that its visitor's GPU draws, and a field of a
 * form, whose value is the PNG. docs/embedding.md says what it takes; the types are in element.d.ts.
 */
import { DiffusionError, DiffusionPipeline } from './browser-diffusion.js';

/** @typedef {import('./browser-diffusion.js').ModelSource} ModelSource */
/** @typedef {import('./browser-diffusion.js').GenerateOptions} GenerateOptions */

/** Which option of `generate` an attribute is; Number reads those that are numbers. */
const OPTIONS = /** @type {const} */ ({
  prompt: ['prompt', String],
  'negative-prompt': ['negativePrompt', String],
  seed: ['seed', Number],
  steps: ['numInferenceSteps', Number],
  guidance: ['guidanceScale', Number],
  width: ['width', Number],
  height: ['height', Number],
  scheduler: ['scheduler', String],
  'prompt-syntax': ['promptSyntax', String],
});
/** Which option of `fromPretrained`. */
const LOADING = /** @type {const} */ ({ weights: 'weights', precision: 'precision', memory: 'memory', hub: 'hub' });

const HTML = `
  <canvas part="canvas" role="img" width="64" height="64"></canvas>
  <slot name="progress"><progress part="progress" max="1" hidden></progress></slot>
  <p part="status" role="status"></p>
  <button part="button" type="button"><span><slot name="draw">Draw</slot></span
  ><span hidden><slot name="stop">Stop</slot></span></button>`;
const STYLE = `
  :host { display: inline-block } :host([hidden]), [hidden] { display: none }
  canvas { display: block; width: 100%; background: #8882 } p { margin: 0 } p:empty { display: none }
  :host(:focus-within) canvas { outline: none }`;

// -------------------------------------------------------------------------------------------- shared models

/** Elements that show the same model draw with one. @type {Map<string, { pipeline: Promise<DiffusionPipeline>, users: number }>} */
const models = new Map();
/** @type {WeakMap<object, number>} a name for a source that is an object */
const names = new WeakMap();
let named = 0;

/** @param {ModelSource} source @param {object} options */
function keyOf(source, options) {
  if (typeof source === 'object' && !names.has(source)) names.set(source, named++);
  return JSON.stringify([typeof source === 'object' ? names.get(source) : source, options]);
}

/**
 * @param {ModelSource} source
 * @param {import('./browser-diffusion.js').LoadOptions} options
 * @returns {{ pipeline: Promise<DiffusionPipeline>, release(): void }}
 */
function borrow(source, { onProgress, ...options }) {
  const key = keyOf(source, options);
  let model = models.get(key);
  if (!model) {
    const pipeline = DiffusionPipeline.fromPretrained(source, { ...options, onProgress });
    models.set(key, model = { pipeline, users: 0 });
    pipeline.catch(() => models.delete(key)); // the next one tries again
  }
  const its = model;
  its.users++;
  const release = () => {
    its.users--;
    // An element that is moved within the page leaves it and comes again.
    setTimeout(() => {
      if (its.users > 0 || models.get(key) !== its) return;
      models.delete(key);
      its.pipeline.then((pipeline) => pipeline.dispose(), () => {});
    });
  };
  return { pipeline: its.pipeline, release };
}

// ---------------------------------------------------------------------------------------------- the element

// Where there is no page, as in Node, an import of this file makes a class that nobody can use, and no error.
const Base = globalThis.HTMLElement ?? /** @type {typeof HTMLElement} */ (/** @type {unknown} */ (class {}));

export class DiffusionPicture extends Base {
  static formAssociated = true;
  static observedAttributes = [...Object.keys(OPTIONS), ...Object.keys(LOADING), 'source'];
  /** What elements draw with that name no source. @type {ModelSource} */
  static source = 'embedded';

  #internals;
  #canvas;
  #progress;
  #status;
  #button;
  /** @type {ModelSource | undefined} */ #source;
  /** @type {File | null} */ #value = null;
  /** @type {AbortController | undefined} what stops the drawing that goes on */ #drawing;
  /** @type {ReturnType<typeof borrow> | undefined} */ #model;
  #due = false;
  #disabled = false;

  constructor() {
    super();
    this.#internals = this.attachInternals();
    const root = this.attachShadow({ mode: 'open', delegatesFocus: true });
    root.innerHTML = HTML;
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    this.#canvas = /** @type {HTMLCanvasElement} */ (root.querySelector('canvas'));
    this.#progress = /** @type {HTMLProgressElement} */ (root.querySelector('progress'));
    this.#status = /** @type {HTMLElement} */ (root.querySelector('[role=status]'));
    this.#button = /** @type {HTMLButtonElement} */ (root.querySelector('button'));
    this.#button.addEventListener('click', () => { void (this.#drawing ? this.stop() : this.draw()); });
    root.addEventListener('keydown', (event) => {
      if (/** @type {KeyboardEvent} */ (event).key === 'Escape' && this.#drawing) this.stop();
    });
  }

  connectedCallback() {
    if (!this.#value && !this.#drawing) this.#changed(); // else it was moved
  }

  disconnectedCallback() {
    // Not where it was only moved.
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.stop();
      this.#letGo();
    });
  }

  /** @param {string} name @param {string | null} before @param {string | null} now */
  attributeChangedCallback(name, before, now) {
    if (before === now) return;
    if (!(name in OPTIONS)) this.#letGo();
    this.#changed();
  }

  formResetCallback() {
    this.stop();
    this.#keep(null);
    this.#canvas.getContext('2d')?.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#say('');
  }

  /** @param {boolean} disabled */
  formDisabledCallback(disabled) {
    this.#disabled = this.#button.disabled = disabled;
    if (disabled) this.stop();
    else this.#changed();
  }

  /** What it draws with: a source as `fromPretrained` has it. */
  get source() {
    return this.#source ?? this.getAttribute('source') ?? DiffusionPicture.source;
  }

  set source(source) {
    this.#source = source;
    this.#letGo();
    this.#changed();
  }

  /** The picture, a PNG with its settings in it; null until there is one. */
  get value() {
    return this.#value;
  }

  get name() {
    return this.getAttribute('name') ?? '';
  }

  get form() {
    return this.#internals.form;
  }

  get validity() {
    return this.#internals.validity;
  }

  checkValidity() {
    return this.#internals.checkValidity();
  }

  reportValidity() {
    return this.#internals.reportValidity();
  }

  /** Stops what is drawn; what is shown stays. */
  stop() {
    this.#drawing?.abort();
  }

  /** Draws, instead of what it drew. @returns {Promise<File | null>} the picture; null where it was stopped or failed */
  async draw() {
    if (this.#disabled) return null;
    this.stop();
    const drawing = this.#drawing = new AbortController();
    const { signal } = drawing;
    this.#busy(true);
    this.#say('');
    try {
      const file = await this.#made(signal);
      this.#keep(file);
      this.dispatchEvent(new CustomEvent('picture', { detail: file }));
      this.dispatchEvent(new Event('change', { bubbles: true }));
      return file;
    } catch (error) {
      if (!signal.aborted) this.#failed(error);
      return null;
    } finally {
      if (this.#drawing === drawing) {
        this.#drawing = undefined;
        this.#busy(false);
      }
    }
  }

  /** @param {AbortSignal} signal */
  async #made(signal) {
    const options = this.#options();
    this.#model ??= borrow(this.source, {
      ...this.#loading(),
      onProgress: (detail) => {
        this.#progress.value = (detail.progress ?? 0) / 100;
        this.dispatchEvent(new CustomEvent('loading', { detail }));
      },
    });
    const pipeline = await this.#model.pipeline.catch((error) => {
      this.#letGo(); // the next drawing asks for it anew
      throw error;
    });
    signal.throwIfAborted();
    const { images: [image] } = await pipeline.generate({
      ...options,
      signal,
      onStep: (detail) => {
        this.#progress.value = detail.step / detail.total;
        if (detail.preview) this.#show(detail.preview);
        this.dispatchEvent(new CustomEvent('step', { detail }));
      },
    });
    const blob = await image.toBlob('image/png');
    const bitmap = await createImageBitmap(blob);
    signal.throwIfAborted();
    this.#show(bitmap);
    return new File([blob], `${options.prompt.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 60)}.png`, { type: blob.type });
  }

  /** @returns {GenerateOptions} */
  #options() {
    const given = Object.entries(OPTIONS).flatMap(([attribute, [option, read]]) => {
      const text = this.getAttribute(attribute);
      return text === null ? [] : [[option, read(text)]];
    });
    return /** @type {GenerateOptions} */ ({ prompt: '', ...Object.fromEntries(given) });
  }

  #loading() {
    const given = Object.entries(LOADING).filter(([attribute]) => this.hasAttribute(attribute));
    return Object.fromEntries(given.map(([attribute, option]) => [option, this.getAttribute(attribute)]));
  }

  /** Draws when all that changes now has changed, unless it waits to be asked. */
  #changed() {
    this.#canvas.ariaLabel = this.getAttribute('prompt') ?? '';
    this.#require();
    if (this.#due || !this.isConnected || this.hasAttribute('manual') || !this.hasAttribute('prompt')) return;
    this.#due = true;
    queueMicrotask(() => {
      this.#due = false;
      if (this.isConnected) void this.draw();
    });
  }

  #letGo() {
    this.#model?.release();
    this.#model = undefined;
  }

  /** @param {ImageBitmap} picture */
  #show(picture) {
    const { width, height } = picture;
    Object.assign(this.#canvas, { width, height });
    this.#canvas.getContext('2d')?.drawImage(picture, 0, 0);
    picture.close();
  }

  /** @param {File | null} value */
  #keep(value) {
    this.#value = value;
    this.#internals.setFormValue(value);
    this.#require();
  }

  #require() {
    const missing = this.hasAttribute('required') && !this.#value;
    this.#internals.setValidity({ valueMissing: missing }, missing ? 'Draw a picture first.' : '', this.#button);
  }

  /** @param {boolean} busy */
  #busy(busy) {
    if (busy) this.#progress.removeAttribute('value');
    this.#progress.hidden = !busy;
    this.ariaBusy = String(busy);
    this.#button.querySelectorAll('span').forEach((label, i) => { label.hidden = busy !== Boolean(i); });
  }

  /** @param {string} text */
  #say(text) {
    this.#status.textContent = text;
  }

  /** @param {unknown} error */
  #failed(error) {
    const detail = error instanceof DiffusionError ? error : new DiffusionError('aborted', String(error));
    this.#say(detail.message);
    this.dispatchEvent(new CustomEvent('failed', { detail }));
  }
}

if (globalThis.customElements && !customElements.get('diffusion-picture')) {
  customElements.define('diffusion-picture', DiffusionPicture);
}
