/** One family that learns: its samples on the data, its own picture, its loss and its scores. */
import { Axes, svg } from './draw.js';
import { Plane } from './plane.js';
import { make, makeButton, errorWords } from '../page/ui.js';
import { number } from '../messages/index.js';
import { t } from './say.js';

/** @typedef {import('../train.js').Trainer} Trainer */
/** @typedef {import('../train.js').Family} Family */

/** How many samples are shown, and the seed of all of them: what moves is the network, not chance. */
const SAMPLES = 500, SEED = 7;
/** The most points of a line. */
const LINE = 200;

export class Panel {
  family;
  view;
  /** @type {Trainer | undefined} */
  trainer;
  /** Of each step. @type {number[]} */
  #losses = [];
  /** @type {number[]} */
  #critics = [];
  #samples = new Plane(make('canvas'));
  #own = new Plane(make('canvas'));
  #axes = new Axes({ left: 2, top: 4, right: 198, bottom: 56 }, [0, 1], [0, 1]);
  #line = svg('path', { class: 'line' });
  #second = svg('path', { class: 'line other' });
  #loss = make('p', { className: 'hint' });
  #score = make('p', { className: 'score' });
  #trouble = make('div', { className: 'error', hidden: true, role: 'alert' });
  /** Why it learns no more. */
  stuck = false;
  /** When its own picture's slider stands: 0 the data, 1 noise. */
  time = 0.5;

  /** @param {Family} family */
  constructor(family) {
    this.family = family;
    const curve = svg('svg', { class: 'curve', viewBox: '0 0 200 60', role: 'img', 'aria-label': t('train.lossOf') });
    curve.append(this.#axes.frame(), this.#second, this.#line);
    this.#samples.canvas.setAttribute('aria-label', t(`train.samples.${family}`));
    this.#own.canvas.setAttribute('aria-label', t(`train.own.${family}`));
    for (const { canvas } of [this.#samples, this.#own]) canvas.setAttribute('role', 'img');
    this.view = make('section', { className: 'panel' },
      make('h3', {}, t(`train.${family}`)),
      make('figure', {}, this.#samples.canvas, make('figcaption', {}, t('train.samplesCaption'))),
      make('figure', {}, this.#own.canvas, make('figcaption', {}, t(`train.own.${family}`))),
      curve, this.#loss, this.#score, this.#trouble);
    this.view.dataset.family = family;
  }

  /** Another run. @param {Trainer} trainer */
  begin(trainer) {
    this.trainer = trainer;
    this.stuck = false;
    this.#trouble.hidden = true;
    this.#losses = [];
    this.#critics = [];
    this.#samples.clear();
    this.#samples.points(trainer.points, 'field-line', { alpha: 0.35 });
    this.#own.clear();
    this.#showLoss();
    this.#score.textContent = '';
  }

  /** @param {number} steps */
  async learn(steps) {
    if (this.stuck || !this.trainer) return;
    const { losses, critic = [] } = await this.trainer.train(steps);
    this.#losses.push(...losses);
    this.#critics.push(...critic);
    this.#showLoss();
  }

  /** It learns no more; the others go on. @param {unknown} error @param {() => void} again */
  stop(error, again) {
    this.stuck = true;
    const button = makeButton({ textContent: t('train.startAgain'), onclick: again });
    this.#trouble.replaceChildren(make('p', {}, ...errorWords(error)), button);
    this.#trouble.hidden = false;
  }

  /** What it would draw now, and how good that is. */
  async show() {
    const { trainer } = this;
    if (!trainer) return;
    const samples = await trainer.samples(SAMPLES, SEED);
    const { onData, modes } = await trainer.score();
    this.#samples.clear();
    this.#samples.points(trainer.points, 'field-line', { alpha: 0.35 });
    this.#samples.points(samples, 'accent', { size: 4 });
    await this.showOwn();
    const share = number(Math.round(100 * onData));
    this.#score.textContent = modes ? t('train.scoreModes', share, modes.hit, modes.of) : t('train.score', share);
    this.view.dataset.score = String(onData);
  }

  /** The picture that only this family can show. */
  async showOwn() {
    const { trainer } = this;
    if (!trainer) return;
    const picture = await trainer.picture({ size: 20, time: this.time });
    const own = this.#own;
    own.clear();
    switch (picture.kind) {
      case 'arrows':
        own.arrows(picture.from, picture.to, 'field-line');
        own.points(picture.points, 'accent', { size: 4 });
        break;
      case 'critic':
        own.field(picture.field, picture.size, 'accent');
        own.grid(picture.grid, picture.size, 'ink');
        break;
      case 'ellipses':
        own.ellipses(picture.ellipses, 'accent');
        break;
      default:
        own.grid(picture.grid, picture.size, 'accent');
    }
  }

  #showLoss() {
    const heights = [this.#losses, this.#critics].flatMap((values) => thinned(values).map(([, y]) => y));
    const [low, high] = [Math.min(0, ...heights), Math.max(0.01, ...heights)];
    this.#axes.across = [0, Math.max(1, this.#losses.length - 1)];
    this.#axes.up = [low, high];
    this.#line.setAttribute('d', this.#axes.path(thinned(this.#losses)));
    this.#second.setAttribute('d', this.#axes.path(thinned(this.#critics)));
    const loss = this.#losses.at(-1), critic = this.#critics.at(-1);
    if (loss === undefined) this.#loss.textContent = t('train.notYet');
    else if (critic === undefined) this.#loss.textContent = t('train.loss', loss.toFixed(3));
    else this.#loss.textContent = t('train.losses', loss.toFixed(3), critic.toFixed(3));
    this.view.dataset.steps = String(this.#losses.length);
  }
}

/** Means of some neighbours: a line of so many steps would be nothing but jitter. @param {number[]} values */
function thinned(values) {
  const size = Math.max(1, Math.ceil(values.length / LINE));
  /** @type {[number, number][]} */
  const points = [];
  for (let i = 0; i < values.length; i += size) {
    const some = values.slice(i, i + size);
    points.push([i, some.reduce((sum, value) => sum + value, 0) / some.length]);
  }
  return points;
}
