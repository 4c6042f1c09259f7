/**
 * The ControlNets of a drawing: each a model and what it is shown, a picture from disk, the picture to start from, or a
 * scribble that is drawn here.
 */
import { DiffusionError, canny } from '../browser-diffusion.js';
import { PictureEditor } from './editor.js';
import { Parts } from './parts.js';

/** @typedef {import('../browser-diffusion.js').ControlNet} ControlNet */

export class Controls {
  #parts;
  #size;
  #startPicture;
  /** @type {WeakMap<Element, PictureEditor>} the scribble of each row */
  #scribbles = new WeakMap();

  /**
   * @param {HTMLElement} list rows are added to it
   * @param {HTMLButtonElement} add
   * @param {() => import('./editor.js').Size} size what is drawn
   * @param {() => ImageBitmap | undefined} startPicture
   * @param {(error: unknown) => void} fail
   */
  constructor(list, add, size, startPicture, fail) {
    this.#size = size;
    this.#startPicture = startPicture;
    this.#parts = new Parts(list, add, 'ControlNet', [
      { key: 'source', label: 'ControlNet', kind: 'source', list: 'control-sources' },
      { key: 'from', label: 'is shown', kind: 'choice', choices: [['file', 'a picture from disk'], ['start', 'the picture to start from'], ['scribble', 'what I scribble here']] },
      { key: 'image', label: 'Picture', kind: 'picture' },
      { key: 'preprocess', label: 'and sees', kind: 'choice', choices: [['none', 'it as it is'], ['canny', 'its edges (canny)']] },
      { key: 'low', label: 'Edges above', kind: 'number', value: '100', min: 0, max: 2040, step: 1 },
      { key: 'high', label: 'sure above', kind: 'number', value: '200', min: 0, max: 2040, step: 1 },
      { key: 'scale', label: 'Strength', kind: 'number', value: '1', min: 0, max: 4, step: 0.05 },
      { key: 'start', label: 'from', kind: 'number', value: '0', min: 0, max: 1, step: 0.05 },
      { key: 'end', label: 'to', kind: 'number', value: '1', min: 0, max: 1, step: 0.05 },
    ], () => {}, (row) => this.#complete(row, fail));
  }

  /**
   * What `generate` takes.
   * @returns {ControlNet[]}
   */
  read() {
    return this.#parts.read((row) => ({ shown: () => this.#picture(row) })).map(({ source, shown, preprocess, low, high, scale, start, end }) => ({
      source, image: shown(), scale, start, end, ...(preprocess === 'canny' && { preprocess, low, high }),
    }));
  }

  /** Follows a change of the size that is drawn. @param {HTMLElement} list */
  resize(list) {
    for (const row of list.children) this.#scribbles.get(row)?.resize();
  }

  /** What a row's ControlNet is shown, before its edges are found. @param {Element} row @returns {ImageBitmap | ImageData | File} */
  #picture(row) {
    const from = field(row, 'from').value;
    const number = [...(row.parentElement?.children ?? [])].indexOf(row) + 1;
    const picture = from === 'start' ? this.#startPicture() : from === 'file' ? /** @type {HTMLInputElement} */ (field(row, 'image')).files?.[0] : this.#scribbles.get(row)?.mask;
    if (picture) return picture;
    const what = { start: 'Choose one under “Start from a picture”', file: 'Choose a file', scribble: 'Scribble one' }[from];
    throw new DiffusionError('invalid-option', `ControlNet ${number} is shown no picture yet. ${what}, or remove it.`);
  }

  /**
   * The scribble's canvas, and a look at what the ControlNet sees.
   * @param {HTMLElement} row
   * @param {(error: unknown) => void} fail
   */
  #complete(row, fail) {
    const pad = document.createElement('div');
    pad.className = 'scribble';
    const canvas = document.createElement('canvas');
    canvas.tabIndex = 0;
    canvas.setAttribute('role', 'application');
    canvas.setAttribute('aria-label', 'Your scribble. Arrow keys move the pen, Space makes a dot, Backspace erases, Shift and arrow keys draw a line.');
    // For those who see; the label says it too.
    const keys = Object.assign(document.createElement('p'), { className: 'hint', ariaHidden: 'true', textContent: 'By keyboard: arrow keys move the pen, Space makes a dot, Backspace erases, Shift and arrow keys draw a line.' });
    const clear = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Clear the scribble' });
    pad.append(canvas, keys, clear);
    const scribble = new PictureEditor(canvas, this.#size);
    scribble.brush = 3;
    scribble.opacity = 1;
    this.#scribbles.set(row, scribble);
    /** An empty sheet to draw on. */
    const blank = () => {
      const { width, height } = this.#size();
      return scribble.open(new ImageData(width, height)).catch(fail);
    };
    clear.onclick = () => scribble.clear();

    const look = Object.assign(document.createElement('button'), { type: 'button', className: 'look', textContent: 'Show what it sees' });
    const seen = document.createElement('canvas');
    seen.className = 'seen';
    seen.hidden = true;
    seen.setAttribute('role', 'img');
    look.onclick = async () => {
      try {
        await this.#look(row, seen);
      } catch (error) {
        fail(error);
      }
    };
    row.append(look, pad, seen);

    const arrange = () => {
      const from = field(row, 'from').value;
      const scribbles = from === 'scribble';
      show(row, 'image', from === 'file');
      show(row, 'preprocess', !scribbles);
      if (scribbles) field(row, 'preprocess').value = 'none'; // lines are lines already
      const edges = field(row, 'preprocess').value === 'canny';
      show(row, 'low', edges);
      show(row, 'high', edges);
      pad.hidden = !scribbles;
      if (scribbles && !scribble.picture) blank();
    };
    row.addEventListener('change', ({ target }) => {
      const { key = '' } = /** @type {HTMLElement} */ (target).dataset;
      if (['from', 'image', 'preprocess', 'low', 'high'].includes(key)) seen.hidden = true;
      arrange();
    });
    arrange();
  }

  /** @param {HTMLElement} row @param {HTMLCanvasElement} seen */
  async #look(row, seen) {
    const { width, height } = this.#size();
    const bitmap = await createImageBitmap(this.#picture(row), { colorSpaceConversion: 'none' });
    Object.assign(seen, { width, height });
    const context = seen.getContext('2d');
    if (!context) return;
    context.imageSmoothingQuality = 'high';
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const edges = field(row, 'preprocess').value === 'canny';
    if (edges) {
      const number = (/** @type {string} */ key) => /** @type {HTMLInputElement} */ (field(row, key)).valueAsNumber;
      const { data } = await canny(context.getImageData(0, 0, width, height), { low: number('low'), high: number('high') });
      context.putImageData(new ImageData(data, width, height), 0, 0);
    }
    seen.setAttribute('aria-label', edges ? 'The edges of the picture' : 'The picture');
    seen.hidden = false;
  }
}

/** @param {Element} row @param {string} key @returns {HTMLInputElement | HTMLSelectElement} */
const field = (row, key) => /** @type {HTMLInputElement} */ (row.querySelector(`[data-key=${key}]`));

/** @param {Element} row @param {string} key @param {boolean} yes */
function show(row, key, yes) {
  field(row, key).closest('.pair')?.toggleAttribute('hidden', !yes);
}
