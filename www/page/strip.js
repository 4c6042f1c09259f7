/**
 * The picture and how it came about: the canvas, the strip with a frame for every step, and what the UNet saw.
 */
import { t } from '../messages/index.js';
import { any, button, context2d, element, input, make, saveFile, showError } from './ui.js';
import { drawLatents } from './latents.js';
import { Looking } from './looking.js';

/**
 * One picture of the strip: a step, or (with `image`) the finished picture.
 * @typedef {object} Frame
 * @property {ImageBitmap} [preview]
 * @property {ImageData} [image]
 * @property {() => Promise<Blob>} [file] the finished picture as PNG
 * @property {string} [name] of that file
 * @property {string} [parameters] the text in it, which tells how it was made
 * @property {string} [id] of a finished picture
 * @property {import('./latents.js').Latents} [latents]
 * @property {Promise<import('./looking.js').Inside>} [inside] what went on in the network
 * @property {number} [sigma]
 * @property {string} title
 * @property {string} detail
 */

/** What a finished picture always has. @typedef {Frame & Required<Pick<Frame, 'image' | 'file' | 'name' | 'id'>>} Finished */

/** @typedef {{ width: number, height: number }} Size in pixels */

/**
 * @typedef {object} On
 * @property {(image: ImageData) => void} redraw start from a picture
 * @property {(frame: Finished) => void} finished a picture is new
 * @property {(frame?: Finished) => void} shown another frame is; of a strip that ends in a finished picture, that one
 */

export class Strip {
  /** What shows more of a step. */
  looking = new Looking();
  #canvas = element('canvas', HTMLCanvasElement);
  #caption = any('caption');
  #noiseBar = any('noise-bar');
  #scrub = input('scrub');
  #strip = any('strip');
  #save = button('save');
  #redraw = button('redraw');
  /** @type {Frame[]} */
  #frames = [];
  /** The one that is shown, from 1. */
  #shown = 0;
  /** How many there will be. */
  #expected = 0;
  /** Of the picture. @type {Size} */
  #size = { width: this.#canvas.width, height: this.#canvas.height };
  /** Steps that are still being made cannot be looked at again. */
  #fixed = false;
  #drawing;
  #on;

