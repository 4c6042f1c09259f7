/** Chapter 5, in small pictures instead of points: the visitor's own drawings, learnt, and what the model makes of them. */
import { DoodleTrainer } from '../train.js';
import { any, button, context2d, element, errorWords, isAbort, make, makeButton } from '../page/ui.js';
import { number } from '../messages/index.js';
import { still } from './station.js';
import { t } from './say.js';

const SIDE = 16, PIXELS = SIDE * SIDE;
/** Steps of a training, between two looks at what it makes, and the seed of what is looked at. */
const PLAN = 1000, LOOK = 50, SELDOM = 250, SEED = 1;
const MOST = 24;
const PAPER = 255, INK = 24;

/** What is there at first: rows of 16 pixels from above, four digits each. */
const EXAMPLES = [
  '000000001c383e7c7ffe7ffe7ffe3ffc3ffc1ff80ff007e003c0018000000000', // heart
  '000007e018182004200446624662400240024812442223c42004181807e00000', // smiley
  '0000018003cc07ec0ffc1ff83ffc7ffe100813c812481248124812481ff80000', // house
  '000003c00ff01ff83ffc3ffc3ffc1ff80ff003c0018001800180018007e00000', // tree
  '00000000000003e00ff93bf67ff67ffe7ffe7ff63ff60ff903e0000000000000', // fish
  '00000180018003c003c07ffe3ffc1ff80ff00ff01e781c38300c000000000000', // star
  '00000100018001e001f001f801fc010001007ffe3ffc1ff80000666600000000', // boat
  '00002004300c381c3ffc7ffe67e667e67ffe7e7e7ffe3c3c1ff807e000000000', // cat
];

/** @param {string} digits @returns {Float32Array} 1: ink, -1: paper */
const drawing = (digits) => Float32Array.from({ length: PIXELS }, (_, i) =>
  (parseInt(digits[i >> 2], 16) >> (3 - (i & 3))) & 1 ? 1 : -1);

