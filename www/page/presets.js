/**
 * Presets: size, steps, guidance, sampler and negative prompt at once, for a kind of model, or as the visitor kept them.
 * What a preset replaces can be brought back.
 */
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';
import { recallList, remember } from './stored.js';
import { any, attempt, button, input, make, say, select } from './ui.js';

/** Ids of the settings that a preset sets. */
const IDS = ['width', 'height', 'steps', 'guidance', 'scheduler', 'negative-prompt'];

/** @typedef {{ name: string, values: Record<string, string> }} Preset */

const FLAWS = 'lowres, blurry, bad anatomy, extra fingers, watermark, text';
const TAGS = 'lowres, worst quality, bad quality, bad anatomy, jpeg artifacts, signature, watermark';

/**
 * What is usual for kinds of models, as their authors publish it: width, height, steps, guidance, sampler, negative.
 * @type {[string, [number, number, number, number, string, string]][]}
 */
const FAMILIES = [
  ['Stable Diffusion 1.5', [512, 512, 25, 7, 'dpmpp_2m_karras', FLAWS]],
  ['Stable Diffusion 1.5 · 2:3', [512, 768, 25, 7, 'dpmpp_2m_karras', FLAWS]],
  ['Stable Diffusion 2.1', [768, 768, 25, 7, 'dpmpp_2m_karras', FLAWS]],
  ['SDXL', [1024, 1024, 30, 6, 'dpmpp_2m_karras', FLAWS]],
  ['SDXL · 2:3', [832, 1216, 30, 6, 'dpmpp_2m_karras', FLAWS]],
  ['Illustrious, NoobAI', [832, 1216, 28, 5.5, 'euler_a', TAGS]],
  ['LCM · SD 1.5', [512, 512, 4, 1.5, 'lcm', '']],
  ['SD Turbo', [512, 512, 1, 0, 'euler_a_sgm_uniform', '']],
  ['SDXL Lightning, Hyper', [1024, 1024, 8, 1, 'euler_sgm_uniform', '']],
];

const STORED = 'browser-diffusion presets';

export class Presets {
  #choice = select('preset');
  #own = any('presets-own');
  #name = input('preset-name');
  #delete = button('preset-delete');
  #undo = button('preset-undo');
  #settings;
  #catalogue;
  /** What stood there before, and what the last preset set. @type {Record<string, string> | undefined} */
  #before;
  /** @type {Record<string, string> | undefined} */
  #set;

  /**
   * @param {import('./settings.js').Settings} settings
   * @param {() => Record<string, string | number> | undefined} catalogue what it says of the chosen model, if it is in it
   */
  constructor(settings, catalogue) {
    this.#settings = settings;
    this.#catalogue = catalogue;
    const families = FAMILIES.map(([name, values]) => option({
      name, values: Object.fromEntries(IDS.map((id, i) => [id, String(values[i])])),
    }));
    any('presets-kinds').append(...families);
    this.#choice.addEventListener('change', () => this.#take());
    button('preset-keep').onclick = () => attempt(() => this.#keep());
    this.#delete.onclick = () => attempt(() => this.#remove());
    this.#undo.onclick = () => this.#bringBack();
    this.#show();
  }

  #take() {
    const chosen = this.#choice.selectedOptions[0];
    this.#delete.hidden = chosen.parentElement !== this.#own;
    const { value } = chosen;
    if (value === '') return;
    const settings = this.#settings;
    const usual = () => Object.fromEntries(IDS.map((id) => [id, this.#catalogue()?.[id] ?? settings.usualOf(id)]));
    const values = value === 'usual' ? usual() : JSON.parse(value);
    // Who goes through several, as the arrow keys do, wants what stood there before the first of them.
    const stands = this.#read();
    if (!this.#set || JSON.stringify(stands) !== JSON.stringify(this.#set)) this.#before = stands;
    settings.set(values);
    this.#set = this.#read();
    this.#undo.hidden = false;
    say(t('presets.set', chosen.text));
  }

  #read() {
    return Object.fromEntries(IDS.map((id) => [id, this.#settings.get(id)]));
  }

  #bringBack() {
    if (this.#before) this.#settings.set(this.#before);
    this.#set = undefined;
    this.#undo.hidden = true;
    this.#choice.value = '';
    this.#delete.hidden = true;
    this.#choice.focus();
    say(t('presets.back'));
  }

  #keep() {
    const name = this.#name.value.trim();
    if (!name) {
      this.#name.focus();
      throw new PageError('invalid-option', t('presets.nameless'));
    }
    const preset = { name, values: this.#read() };
    keep([...kept().filter((other) => other.name !== name), preset]);
    this.#name.value = '';
    this.#show(name);
    say(t('presets.kept', name));
  }

  #remove() {
    const { text } = this.#choice.selectedOptions[0];
    keep(kept().filter(({ name }) => name !== text));
    this.#show();
    this.#choice.focus();
    say(t('presets.deleted', text));
  }

  /** @param {string} [chosen] */
  #show(chosen) {
    const options = kept().map(option);
    this.#own.replaceChildren(...options);
    this.#own.hidden = options.length === 0;
    this.#choice.value = '';
    const named = options.find(({ text }) => text === chosen);
    if (named) named.selected = true;
    this.#delete.hidden = !named;
  }
}

/** @param {Preset} preset */
const option = ({ name, values }) =>
  make('option', { value: JSON.stringify(values), textContent: name, translate: false });

/** @returns {Preset[]} */
const kept = () => recallList(STORED, ({ name, values }) =>
  typeof name === 'string' && IDS.every((id) => typeof values?.[id] === 'string'));

/** @param {Preset[]} presets @throws {DiffusionError} where there is no room */
function keep(presets) {
  if (!remember(STORED, JSON.stringify(presets))) throw new PageError('quota', t('presets.noRoom'));
}