  /**
   * @param {() => boolean} drawing
   * @param {On} on
   */
  constructor(drawing, on) {
    this.#drawing = drawing;
    this.#on = on;
    this.#scrub.addEventListener('input', () => this.#show(this.#scrub.valueAsNumber));
    this.#save.onclick = () => this.#download().catch(showError);
    this.#redraw.onclick = () => {
      const image = this.finished?.image;
      if (image) on.redraw(image);
    };
  }

  /** What it shows. A drawing that fails puts what was there before back. */
  get frames() {
    return this.#frames;
  }

  /** The finished picture that is shown, or the last. */
  get finished() {
    const frames = [this.#frames[this.#shown - 1], ...this.#frames.toReversed()];
    return /** @type {Finished | undefined} */ (frames.find((frame) => frame?.file));
  }

  /** Begins anew. @param {Frame[]} [frames] to be filled */
  begin(frames = []) {
    this.#frames = frames;
    this.#expected = 0;
    this.#strip.replaceChildren();
  }

  /**
   * @param {Frame} frame
   * @param {Size} size of the picture
   * @param {number} [expected] how many there will be
   */
  add(frame, { width, height }, expected = 0) {
    this.#frames.push(frame);
    this.#expected = Math.max(this.#expected, expected, this.#frames.length);
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
      this.#canvas.style.setProperty('--aspect', String(width / height));
    }
    this.#size = { width, height };
    any('steps-view').hidden = false;
    this.#scrub.max = String(this.#expected);
    this.#strip.style.setProperty('--count', String(this.#expected));
    this.#fix(this.#drawing() && !frame.image);
    const number = this.#frames.length;
    const item = make('li', { title: frame.title }, thumbnailOf(frame, 64, width / height));
    item.onclick = () => {
      if (!this.#fixed) this.#show(number);
    };
    this.#strip.append(item);
    this.#show(number);
  }

  /** A picture that is finished now. @param {Omit<Finished, 'id'>} made */
  addFinished(made) {
    const frame = Object.assign(made, { id: crypto.randomUUID() });
    this.#on.finished(frame);
    this.#addWhole(frame);
  }

  /** Shows a finished picture alone. @param {Finished} frame */
  open(frame) {
    this.begin();
    this.#addWhole(frame);
  }

  /** @param {Finished} frame */
  #addWhole(frame) {
    this.add(frame, frame.image);
    this.#canvas.setAttribute('aria-label', t('picture.label', frame.title));
  }

  /** @param {Frame[]} kept */
  restore(kept) {
    const size = kept.at(-1)?.image ?? this.#size;
    this.begin();
    for (const frame of kept) this.add(frame, size, kept.length);
    this.#fix(false);
  }

  /** The latents of a step came, after its preview. @param {Frame} frame */
  latentsCame(frame) {
    if (this.#frames[this.#shown - 1] === frame) drawLatents(frame.latents, this.#size);
  }

  /** Shows one of the frames. @param {number} number from 1 */
  look(number) {
    this.#show(number);
  }

  /** @param {boolean} yes */
  #fix(yes) {
    this.#fixed = this.#scrub.disabled = yes;
  }

  /** @param {number} number from 1 */
  #show(number) {
    const frame = this.#frames[number - 1];
    if (!frame) return;
    this.#shown = number;
    paint(this.#canvas, frame);
    const finished = this.#frames.at(-1)?.image !== undefined;
    this.#save.disabled = this.#redraw.disabled = !finished;
    this.#on.shown(finished ? this.finished : undefined);
    this.#scrub.value = String(number);
    this.#scrub.setAttribute('aria-valuetext', `${frame.title}, ${frame.detail}`);
    const { title, detail } = frame;
    this.#caption.replaceChildren(make('span', { textContent: title }), make('small', { textContent: detail }));
    // The share of the noise where picture and noise each have unit spread: sigma / sqrt(1 + sigma^2).
    const { sigma = 0 } = frame;
    this.#noiseBar.style.transform = `scaleX(${sigma < 1e6 ? sigma / Math.hypot(1, sigma) : 1})`;
    for (const [i, item] of [...this.#strip.children].entries()) item.toggleAttribute('aria-current', i === number - 1);
    this.#scrollTo(/** @type {HTMLElement} */ (this.#strip.children[number - 1]));
    drawLatents(frame.latents, this.#size);
    this.looking.show(frame.inside);
  }

  /** @param {HTMLElement} item of the strip */
  #scrollTo(item) {
    const strip = this.#strip;
    const left = item.offsetLeft - strip.offsetLeft;
    const seen = left >= strip.scrollLeft && left + item.offsetWidth <= strip.scrollLeft + strip.clientWidth;
    if (!seen) strip.scrollLeft = left - strip.clientWidth / 2;
  }

  async #download() {
    const frame = this.finished;
    if (frame) saveFile(await frame.file(), `${frame.name}.png`);
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Frame} frame
 */
function paint(canvas, { image, preview }) {
  const context = context2d(canvas);
  if (image && canvas.width === image.width && canvas.height === image.height) {
    context.putImageData(image, 0, 0);
    return;
  }
  let picture = /** @type {CanvasImageSource | undefined} */ (preview);
  if (image) {
    const full = make('canvas', { width: image.width, height: image.height });
    context2d(full).putImageData(image, 0, 0);
    picture = full;
  }
  if (!picture) return;
  context.imageSmoothingQuality = 'high';
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

/**
 * @param {Frame} frame
 * @param {number} side the longer one, in pixels
 * @param {number} [aspect]
 */
export function thumbnailOf(frame, side, aspect = frame.image ? frame.image.width / frame.image.height : 1) {
  const width = Math.round(side * Math.min(1, aspect)), height = Math.round(side / Math.max(1, aspect));
  const thumbnail = make('canvas', { width, height });
  paint(thumbnail, frame);
  return thumbnail;
}
