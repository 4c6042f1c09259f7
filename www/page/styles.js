/** Styles: words with a name that go with any prompt, in and out as AUTOMATIC1111's styles.csv. */
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';
import { recallList, remember } from './stored.js';
import { joined, readStyles, writeStyles } from './styles-csv.js';
import { any, attempt, button, input, make, makeButton, saveFile, say } from './ui.js';

/** @typedef {import('./styles-csv.js').Style} Style */
/** @typedef {{ prompt: string, negative: string }} Words */

const STORED = 'browser-diffusion styles';
const FILE = 'styles.csv';

export class Styles {
  #list = any('styles-list');
  #name = input('style-name');
  #file = input('styles-file');
  #save = button('styles-save');
  #words;

  /** @param {{ read: () => Words, set: (words: Words) => void }} words of the form */
  constructor(words) {
    this.#words = words;
    button('style-keep').onclick = () => this.#try(() => this.#add());
    this.#file.addEventListener('change', () => this.#try(() => this.#take()));
    this.#save.onclick = () => saveFile(new Blob([writeStyles(kept())], { type: 'text/csv' }), FILE);
    any('styles').addEventListener('toggle', () => this.#show());
    const wildcards = async () => (await import('./wildcard-lists.js')).listen();
    any('styles').addEventListener('toggle', wildcards, { once: true });
    this.#show();
  }

  /** @param {() => void | Promise<void>} work */
  async #try(work) {
    await attempt(work);
    this.#show();
  }

  #add() {
    const name = this.#name.value.trim();
    if (!name) {
      this.#name.focus();
      throw new PageError('invalid-option', t('styles.nameless'));
    }
    keep(merged([{ name, ...this.#words.read() }]));
    this.#name.value = '';
    say(t('styles.kept', name));
  }

  async #take() {
    const [file] = this.#file.files ?? [];
    if (!file) return;
    const styles = readStyles(await file.text());
    this.#file.value = '';
    if (!styles) throw new PageError('invalid-option', t('styles.none', file.name));
    keep(merged(styles));
    say(t('styles.read', styles.length));
  }

  #show() {
    const styles = kept();
    this.#save.disabled = styles.length === 0;
    this.#list.replaceChildren(...styles.map((style) => {
      const { name, prompt, negative } = style;
      const use = makeButton({ textContent: name, title: `${prompt}\n${negative}`, ariaLabel: t('styles.use', name) });
      use.onclick = () => {
        const words = this.#words.read();
        this.#words.set({
          prompt: joined(words.prompt, prompt), negative: joined(words.negative, negative),
        });
      };
      const remove = makeButton({ textContent: '×', ariaLabel: t('styles.remove', name), className: 'remove' });
      remove.onclick = () => this.#try(() => {
        keep(kept().filter((other) => other.name !== name));
        this.#name.focus();
      });
      return make('li', {}, use, remove);
    }));
  }
}

/** Those that are kept and these; of two with one name the newer. @param {Style[]} styles */
function merged(styles) {
  const all = new Map(kept().map((style) => [style.name, style]));
  for (const style of styles) all.set(style.name, style);
  return [...all.values()];
}

/** @returns {Style[]} */
const kept = () => recallList(STORED, (one) => typeof one?.name === 'string');

/** @param {Style[]} styles @throws {DiffusionError} where there is no room */
function keep(styles) {
  if (!remember(STORED, JSON.stringify(styles))) throw new PageError('quota', t('styles.noRoom'));
}
