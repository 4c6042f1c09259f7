/**
 * Generative models that learn points in the plane, live, on the GPU or without one: a diffusion model, a normalising
 * flow, a GAN and a VAE of some 35,000 parameters each, with the same features, batch and number of steps. Each trainer has
 * a worker of its own, so that several learn at once and nothing that is drawn waits for them. docs/training.md has what
 * they come to.
 */
import { Engine, detect } from './engine.js';
import { DiffusionError, invalid, show } from './errors.js';

/** @typedef {'diffusion' | 'flow' | 'gan' | 'vae'} Family */
/** @typedef {'spiral' | 'clusters' | 'moons'} DataSet */

/** @type {readonly Family[]} */
export const FAMILIES = Object.freeze(['diffusion', 'flow', 'gan', 'vae']);
/** @type {readonly DataSet[]} */
export const DATA_SETS = Object.freeze(['spiral', 'clusters', 'moons']);

/** Steps of one call: some minutes on a slow core. */
const MOST_STEPS = 10_000;
const MOST_SAMPLES = 4096;
const MOST_POINTS = 20_000;
const SEEDS = 2 ** 32 - 1;

/**
 * @typedef {object} TrainerOptions
 * @property {Family} family
 * @property {DataSet | Float32Array} data a set's name, or x, y pairs within -3..3: at least two different ones
 * @property {number} [seed] of weights, batches and noise; the same seed gives the same run; default 0
 * @property {number} [steps] by which the learning rate has fallen to 2 % of itself; default 2000. More may follow.
 * @property {number} [learningRate] at its highest; default 0.002, of a flow and a GAN 0.001
 * @property {'gpu' | 'cpu'} [device] where it learns; if left out on the GPU, unless that is a processor in disguise
 */

/**
 * @typedef {object} Trained
 * @property {number} step steps done
 * @property {Float32Array} losses one a step: of diffusion the mean squared error of v, of a flow nats a point, of a GAN
 *   the generator's cross-entropy, of a VAE nats a point. Not to be compared with each other.
 * @property {Float32Array} [critic] a GAN's discriminator's; 0.69 where it cannot tell
 */

/**
 * What one family alone can show. Grids are `size` times `size` points, x and y in turn, row by row from below; straight
 * ones reach from -2.2 to 2.2.
 * @typedef {{ kind: 'arrows', size: number, from: Float32Array, to: Float32Array, points: Float32Array }} Arrows
 *   from a straight grid to where the network guesses the clean points; points: samples on their way at that time
 * @typedef {{ kind: 'critic', size: number, field: Float32Array, grid: Float32Array }} Critic
 *   field: a number for each point of a straight grid, 0 "made" to 1 "real"; grid: where a straight grid of latents lands
 * @typedef {{ kind: 'ellipses', size: number, ellipses: Float32Array, grid: Float32Array }} Ellipses
 *   ellipses: x, y, deviation of x, deviation of y in latent space, of 200 data points; grid: as above
 * @typedef {{ kind: 'bent', size: number, grid: Float32Array }} Bent grid: as above
 * @typedef {Arrows | Critic | Ellipses | Bent} Picture
 */

/**
 * @typedef {object} Score
 * @property {number} onData the share of 1,000 samples that are within 0.15 of a point of the data
 * @property {{ hit: number, of: number } | null} modes parts of a named set with at least a tenth of their fair share of
 *   samples; null of drawn data
 */

/**
 * Refuses a number that is not whole or out of range.
 * @param {string} name @param {unknown} value @param {number} least @param {number} most
 */
function whole(name, value, least, most) {
  if (!Number.isSafeInteger(value) || Number(value) < least || Number(value) > most) {
    throw invalid(`${name} must be a whole number from ${least} to ${most}, not ${show(value)}.`);
  }
}

/** What every training is told. @param {{ seed: number, steps: number, learningRate?: number }} plan */
function checkPlan({ seed, steps, learningRate }) {
  whole('seed', seed, 0, SEEDS);
  whole('steps', steps, 1, 1_000_000);
  if (learningRate !== undefined && !(learningRate > 0 && learningRate <= 1000)) {
    throw invalid(`learningRate must be a number above 0, at most 1000, not ${show(learningRate)}.`);
  }
}

