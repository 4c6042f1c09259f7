/**
 * Models and LoRAs that are made to draw in few steps: the form follows what they want. They are told by what they are
 * called: the end of their address or their file, and the title in the file; a file from disk by its tensors too.
 */
import { t } from '../messages/index.js';
import { schedulerLabel } from '../metadata.js';
import { recipeOf, recipeOfKeys } from './few-steps.js';
import { any, button } from './ui.js';

/** @typedef {import('./few-steps.js').Wants} Wants */

/**
 * What may bring a recipe.
 * @typedef {object} Candidate
 * @property {'LoRA' | 'model'} what
 * @property {string | File} source
 * @property {Wants} [catalogue] what the catalogue says of it, which is better than what a name tells
 * @property {Wants} [pipeline] what its pipeline says once it is loaded
 */

/** A pipeline with fewer usual steps is made for few. */
const FEW = 10;

/** Longer is no header of a model's. */
const MOST_HEADER = 64 << 20;

/**
 * What a source is called: the parts of a Hub id or of an address's path; of a file its name and the titles that it
 * holds. And the names of a file's tensors.
 * @param {string | File} source
 * @returns {Promise<{ names: string[], keys: string[] }>}
 */
async function toldBy(source) {
  if (!(source instanceof File)) {
    return { names: (URL.canParse(source) ? new URL(source).pathname : source).split('/'), keys: [] };
  }
  const names = [source.name];
  /** @type {string[]} */
  let keys = [];
  if (!/\.safetensors$/i.test(source.name) || source.size < 8) return { names, keys };
  try {
    const length = new DataView(await source.slice(0, 8).arrayBuffer()).getBigUint64(0, true);
    if (length > Math.min(MOST_HEADER, source.size - 8)) return { names, keys };
    const { __metadata__: told, ...tensors } = JSON.parse(await source.slice(8, 8 + Number(length)).text());
    keys = Object.keys(tensors);
    for (const key of ['modelspec.title', 'ss_output_name']) if (typeof told?.[key] === 'string') names.push(told[key]);
  } catch {
    // A damaged file: loading it says what is wrong.
  }
  return { names, keys };
}

const NAME = /** @type {const} */ ('recipe.name'), PIPELINE = /** @type {const} */ ('recipe.pipeline');
const KEYS = /** @type {const} */ ('recipe.keys');

/** The recipe that a candidate brings, and who says so. @param {Candidate} candidate */
async function recipeFor({ what, source, catalogue, pipeline }) {
  const { names, keys } = await toldBy(source);
  const within = recipeOfKeys(keys);
  if (within) return { what, by: KEYS, recipe: { ...within, name: names[0] } };
  const named = recipeOf(names);
  if (catalogue) return { what, by: NAME, recipe: named && { ...named, ...catalogue } };
  if (!pipeline || pipeline.steps >= FEW) return { what, by: NAME, recipe: named };
  return { what, by: PIPELINE, recipe: { kind: 'LCM', ...pipeline, name: names.at(-1) } };
}

/** Of an entry of the catalogue, what a recipe sets. @param {import('./catalogue.js').Entry} entry */
export const offeredRecipe = ({ defaults: { steps, guidance, scheduler } }) => ({ steps, guidance, scheduler });

export class Recipes {
  #panel = any('recipe');
  #settings;
  #candidates;
  /**
   * What the form follows, what that set, and what stood there before.
   * @type {{ mark: string, set: Record<string, string>, before: Record<string, string> } | undefined}
   */
  #followed;
  #asked = 0;

  /**
   * @param {import('./settings.js').Settings} settings
   * @param {() => Candidate[]} candidates the first that brings a recipe is followed
   */
  constructor(settings, candidates) {
    this.#settings = settings;
    this.#candidates = candidates;
    button('recipe-undo').onclick = () => {
      const { mark = '', set = {} } = this.#followed ?? {};
      this.#putBack();
      this.#followed = { mark, set: {}, before: {} }; // not again for this one
      const [first] = Object.keys(set);
      if (first) settings.focus(first);
    };
  }

  get followed() {
    return this.#followed !== undefined;
  }

  /**
   * A LoRA or a model that is made for few steps sets steps, guidance and sampler, and says so; when it is gone, what
   * stood there before comes back, unless the visitor has chosen otherwise meanwhile.
   */
  async follow() {
    const mine = ++this.#asked;
    const now = (await Promise.all(this.#candidates().map(recipeFor))).find(({ recipe }) => recipe);
    const mark = now && JSON.stringify(now);
    if (mine !== this.#asked || mark === this.#followed?.mark) return;
    this.#putBack();
    if (!now?.recipe || !mark) return;
    const { what, by, recipe: { kind, name, ...wants } } = now;
    const set = Object.fromEntries(Object.entries(wants).map(([id, value]) => [id, String(value)]));
    // A form that was kept from an earlier visit may stand so already.
    const before = Object.fromEntries(Object.entries(set).map(([id, value]) => {
      const stands = this.#settings.get(id);
      return [id, stands === value ? this.#settings.usualOf(id) : stands];
    }));
    this.#followed = { mark, set, before };
    this.#settings.set(set);
    const { steps, guidance, scheduler } = wants;
    any('recipe-text').textContent = t('recipe.text', {
      name, kind, what: what === 'model' ? t('recipe.model') : what, by: t(by), steps, guidance,
      sampler: schedulerLabel(scheduler),
    });
    this.#panel.hidden = false;
  }

  /** What a recipe set goes, where it still stands. */
  #putBack() {
    if (!this.#followed) return;
    const { set, before } = this.#followed;
    this.#followed = undefined;
    this.#panel.hidden = true;
    this.#settings.set(Object.fromEntries(Object.entries(before).filter(([id]) => this.#settings.get(id) === set[id])));
  }
}
