/**
 * Comparing settings: the same picture with one setting, two or three changed, laid out with labels (A1111's
 * X/Y/Z plot).
 */

import { DiffusionError } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';
import { button, context2d, input, make, select } from './ui.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/**
 * What can be an axis.
 * @typedef {object} Kind
 * @property {string} name
 * @property {string} label
 * @property {'number' | 'whole' | 'word'} values how they are read
 * @property {(options: GenerateOptions, value: any, first: any) => void} set
 *   what a value changes; `first` is the axis's first value
 */

/**
 * Without a kind it has one value, which changes nothing.
 * @typedef {{ kind?: Kind, values: (string | number)[] }} Axis
 */

/** A word of the prompt and what stands in its place. @type {Kind} */
const WORDS = {
  name: 'words', label: t('grid.words'), values: 'word',
  set: (options, word, first) => {
    if (!options.prompt.includes(first)) {
      throw new PageError('invalid-option', t('grid.absent', first, word));
    }
    options.prompt = options.prompt.replaceAll(first, word);
  },
};

/** The fields of the three axes. */
export class Grid {
  #axes = ['x', 'y', 'z'].map((axis) => ({ kind: select(`axis-${axis}`), values: input(`values-${axis}`) }));
  #kinds;

  /** @param {Kind[]} kinds @param {() => void} draw */
  constructor(kinds, draw) {
    this.#kinds = [...kinds, WORDS];
    for (const { kind } of this.#axes) {
      kind.add(new Option(t('grid.nothing'), ''));
      for (const { name, label } of this.#kinds) kind.add(new Option(label, name));
    }
    button('draw-grid').onclick = draw;
  }

  /**
   * @param {GenerateOptions} options that it shall compare
   * @returns {Axis[]} always three
   * @throws {DiffusionError} which says what is wrong with the values
   */
  read(options) {
    try {
      const axes = this.#axes.map(({ kind, values }) => this.#axis(kind.value, values.value));
      const pictures = axes.reduce((product, { values }) => product * values.length, 1);
      if (pictures > MOST) throw new PageError('invalid-option', t('grid.tooMany', pictures, MOST));
      cells(options, axes); // words that are not in the prompt are found now
      if (!axes.some(({ kind }) => kind)) throw new PageError('invalid-option', t('grid.choose'));
      return axes;
    } catch (error) {
      throw new DiffusionError('invalid-option', error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {string} name @param {string} text @returns {Axis} */
  #axis(name, text) {
    const kind = this.#kinds.find((one) => one.name === name);
    if (!kind || !text.trim()) return { values: [''] };
    return { kind, values: kind.values === 'word' ? words(text) : numbers(text, kind.values === 'whole') };
  }
}

/** @param {string} text separated by commas; one with a comma in it stands in double quotes */
function words(text) {
  return [...text.matchAll(/\s*("(?:[^"]|"")*"|[^,]+)\s*(?:,|$)/g)]
    .map(([, word]) => (word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word.trim()))
    .filter(Boolean);
}

/**
 * `3, 5, 8`, and A1111's ranges: `1-5`, `1-10 (+2)`, `10-1 (-3)`, `1-10 [5]` (so many, evenly).
 * @param {string} text
 * @param {boolean} [whole]
 */
function numbers(text, whole = false) {
  const found = words(text).flatMap((part) => {
    const range = RANGE.exec(part);
    if (!range) return [Number(part)];
    const [from, to] = [Number(range[1]), Number(range[2])];
    if (range[4]) {
      const count = Math.min(Number(range[4]), MOST);
      return Array.from({ length: count }, (_, i) => from + ((to - from) * i) / Math.max(1, count - 1));
    }
    const pace = range[3] ? Number(range[3]) : Math.sign(to - from) || 1;
    if (pace * (to - from) < 0 || pace === 0) {
      throw new PageError('invalid-option', t('grid.nowhere', part, from, to));
    }
    // The last value may miss the end by what decimal fractions miss.
    const count = Math.min(Math.floor((to - from) / pace + 1e-9) + 1, MOST + 1);
    return Array.from({ length: count }, (_, i) => Number((from + i * pace).toFixed(6)));
  });
  for (const value of found) {
    if (!Number.isFinite(value)) throw new PageError('invalid-option', t('grid.numbers'));
  }
  return whole ? found.map(Math.round) : found;
}

const NUMBER = '\\d+(?:\\.\\d+)?';
/** From, to, the step in round brackets or the count in square ones. */
const RANGE = new RegExp(
  `^(-?${NUMBER})\\s*-\\s*(-?${NUMBER})(?:\\s*\\(\\s*([+-]${NUMBER})\\s*\\)|\\s*\\[\\s*(\\d+)\\s*\\])?$`);

/** Pictures of one grid, all axes together. */
const MOST = 400;

/**
 * The options of each cell, row by row, sheet by sheet.
 * @param {GenerateOptions} options
 * @param {Axis[]} axes X, Y, Z
 * @returns {GenerateOptions[]}
 */
export function cells(options, [x, y, z]) {
  return z.values.flatMap((vz) => y.values.flatMap((vy) => x.values.map((vx) => {
    const cell = { ...options };
    for (const [{ kind, values }, value] of /** @type {[Axis, string | number][]} */ ([[x, vx], [y, vy], [z, vz]])) {
      kind?.set(cell, value, values[0]);
    }
    return cell;
  })));
}

/**
 * All pictures on one sheet with the values beside them. Cells that were not drawn stay empty.
 * @param {(ImageData | undefined)[]} pictures in the order of `cells`
 * @param {Axis[]} axes
 * @param {{ width: number, height: number }} size of one picture
 * @returns {ImageData}
 */
export function sheet(pictures, [x, y, z], { width, height }) {
  const type = Math.max(12, Math.round(Math.min(width, height) / 12));
  const gap = Math.ceil(type / 2);
  const font = `${type}px system-ui, sans-serif`;
  const measure = context2d(make('canvas'));
  measure.font = font;
  const widest = Math.max(...y.values.map((value) => measure.measureText(label(y, value)).width));
  const left = y.kind ? Math.ceil(Math.min(Math.max(width, 10 * type), widest)) + 2 * gap : gap;
  const top = (x.kind ? 2 * type : gap) + (z.kind ? 2 * type : 0);
  const one = { width: left + x.values.length * (width + gap), height: top + y.values.length * (height + gap) };
  const canvas = make('canvas', { width: one.width, height: one.height * z.values.length });
  const context = context2d(canvas);
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = 'black';
  context.font = font;
  context.textBaseline = 'middle';
  /** @param {CanvasTextAlign} align @param {string} text @param {number} x @param {number} y @param {number} most */
  const write = (align, text, x, y, most) => {
    context.textAlign = align;
    context.fillText(text, x, y, most);
  };
  let at = 0;
  for (const [sheet, vz] of z.values.entries()) {
    const y0 = sheet * one.height;
    write('left', label(z, vz), gap, y0 + type, canvas.width - 2 * gap);
    for (const [i, vx] of x.values.entries()) {
      write('center', label(x, vx), left + i * (width + gap) + width / 2, y0 + top - type, width);
    }
    for (const [j, vy] of y.values.entries()) {
      const y1 = y0 + top + j * (height + gap);
      write('right', label(y, vy), left - gap, y1 + height / 2, left - 2 * gap);
      for (let i = 0; i < x.values.length; i++) {
        const picture = pictures[at++];
        if (picture) context.putImageData(picture, left + i * (width + gap), y1);
      }
    }
  }
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/**
 * What a value is called beside the pictures; nothing for an axis without a kind.
 * @param {Axis} axis
 * @param {string | number} value
 */
function label({ kind }, value) {
  return kind ? t('grid.label', kind.label, typeof value === 'number' ? Number(value.toFixed(4)) : value) : '';
}
