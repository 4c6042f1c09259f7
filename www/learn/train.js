/** Chapter 5: diffusion, flow, GAN and VAE learn the same points, side by side; DDPM's two algorithms beside them. */
import { FAMILIES, Trainer } from '../train.js';
import { any, button, element, input, isAbort, select } from '../page/ui.js';
import { Doodle } from './doodle.js';
import { Panel } from './panel.js';
import { Sketches } from './sketches.js';
import { Station, frame, pause, still } from './station.js';
import { t } from './say.js';

/** How many steps the plan has; how many between two looks at the samples, for the eye that wants no motion too. */
const PLAN = 2000, LOOK = 50, SELDOM = 250;
const DRAWN = 'drawn', USUAL = 'usual';
/** How long each line of the algorithm is lit when one step is made by hand. */
const LIT_MS = 350;

export class Train extends Station {
  #panels = FAMILIES.map((family) => new Panel(family));
  #doodle = new Doodle(element('doodle', HTMLCanvasElement));
  #play = button('train-play');
  #speed = select('train-speed');
  #seed = input('train-seed');
  #rate = select('train-rate');
  #data = select('train-data');
  #told = any('train-told');
  #step = 0;
  /** Where they learn: on GPUs all of them, or not; or one was lost. @type {'gpu' | 'cpu' | 'lost'} */
  #where = 'cpu';
  #playing = true;
  #visible = false;
  /** What the trainers that are there were made for. */
  #made = '';
  /** What the newest that are on their way are for. */
  #wanted = '';
  #turn = 0;