/** Shows a drawing. @param {HTMLCanvasElement} canvas @param {Float32Array} pixels */
function show(canvas, pixels) {
  const image = new ImageData(SIDE, SIDE);
  for (let i = 0; i < PIXELS; i++) {
    const grey = PAPER + (INK - PAPER) * Math.min(1, Math.max(0, (pixels[i] + 1) / 2));
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  context2d(canvas).putImageData(image, 0, 0);
}

/** @param {string} label */
const paper = (label) =>
  make('canvas', { width: SIDE, height: SIDE, className: 'paper', role: 'img', ariaLabel: label });

export class Sketches {
  #pad = element('sketch', HTMLCanvasElement);
  #run = button('sketch-learn');
  #told = any('sketch-told');
  #trouble = any('sketch-error');
  #drawings = EXAMPLES.map(drawing);
  #pixels = new Float32Array(PIXELS).fill(-1);
  /** Where the keyboard draws, once it does. @type {[number, number] | undefined} */
  #at;
  /** What a stroke of the pointer leaves. */
  #ink = 1;
  /** Where that was. @type {[number, number]} */
  #last = [0, 0];
  /** Eight pairs: what is made, and the drawing that it is nearest to. */
  #pairs = Array.from({ length: 8 }, (_, i) => ({
    made: paper(t('sketch.made', i + 1)), nearest: paper(t('sketch.nearest', i + 1)), caption: make('figcaption'),
  }));
  /** @type {DoodleTrainer | undefined} */
  #trainer;
  #learning = false;

  constructor() {
    this.#pad.addEventListener('pointerdown', (event) => this.#down(event));
    this.#pad.addEventListener('pointermove', (event) => { if (event.buttons & 1) this.#stroke(event); });
    this.#pad.addEventListener('keydown', (event) => this.#key(event));
    button('sketch-add').onclick = () => this.#add();
    button('sketch-clear').onclick = () => this.#clear();
    this.#run.onclick = () => (this.#learning ? this.#pause() : this.#learn());
    any('sketch-samples').append(...this.#pairs.map(({ made, nearest, caption }) =>
      make('figure', {}, made, nearest, caption)));
    this.#showPad();
    this.#showDrawings();
    this.#showRun();
  }

  // ---------------------------------------------------------------------------------------------------- the pad

  /** @param {PointerEvent} event @returns {[number, number]} the pixel under it */
  #under({ clientX, clientY }) {
    const { left, top, width, height } = this.#pad.getBoundingClientRect();
    const within = (/** @type {number} */ v) => Math.min(SIDE - 1, Math.max(0, Math.floor(v * SIDE)));
    return [within((clientX - left) / width), within((clientY - top) / height)];
  }

  /** A stroke that begins on ink takes ink away. @param {PointerEvent} event */
  #down(event) {
    this.#pad.setPointerCapture(event.pointerId);
    const [x, y] = this.#last = this.#under(event);
    this.#ink = -this.#pixels[y * SIDE + x];
    this.#at = undefined;
    this.#stroke(event);
  }

  /** From where the stroke was, so that none is left out however fast it goes. @param {PointerEvent} event */
  #stroke(event) {
    const [x, y] = this.#under(event);
    const [fromX, fromY] = this.#last;
    const count = Math.max(Math.abs(x - fromX), Math.abs(y - fromY), 1);
    for (let i = 0; i <= count; i++) {
      const along = (/** @type {number} */ a, /** @type {number} */ b) => Math.round(a + ((b - a) * i) / count);
      this.#pixels[along(fromY, y) * SIDE + along(fromX, x)] = this.#ink;
    }
    this.#last = [x, y];
    this.#showPad();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way && event.key !== ' ') return;
    event.preventDefault();
    const [x, y] = this.#at ?? [SIDE / 2, SIDE / 2];
    const within = (/** @type {number} */ v) => Math.min(SIDE - 1, Math.max(0, v));
    this.#at = way ? [within(x + way[0]), within(y + way[1])] : [x, y];
    const pixel = this.#at[1] * SIDE + this.#at[0];
    if (event.key === ' ') this.#pixels[pixel] *= -1;
    else if (event.shiftKey) this.#pixels[pixel] = 1;
    this.#showPad();
  }

  #showPad() {
    show(this.#pad, this.#pixels);
    if (!this.#at) return;
    const context = context2d(this.#pad);
    context.fillStyle = 'rgb(230 120 40 / .7)';
    context.fillRect(...this.#at, 1, 1);
  }

  #clear() {
    this.#pixels.fill(-1);
    this.#showPad();
  }

  // ----------------------------------------------------------------------------------------------- the drawings

  /** Puts what is on the pad among the drawings. */
  #add() {
    if (this.#pixels.every((v) => v < 0)) {
      this.#told.textContent = t('sketch.blank');
      return;
    }
    if (this.#drawings.length === MOST) {
      this.#told.textContent = t('sketch.full', MOST);
      return;
    }
    this.#drawings.push(this.#pixels.slice());
    this.#clear();
    this.#changed();
  }

  #changed() {
    this.#pause();
    this.#trainer?.dispose();
    this.#trainer = undefined;
    this.#showDrawings();
    this.#told.textContent = t('sketch.changed', this.#drawings.length);
  }

  #showDrawings() {
    any('sketch-drawings').replaceChildren(...this.#drawings.map((pixels, i) => {
      const canvas = paper('');
      canvas.setAttribute('role', 'presentation');
      show(canvas, pixels);
      const takeAway = makeButton({ ariaLabel: t('sketch.take', i + 1), title: t('sketch.take', i + 1) });
      takeAway.append(canvas);
      takeAway.onclick = () => {
        this.#drawings.splice(i, 1);
        this.#changed();
      };
      return make('li', {}, takeAway);
    }));
  }

  // ---------------------------------------------------------------------------------------------------- the run

  async #learn() {
    this.#learning = true;
    this.#trouble.hidden = true;
    this.#showRun();
    try {
      const drawings = new Float32Array(this.#drawings.flatMap((pixels) => [...pixels]));
      const trainer = this.#trainer ??= await DoodleTrainer.create({ drawings, steps: PLAN });
      const often = still() ? SELDOM : LOOK;
      if (trainer.step === 0) await this.#look(trainer);
      while (this.#learning && trainer === this.#trainer && trainer.step < PLAN) {
        await trainer.train(often);
        if (trainer === this.#trainer) await this.#look(trainer);
      }
    } catch (error) {
      // Another set of drawings took its place.
      if (!isAbort(error)) {
        this.#trouble.replaceChildren(...errorWords(error));
        this.#trouble.hidden = false;
      }
    }
    if (this.#learning && (this.#trainer?.step ?? PLAN) >= PLAN) this.#pause();
  }

  #pause() {
    this.#learning = false;
    this.#showRun();
  }

  /** @param {DoodleTrainer} trainer */
  async #look(trainer) {
    const samples = await trainer.samples(SEED);
    for (const [i, { pixels, nearest, differs }] of samples.entries()) {
      const pair = this.#pairs[i];
      show(pair.made, pixels);
      show(pair.nearest, this.#drawings[nearest]);
      pair.caption.textContent = t('sketch.differs', number(Math.round(100 * differs)));
    }
    any('sketch-samples').hidden = false;
    any('sketch-samples').dataset.step = String(trainer.step);
    const mean = samples.reduce((sum, { differs }) => sum + differs, 0) / samples.length;
    this.#told.textContent = t('sketch.told', trainer.step, PLAN, number(Math.round(100 * mean)));
  }

  #showRun() {
    const begun = this.#trainer && this.#trainer.step > 0 && this.#trainer.step < PLAN;
    this.#run.textContent = t(this.#learning ? 'train.pause' : begun ? 'train.play' : 'sketch.learn');
    this.#run.disabled = this.#drawings.length === 0;
  }
}
