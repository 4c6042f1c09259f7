/** Chapter 6: where each word acts, how guidance goes past the words, and the latents in which all of it happens. */
import { make, makeButton } from '../page/ui.js';
import { longestOf, showActing, showMap, wordsOf } from '../page/word-maps.js';
import { number } from '../messages/index.js';
import { showChannels, svg } from './draw.js';
import { t } from './say.js';
import { Station } from './station.js';

/** @typedef {import('../browser-diffusion.js').WordMaps} WordMaps */
/** @typedef {import('../page/word-maps.js').Word} Word */
/** @typedef {{ u: number[], c: number[], g: number[] }} Triangle in the plane of both guesses */

/**
 * @typedef {object} Seen
 * @property {ImageBitmap} [preview]
 * @property {import('../page/latents.js').Latents} latents
 * @property {Word[]} words
 * @property {number} longest which of them is
 * @property {number} side of a map
 * @property {Triangle} triangle
 */

const SEED = 1, GUIDANCE = 3;

export class Words extends Station {
  #subject;
  #picture = /** @type {HTMLCanvasElement} */ (this.find('[data-words=picture]'));
  #latents = /** @type {HTMLCanvasElement} */ (this.find('[data-words=latents]'));
  #maps = this.find('.maps');
  #curve = this.find('.curve');
  #reading = this.find('.reading');
  /** @type {Seen[]} */
  #steps = [];
  /** The word whose place is shown; without one, the longest word, which is mostly the noun. @type {number | undefined} */
  #chosen;

  /** @param {import('./subject.js').Subject} subject @param {import('./painter.js').Painter} painter */
  constructor(subject, painter) {
    super('words', painter, subject);
    this.#subject = subject;
    subject.addEventListener('change', () => {
      this.#chosen = undefined;
      this.restart();
    });
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    const painter = /** @type {import('./painter.js').Painter} */ (this.painter);
    const prompt = await this.#subject.read();
    const rests = this.slider.value;
    /** @type {Promise<Seen>[]} */
    const coming = [];
    await painter.turn(signal, (pipeline) => pipeline.generate({
      prompt, seed: SEED, guidanceScale: GUIDANCE, signal, preview: 'fast', output: 'latent',
      inside: { guidance: true, attention: true },
      onStep: (step) => {
        const seen = read(step, pipeline.model.latentChannels);
        coming.push(seen);
        seen.then((one) => {
          this.#steps[step.step - 1] = one;
          this.slider.max = String(step.total);
          if (!signal.aborted) this.#look(step.step);
        });
      },
    }));
    this.#steps = await Promise.all(coming);
    this.slider.value = rests;
    this.#look(this.slider.valueAsNumber);
    this.showLink();
  }

  /** @override */
  moved() {
    this.#look(this.slider.valueAsNumber);
  }

  /** @param {number} step from 1 */
  #look(step) {
    this.slider.value = String(step);
    this.output.textContent = String(step);
    const seen = this.#steps[step - 1];
    if (!seen) return;
    const { words, side, latents, triangle, longest } = seen;
    if (this.#maps.childElementCount !== words.length) {
      this.#maps.replaceChildren(...words.map((_, i) => this.#button(i)));
    }
    this.#chosen ??= longest;
    for (const [i, button] of [...this.#maps.querySelectorAll('button')].entries()) {
      button.setAttribute('aria-pressed', String(i === this.#chosen));
      const [canvas, name, share] = button.children;
      showMap(/** @type {HTMLCanvasElement} */ (canvas), words[i].map, side, side);
      name.textContent = words[i].name;
      share.textContent = t('words.share', number(Math.round(100 * words[i].share)));
    }
    showChannels(this.#latents, latents.values, latents.channels);
    this.#showPicture(step, seen, words[this.#chosen] ?? words[0]);
    this.#showTriangle(triangle);
  }

  /** @param {number} i */
  #button(i) {
    const button = makeButton({}, make('canvas', {}), make('span'), make('small'));
    const choose = () => {
      this.#chosen = i;
      this.#look(this.slider.valueAsNumber);
    };
    button.onclick = choose;
    button.addEventListener('pointerenter', choose);
    return button;
  }

  /** The step, dark where the word does not act. @param {number} step @param {Seen} seen @param {Word} word */
  #showPicture(step, { preview, side }, word) {
    const canvas = this.#picture;
    showActing(canvas, preview, word.map, { width: side, height: side });
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', t('words.shown', step, word.name));
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
  }

  /** All three guesses from one point, at true length. @param {Triangle} triangle */
  #showTriangle({ u, c, g }) {
    const [left, right, top, bottom] = [20, 340, 20, 134];
    const xs = [0, u[0], c[0], g[0]], ys = [0, u[1], c[1], g[1]];
    const [lowX, highX, lowY, highY] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = Math.min((right - left) / (highX - lowX || 1), (bottom - top) / (highY - lowY || 1));
    /** @param {number[]} point */
    const place = ([x, y]) => [left + (x - lowX) * scale, bottom - (y - lowY) * scale].map((v) => v.toFixed(1));
    const [o, pu, pc, pg] = [[0, 0], u, c, g].map(place);
    // To the right of the points there is room for words.
    const label = (/** @type {string[]} */ [x, y], /** @type {string} */ text) =>
      svg('text', { x: Number(x) + 6, y: Number(y) + 4 }, text);
    this.#curve.replaceChildren(
      svg('path', { class: 'u', d: `M${o}L${pu}` }), svg('path', { class: 'c', d: `M${o}L${pc}` }),
      svg('path', { class: 'g', d: `M${o}L${pg}` }), svg('path', { class: 'drop', d: `M${pu}L${pg}` }),
      label(pu, t('words.u')), label(pc, t('words.c')), label(pg, t('words.g')),
    );
    const between = (/** @type {number[]} */ a, /** @type {number[]} */ b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    this.#reading.textContent =
      t('words.reading', between(c, u).toFixed(1), between(g, u).toFixed(1), Math.hypot(...g).toFixed(1));
  }
}

/**
 * @param {import('../browser-diffusion.js').Step} step @param {number} channels of latents
 * @returns {Promise<Seen>}
 */
async function read({ preview, latents, attention, cond, uncond, noise }, channels) {
  const [values, maps, c, u, g] = await Promise.all([latents?.(), attention?.(), cond?.(), uncond?.(), noise?.()]);
  if (!values || !maps || !c || !g) throw new Error('The engine told nothing of what went on inside.');
  const triangle = triangleOf(u ?? c, c, g);
  const words = wordsOf(maps, (kind) => t(`words.${kind}`));
  return { preview, latents: { values, channels }, words, longest: longestOf(maps), side: maps.width, triangle };
}

/**
 * Three guesses in the plane that they lie in: across, the way of the guess without words.
 * @param {Float32Array} u @param {Float32Array} c @param {Float32Array} g
 * @returns {Triangle}
 */
function triangleOf(u, c, g) {
  const dot = (/** @type {Float32Array} */ a, /** @type {Float32Array} */ b) =>
    a.reduce((sum, value, i) => sum + value * b[i], 0);
  const length = Math.sqrt(dot(u, u)) || 1;
  const along = dot(c, u) / length;
  const rest = c.map((value, i) => value - (along / length) * u[i]);
  const across = Math.sqrt(dot(rest, rest)) || 1;
  return { u: [length, 0], c: [along, across], g: [dot(g, u) / length, dot(g, rest) / across] };
}