  constructor() {
    super('train');
    any('train-panels').append(...this.#panels.map(({ view }) => view));
    this.#play.onclick = () => (this.#playing ? this.#pause() : this.#go());
    button('train-step').onclick = () => this.#once();
    button('train-reset').onclick = () => this.#again();
    for (const field of [this.#data, this.#seed, this.#rate]) field.addEventListener('change', () => this.#changed());
    button('doodle-train').onclick = () => this.#again();
    button('doodle-clear').onclick = () => this.#doodle.clear();
    this.#showData();
    this.#showPlay();
    new Sketches();
  }

  // ------------------------------------------------------------------------------------------ what is asked for

  /** @override */
  values() {
    return { at: this.slider.value, data: this.#data.value, seed: this.#seed.value, rate: this.#rate.value };
  }

  /** @override @param {URLSearchParams} values */
  take(values) {
    for (const [name, field] of /** @type {const} */ ([['data', this.#data], ['rate', this.#rate]])) {
      const value = values.get(name);
      // A drawing is not in a link.
      if ([...field.options].some((option) => option.value === value && value !== DRAWN)) field.value = value ?? '';
    }
    const seed = values.get('seed');
    if (seed !== null && /^\d{1,9}$/.test(seed)) this.#seed.value = seed;
    super.take(values);
    if (this.begun) this.#again();
  }

  #showData() {
    any('doodle-view').hidden = this.#data.value !== DRAWN;
    this.showLink();
  }

  /** @override */
  moved() {
    this.output.textContent = (this.slider.valueAsNumber / 100).toFixed(2);
    for (const panel of this.#panels) panel.time = this.slider.valueAsNumber / 100;
    const [diffusion] = this.#panels;
    diffusion.showOwn().catch(() => {}); // the loop shows it, or says why not
  }

  // --------------------------------------------------------------------------------------------------- the run

  /** @override @param {boolean} yes */
  seen(yes) {
    this.#visible = yes;
  }

  /** @override @param {AbortSignal} signal */
  async play(signal) {
    await this.#make().catch((error) => {
      if (!signal.aborted) this.#pause();
      throw error;
    });
    this.#showPlay();
    while (this.#playing && !signal.aborted) {
      // Nobody looks: nothing is computed.
      if (!this.#visible) {
        await pause(200, signal);
        continue;
      }
      await this.#learn(Number(this.#speed.value), signal);
      await frame(signal);
      if (this.#step === PLAN) this.#playing = false;
    }
    await this.#look();
    this.#showPlay();
  }

  /** Trainers for what is asked for, where there are none yet. */
  async #make() {
    const points = Float32Array.from(this.#doodle.points);
    const data = this.#data.value === DRAWN ? points : this.#data.value;
    const wanted = JSON.stringify([this.values().seed, this.#rate.value, typeof data === 'string' ? data : [...data]]);
    if (this.#made === wanted) return;
    this.#made = '';
    this.#wanted = wanted;
    // The usual rate is each family's own.
    const learningRate = this.#rate.value === USUAL ? undefined : Number(this.#rate.value);
    const options = { data: /** @type {any} */ (data), seed: Number(this.#seed.value), steps: PLAN, learningRate };
    const trainers = await Promise.all(FAMILIES.map((family) => Trainer.create({ ...options, family })));
    if (this.#wanted !== wanted) {
      // Something else was asked for meanwhile.
      for (const trainer of trainers) trainer.dispose();
      throw new DOMException('stopped', 'AbortError');
    }
    for (const [i, panel] of this.#panels.entries()) {
      panel.trainer?.dispose();
      panel.begin(trainers[i]);
    }
    this.#made = wanted;
    this.#step = 0;
    this.#where = this.#onGpu() ? 'gpu' : 'cpu';
    await this.#look();
  }

  /** All of them, so many steps: in step, that they can be compared. @param {number} steps @param {AbortSignal} signal */
  async #learn(steps, signal) {
    const often = still() ? SELDOM : LOOK;
    // As far as the next look, no further; and behind the plan's end at most to the end of a look.
    const count = Math.min(steps, often - (this.#step % often));
    this.#light(1, 2 + (this.#turn++ % 4));
    await Promise.all(this.#panels.map((panel) => panel.learn(count).catch((error) => this.#stuck(panel, error))));
    if (signal.aborted) return;
    this.#step = Math.max(...this.#panels.map(({ trainer }) => trainer?.step ?? 0));
    this.#tell();
    if (this.#step % often === 0) await this.#look();
  }

  async #look() {
    this.#light(2, 4);
    await Promise.all(this.#panels.map((panel) => panel.show().catch((error) => this.#stuck(panel, error))));
    this.#tell();
  }

  /** @param {Panel} panel @param {unknown} error */
  #stuck(panel, error) {
    // Another run took this one's place.
    if (isAbort(error)) return;
    if (!panel.stuck) panel.stop(error, () => this.#again(true));
  }

  #onGpu() {
    return this.#panels.every(({ trainer }) => trainer?.device === 'gpu');
  }

  #tell() {
    if (this.#where === 'gpu' && !this.#onGpu()) this.#where = 'lost';
    this.#told.textContent = `${t('train.told', this.#step, PLAN)} ${t(`train.on.${this.#where}`)}`;
    this.section.dataset.step = String(this.#step);
  }

  // ------------------------------------------------------------------------------------------------- the buttons

  #go() {
    this.#playing = true;
    this.start();
    this.#showPlay();
  }

  #pause() {
    this.#playing = false;
    this.#showPlay();
  }

  /** One step, and each line of the algorithm while it is at work. */
  #once() {
    this.#playing = false;
    this.#showPlay();
    this.run(async (signal) => {
      await this.#make();
      for (let line = 2; line <= 5 && !still(); line++) {
        this.#light(1, line);
        await pause(LIT_MS, signal);
      }
      await this.#learn(1, signal);
      await this.#look();
    });
  }

  /** From the beginning. @param {boolean} [usual] at the usual rate */
  #again(usual = false) {
    if (usual) this.#rate.value = USUAL;
    this.#made = '';
    this.#step = 0;
    this.#tell();
    this.#showData();
    this.#go();
  }

  /** Something else shall be learnt. */
  #changed() {
    this.#showData();
    if (this.#data.value !== DRAWN || this.#doodle.points.length > 0) {
      this.#again();
      return;
    }
    // It is to be drawn yet.
    this.stop();
    this.#pause();
  }

  #showPlay() {
    this.#play.textContent = this.#playing ? t('train.pause') : t('train.play');
    this.section.dataset.playing = String(this.#playing);
    if (!this.#playing) this.#light(0, 0);
  }

  /** Lights a line of the two algorithms. @param {number} algorithm 1 or 2 @param {number} line */
  #light(algorithm, line) {
    for (const [i, list] of [...this.section.querySelectorAll('.algorithm')].entries()) {
      for (const [j, item] of [...list.children].entries()) {
        item.toggleAttribute('data-lit', i + 1 === algorithm && j + 1 === line);
      }
    }
  }
}
