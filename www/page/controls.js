/**
 * The ControlNets of a drawing: each a model and what it is shown, a picture from disk, the picture to start from, or a
 * scribble that is drawn here.
 */
import { canny, softedge } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { PictureEditor } from './editor.js';
import { openDrawer } from './levels.js';
import { PageError } from './page-error.js';
import { Parts } from './parts.js';
import { any, button, context2d, make, makeButton, showError } from './ui.js';

/** @typedef {import('../browser-diffusion.js').ControlNet} ControlNet */

/** @type {import('./parts.js').Field[]} */
const FIELDS = [
  { key: 'source', label: 'ControlNet', kind: 'source', list: 'control-sources' },
  {
    key: 'from', label: t('controls.shown'), kind: 'choice',
    choices: [
      ['file', t('controls.file')], ['start', t('controls.start')], ['scribble', t('controls.scribble')],
    ],
  },
  { key: 'image', label: t('controls.picture'), kind: 'picture' },
  {
    key: 'preprocess', label: t('controls.sees'), kind: 'choice',
    choices: [['none', t('controls.asItIs')], ['canny', t('controls.canny')], ['softedge', t('controls.soft')]],
  },
  {
    key: 'mode', label: t('controls.mode'), kind: 'choice',
    choices: [
      ['', t('controls.noUnion')], ['openpose', t('controls.openpose')], ['depth', t('controls.depth')],
      ['scribble', t('controls.thick')], ['canny', t('controls.thin')], ['normal', t('controls.normal')],
      ['segment', t('controls.segment')], ['tile', t('controls.tile')], ['repaint', t('controls.repaint')],
    ],
  },
  { key: 'low', label: t('controls.low'), kind: 'number', value: '100', min: 0, max: 2040, step: 1 },
  { key: 'high', label: t('controls.high'), kind: 'number', value: '200', min: 0, max: 2040, step: 1 },
  { key: 'scale', label: t('parts.strength'), kind: 'number', value: '1', min: 0, max: 4, step: 0.05 },
  { key: 'start', label: t('controls.from'), kind: 'number', value: '0', min: 0, max: 1, step: 0.05 },
  { key: 'end', label: t('controls.to'), kind: 'number', value: '1', min: 0, max: 1, step: 0.05 },
];

export class Controls {
  #list = any('controls');
  #parts;
  #size;
  #startPicture;
  /** @type {WeakMap<Element, PictureEditor>} the scribble of each row */
  #scribbles = new WeakMap();

  /**
   * @param {() => import('./editor.js').Size} size what is drawn
   * @param {() => ImageBitmap | undefined} startPicture
   */
  constructor(size, startPicture) {
    this.#size = size;
    this.#startPicture = startPicture;
    const complete = (/** @type {HTMLElement} */ row) => this.#complete(row);
    const add = button('add-control');
    this.#parts = new Parts({ list: this.#list, add, what: 'ControlNet', fields: FIELDS, complete });
  }