/** Whether there is a GPU that is no processor in disguise (Google's, Mesa's, Microsoft's): WebAssembly is faster there. */
async function hasGpu() {
  const { adapter } = await detect();
  if (!adapter || adapter.fallback) return false;
  const { vendor, architecture, description } = adapter;
  return !/swiftshader|software|llvmpipe|warp|basic render/i.test(`${vendor} ${architecture} ${description}`);
}

/** @param {any} spec @returns a worker that learns, and what it says of itself */
async function begin(spec) {
  const engine = new Engine();
  try {
    return { engine, about: await engine.call('train', { method: 'create', args: [spec] }) };
  } catch (error) {
    engine.end(disposed());
    throw error;
  }
}

/** @param {any} options @returns what the worker is told */
function checked({ family, data, seed = 0, steps = 2000, learningRate, device }) {
  if (!FAMILIES.includes(family)) throw invalid(`family must be one of ${FAMILIES.join(', ')}, not ${show(family)}.`);
  checkPlan({ seed, steps, learningRate });
  if (![undefined, 'gpu', 'cpu'].includes(device)) throw invalid(`device must be gpu or cpu, not ${show(device)}.`);
  const rest = { family, seed, steps, learningRate, device };
  if (DATA_SETS.includes(data)) return { ...rest, data };
  if (!(data instanceof Float32Array)) {
    throw invalid(`data must be one of ${DATA_SETS.join(', ')}, or a Float32Array of x, y pairs, not ${show(data)}.`);
  }
  if (data.length > 2 * MOST_POINTS) {
    throw invalid(`data has ${data.length / 2} points: leave some out, ${MOST_POINTS} are the most.`);
  }
  return { ...rest, points: data };
}

/** Pixels of a drawing, and the most drawings. */
const PIXELS = 256, MOST_DRAWINGS = 64;

const CREATE = Symbol('create');

/** One family that learns one set. */
export class Trainer {
  /** @type {Engine} */ #engine;
  /** @type {number} */ #seed;
  #step = 0;

  /** @param {symbol} key @param {Engine} engine @param {any} spec @param {any} about */
  constructor(key, engine, spec, about) {
    if (key !== CREATE) throw invalid('Use Trainer.create(options) instead of new.');
    this.#engine = engine;
    this.#seed = spec.seed;
    /** @type {Family} */
    this.family = spec.family;
    /** How many weights and biases it has. @type {number} */
    this.parameters = about.parameters;
    /** How many points a step sees. @type {number} */
    this.batch = about.batch;
    /** What it learns: x and y in turn. @type {Float32Array} */
    this.points = about.points;
    /** Where it learns: a GPU that is lost gives way to the CPU, and nothing is lost with it. @type {'gpu' | 'cpu'} */
    this.device = about.device;
  }

  /** @param {TrainerOptions} options */
  static async create(options) {
    const spec = checked(options ?? {});
    const device = spec.device ?? (await hasGpu() ? 'gpu' : 'cpu');
    const { engine, about } = await begin({ ...spec, device }).catch((error) => {
      // Nobody asked for the GPU by name: without it the same is learnt.
      if (spec.device || device === 'cpu') throw error;
      return begin({ ...spec, device: 'cpu' });
    });
    return new Trainer(CREATE, engine, spec, about);
  }

  /** Steps done. */
  get step() {
    return this.#step;
  }

