/**
 * Comparing settings: the same picture with one setting, two or three changed, laid out with labels (A1111's
 * X/Y/Z plot).
 */

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/**
 * What can be an axis: how its values are read, and what a value changes. `first` is the axis's first value.
 * @type {Record<string, { label: string, read: (text: string) => (string | number)[], set: (options: GenerateOptions, value: any, first: any) => void }>}
 */
export const AXES = {
  seed: { label: 'Seed', read: (text) => numbers(text, true), set: (o, v) => { o.seed = v; } },
  steps: { label: 'Steps', read: (text) => numbers(text, true), set: (o, v) => { o.numInferenceSteps = v; } },
  guidance: { label: 'Guidance', read: (text) => numbers(text), set: (o, v) => { o.guidanceScale = v; } },
  strength: { label: 'Strength', read: (text) => numbers(text), set: (o, v) => { o.strength = v; } },
  clipSkip: { label: 'Layers left out', read: (text) => numbers(text, true), set: (o, v) => { o.clipSkip = v; } },
  scheduler: { label: 'Sampler', read: words, set: (o, v) => { o.scheduler = v; } },
  words: {
    label: 'Words', read: words,
    set: (o, v, first) => {
      if (!o.prompt.includes(first)) throw new Error(`“${first}” is not in the prompt, so nothing could be replaced by “${v}”.`);
      o.prompt = o.prompt.replaceAll(first, v);
    },
  },
};

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
    const range = /^(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)(?:\s*\(\s*([+-]\d+(?:\.\d+)?)\s*\)|\s*\[\s*(\d+)\s*\])?$/.exec(part);
    if (!range) return [Number(part)];
    const [from, to] = [Number(range[1]), Number(range[2])];
    if (range[4]) {
      const count = Math.min(Number(range[4]), MOST);
      return Array.from({ length: count }, (_, i) => from + ((to - from) * i) / Math.max(1, count - 1));
    }
    const pace = range[3] ? Number(range[3]) : Math.sign(to - from) || 1;
    if (pace * (to - from) < 0 || pace === 0) throw new Error(`${part} leads nowhere: the step must go from ${from} to ${to}.`);
    // The last value may miss the end by what decimal fractions miss.
    const count = Math.min(Math.floor((to - from) / pace + 1e-9) + 1, MOST + 1);
    return Array.from({ length: count }, (_, i) => Number((from + i * pace).toFixed(6)));
  });
  for (const value of found) {
    if (!Number.isFinite(value)) throw new Error(`The values of this axis are numbers such as 3, 5, 8 or 1-9 (+2).`);
  }
  return whole ? found.map(Math.round) : found;
}

/** Pictures of one grid, all axes together. */
const MOST = 400;

/** @typedef {{ name: string, values: (string | number)[] }} Axis */

/**
 * @param {[string, string][]} wanted axis and values as typed, X, Y and Z in order; those without name or values are left out
 * @returns {Axis[]} always three
 */
export function readAxes(wanted) {
  const axes = wanted.map(([name, text]) => {
    const axis = AXES[name];
    return axis && text.trim() ? { name, values: axis.read(text) } : { name: '', values: [''] };
  });
  const pictures = axes.reduce((product, { values }) => product * values.length, 1);
  if (pictures > MOST) throw new Error(`That would be ${pictures} pictures; a grid holds ${MOST} at most.`);
  return axes;
}

/**
 * The options of each cell, row by row, sheet by sheet.
 * @param {GenerateOptions} options
 * @param {Axis[]} axes X, Y, Z
 * @returns {GenerateOptions[]}
 */
export function cells(options, [x, y, z]) {
  return z.values.flatMap((vz) => y.values.flatMap((vy) => x.values.map((vx) => {
    const cell = { ...options };
    for (const [{ name, values }, value] of /** @type {[Axis, string | number][]} */ ([[x, vx], [y, vy], [z, vz]])) {
      AXES[name]?.set(cell, value, values[0]);
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
  /** @param {Axis} axis @param {string | number} value */
  const words = ({ name }, value) => (name ? `${AXES[name].label}: ${typeof value === 'number' ? Number(value.toFixed(4)) : value}` : '');
  const measure = context2d(new OffscreenCanvas(1, 1));
  measure.font = `${type}px system-ui, sans-serif`;
  const left = y.name ? Math.ceil(Math.min(Math.max(width, 10 * type), Math.max(...y.values.map((v) => measure.measureText(words(y, v)).width)))) + 2 * gap : gap;
  const top = (x.name ? 2 * type : gap) + (z.name ? 2 * type : 0);
  const one = { width: left + x.values.length * (width + gap), height: top + y.values.length * (height + gap) };
  const canvas = new OffscreenCanvas(one.width, one.height * z.values.length);
  const context = context2d(canvas);
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = 'black';
  context.font = measure.font;
  context.textBaseline = 'middle';
  let at = 0;
  for (const [sheet, vz] of z.values.entries()) {
    const y0 = sheet * one.height;
    context.textAlign = 'left';
    if (z.name) context.fillText(words(z, vz), gap, y0 + type, canvas.width - 2 * gap);
    context.textAlign = 'center';
    for (const [i, vx] of x.values.entries()) {
      if (x.name) context.fillText(words(x, vx), left + i * (width + gap) + width / 2, y0 + top - type, width);
    }
    context.textAlign = 'right';
    for (const [j, vy] of y.values.entries()) {
      if (y.name) context.fillText(words(y, vy), left - gap, y0 + top + j * (height + gap) + height / 2, left - 2 * gap);
      for (let i = 0; i < x.values.length; i++) {
        const picture = pictures[at++];
        if (picture) context.putImageData(picture, left + i * (width + gap), y0 + top + j * (height + gap));
      }
    }
  }
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** @param {OffscreenCanvas} canvas */
function context2d(canvas) {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser gives no 2D canvas.');
  return context;
}