  /**
   * What `generate` takes.
   * @returns {ControlNet[]}
   * @throws {DiffusionError} where one is shown no picture; the list is opened then
   */
  read() {
    const rows = this.#parts.read((row) => ({ shown: () => this.#picture(row) }));
    try {
      return rows.map(({ source, shown, preprocess, low, high, mode, scale, start, end }) => ({
        source, image: shown(), scale, start, end, ...(preprocess !== 'none' && { preprocess }),
        ...(preprocess === 'canny' && { low, high }), ...(mode && { mode }),
      }));
    } catch (error) {
      openDrawer(this.#list);
      throw error;
    }
  }

  /**
   * The rows become those of a picture. What each was shown, its text does not hold.
   * @param {import('../browser-diffusion.js').Needs['controlnets']} controlnets
   * @returns {string[]} the names of those whose files are asked for
   */
  take(controlnets) {
    return this.#parts.take(controlnets.map(({ module, preprocess, ...values }) => ({
      ...values,
      preprocess: preprocess ?? 'none',
      remark: preprocess ? undefined : t('controls.module', module),
    })));
  }

  /** One more ControlNet, which is shown this picture; which one it is, the visitor says. @param {File} file */
  show(file) {
    const row = this.#parts.add();
    const chosen = new DataTransfer();
    chosen.items.add(file);
    /** @type {HTMLInputElement} */ (field(row, 'image')).files = chosen.files;
    openDrawer(this.#list);
    field(row, 'source').focus();
  }

  /** Follows a change of the size that is drawn. */
  resize() {
    for (const row of this.#list.children) this.#scribbles.get(row)?.resize();
  }

  /**
   * What a row's ControlNet is shown, before its edges are found.
   * @param {Element} row
   * @returns {ImageBitmap | ImageData | File}
   */
  #picture(row) {
    const pictures = {
      file: () => /** @type {HTMLInputElement} */ (field(row, 'image')).files?.[0],
      start: () => this.#startPicture(),
      scribble: () => this.#scribbles.get(row)?.mask,
    };
    const from = /** @type {keyof typeof pictures} */ (field(row, 'from').value);
    const picture = pictures[from]();
    if (picture) return picture;
    const number = [...this.#list.children].indexOf(row) + 1;
    throw new PageError('invalid-option', t('controls.none', number, t(`controls.cure.${from}`)));
  }

  /** The scribble's canvas, and a look at what the ControlNet sees. @param {HTMLElement} row */
  #complete(row) {
    const { pad, scribble } = this.#scribblePad();
    this.#scribbles.set(row, scribble);
    const seen = make('canvas', { className: 'seen', hidden: true, role: 'img' });
    const onclick = () => this.#look(row, seen).catch(showError);
    row.append(makeButton({ className: 'look', textContent: t('controls.look'), onclick }), pad, seen);

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
      if (!scribbles || scribble.picture) return;
      const { width, height } = this.#size();
      scribble.open(new ImageData(width, height)).catch(showError); // an empty sheet to draw on
    };
    row.addEventListener('change', ({ target }) => {
      const { key = '' } = /** @type {HTMLElement} */ (target).dataset;
      if (['from', 'image', 'preprocess', 'low', 'high'].includes(key)) seen.hidden = true;
      arrange();
    });
    arrange();
  }

  #scribblePad() {
    const canvas = make('canvas', { tabIndex: 0, role: 'application', ariaLabel: t('controls.yours') });
    const scribble = new PictureEditor(canvas, this.#size);
    Object.assign(scribble, { brush: 3, opacity: 1 });
    // For those who see; the label says it too.
    const keys = make('p', { className: 'hint', ariaHidden: 'true', textContent: t('controls.keys') });
    const clear = makeButton({ textContent: t('controls.clear'), onclick: () => scribble.clear() });
    return { pad: make('div', { className: 'scribble' }, canvas, keys, clear), scribble };
  }

  /** @param {HTMLElement} row @param {HTMLCanvasElement} seen */
  async #look(row, seen) {
    const { width, height } = this.#size();
    const bitmap = await createImageBitmap(this.#picture(row), { colorSpaceConversion: 'none' });
    Object.assign(seen, { width, height });
    const context = context2d(seen);
    context.imageSmoothingQuality = 'high';
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const how = field(row, 'preprocess').value;
    if (how !== 'none') {
      const number = (/** @type {string} */ key) => /** @type {HTMLInputElement} */ (field(row, key)).valueAsNumber;
      const thresholds = { low: number('low'), high: number('high') };
      const sheet = context.getImageData(0, 0, width, height);
      const { data } = await (how === 'canny' ? canny(sheet, thresholds) : softedge(sheet));
      context.putImageData(new ImageData(data, width, height), 0, 0);
    }
    seen.setAttribute('aria-label', t(how === 'none' ? 'controls.thePicture' : 'controls.edges'));
    seen.hidden = false;
  }
}

/** @param {Element} row @param {string} key @returns {HTMLInputElement | HTMLSelectElement} */
const field = (row, key) => /** @type {HTMLInputElement} */ (row.querySelector(`[data-key=${key}]`));

/** @param {Element} row @param {string} key @param {boolean} yes */
function show(row, key, yes) {
  field(row, key).closest('.pair')?.toggleAttribute('hidden', !yes);
}