  /** @param {string} method @param {...number} args @returns {Promise<any>} */
  #ask(method, ...args) {
    return this.#engine.call('train', { method, args });
  }

  /**
   * Learns for so many steps. Where training diverges this rejects with "invalid-option"; the network is then as it was
   * before, and `reset` begins anew.
   * @param {number} [steps]
   * @returns {Promise<Trained>}
   */
  async train(steps = 1) {
    whole('steps', steps, 1, MOST_STEPS);
    const trained = await this.#ask('train', steps);
    this.#step = trained.step;
    this.device = trained.device;
    return trained;
  }

  /**
   * Makes samples: the same ones for the same network and seed.
   * @param {number} [count]
   * @param {number} [seed] of the noise that they are made of
   * @returns {Promise<Float32Array>} x and y in turn
   */
  async samples(count = 500, seed = 0) {
    whole('count', count, 1, MOST_SAMPLES);
    whole('seed', seed, 0, SEEDS);
    return this.#ask('samples', count, seed);
  }

  /**
   * What this family alone can show.
   * @param {{ size?: number, time?: number }} [options] size: points a side of its grid, 2 to 64; time: of a diffusion
   *   model's arrows, 0 (data) to 1 (noise)
   * @returns {Promise<Picture>}
   */
  async picture({ size = 20, time = 0.5 } = {}) {
    whole('size', size, 2, 64);
    if (!(time >= 0 && time <= 1)) throw invalid(`time must be a number from 0 to 1, not ${show(time)}.`);
    return this.#ask('picture', size, time);
  }

  /** How good its samples are. @returns {Promise<Score>} */
  async score() {
    const { onData, modes } = await this.#ask('score');
    return { onData, modes: modes && { hit: modes[0], of: modes[1] } };
  }

  /**
   * Forgets everything and begins anew.
   * @param {number} [seed] if left out the one that it had
   */
  async reset(seed = this.#seed) {
    whole('seed', seed, 0, SEEDS);
    await this.#ask('reset', seed);
    this.#seed = seed;
    this.#step = 0;
  }

  /** Ends its worker. */
  dispose() {
    this.#engine.end(disposed());
  }
}

/**
 * @typedef {object} DoodleSample
 * @property {Float32Array} pixels -1 (paper) to 1 (ink), row by row from above
 * @property {number} nearest which of the drawings it is nearest to, from 0, each moved by up to a pixel
 * @property {number} differs the share of its pixels that are ink there and paper here, or the other way round
 */

/** A diffusion model of some 137,000 parameters that learns a handful of drawings of 16x16 pixels. */
export class DoodleTrainer {
  /** @type {Engine} */ #engine;
  #step = 0;

  /** @param {symbol} key @param {Engine} engine @param {any} about */
  constructor(key, engine, about) {
    if (key !== CREATE) throw invalid('Use DoodleTrainer.create(options) instead of new.');
    this.#engine = engine;
    /** How many weights and biases it has. @type {number} */
    this.parameters = about.parameters;
  }

  /**
   * @param {object} options
   * @param {Float32Array} options.drawings 256 values each, -1 (paper) to 1 (ink), row by row from above; 1 to 64 of them
   * @param {number} [options.seed] of weights, batches and noise; default 0
   * @param {number} [options.steps] by which the learning rate has fallen to 2 % of itself; default 1000
   * @param {number} [options.learningRate] at its highest; default 0.003
   */
  static async create({ drawings, seed = 0, steps = 1000, learningRate }) {
    checkPlan({ seed, steps, learningRate });
    if (!(drawings instanceof Float32Array) || drawings.length > MOST_DRAWINGS * PIXELS) {
      throw invalid(`drawings must be a Float32Array of ${PIXELS} values for each of at most ${MOST_DRAWINGS}.`);
    }
    const { engine, about } = await begin({ drawings, seed, steps, learningRate });
    return new DoodleTrainer(CREATE, engine, about);
  }

  /** Steps done. */
  get step() {
    return this.#step;
  }

  /**
   * Learns for so many steps, and fails, as those of {@link Trainer}.
   * @param {number} [steps]
   * @returns {Promise<Trained>} losses: the mean squared error of the clean drawing
   */
  async train(steps = 1) {
    whole('steps', steps, 1, MOST_STEPS);
    const trained = await this.#engine.call('train', { method: 'train', args: [steps] });
    this.#step = trained.step;
    return trained;
  }

  /**
   * Eight samples: the same ones for the same network and seed.
   * @param {number} [seed] of the noise that they are made of
   * @returns {Promise<DoodleSample[]>}
   */
  async samples(seed = 0) {
    whole('seed', seed, 0, SEEDS);
    return this.#engine.call('train', { method: 'samples', args: [seed] });
  }

  /** Ends its worker. */
  dispose() {
    this.#engine.end(disposed());
  }
}

const disposed = () => new DiffusionError('aborted', 'This trainer was disposed of; create another.');
