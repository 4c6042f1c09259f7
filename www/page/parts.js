/**
 * Lists of what is added to a model: LoRAs, ControlNets, words of textual inversion. Each row names a source, by
 * address or as a file from disk.
 */
import { t } from '../messages/index.js';
import { openDrawer } from './levels.js';
import { element, make } from './ui.js';

/**
 * What a picture was drawn with: what it was called there, values of the row's fields, and what else is to be said.
 * @typedef {{ name: string, remark?: string } & Record<string, unknown>} Need
 */

/**
 * @typedef {object} Field
 * @property {string} key
 * @property {string} label
 * @property {'text' | 'number' | 'picture' | 'pictures' | 'source' | 'choice'} kind
 * @property {string} [value] to begin with
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [step]
 * @property {string} [list] a datalist of sources
 * @property {[string, string][]} [choices] values and what they are called
 */

/**
 * One list.
 * @typedef {object} List
 * @property {HTMLElement} list rows are added to it
 * @property {HTMLButtonElement} add
 * @property {string} what one row is called
 * @property {Field[]} fields
 * @property {number} [most] so many rows
 * @property {() => void} [changed] a row is there, is gone, or says something else
 * @property {(row: HTMLElement) => void} [complete] adds what else a row has
 */

export class Parts {
  #list;
  #add;
  #fields;
  #what;
  #most;
  #changed;
  #complete;
  #made = 0;

  /** @param {List} list */
  constructor({ list, add, what, fields, most = Infinity, changed = () => {}, complete = () => {} }) {
    this.#list = list;
    this.#add = add;
    this.#what = what;
    this.#fields = fields;
    this.#most = most;
    this.#changed = changed;
    this.#complete = complete;
    list.addEventListener('input', changed);
    add.onclick = () => {
      const row = this.add();
      row.querySelector('input')?.focus();
    };
  }

  #rowsChanged() {
    this.#add.hidden = this.#list.childElementCount >= this.#most;
    this.#changed();
  }

  /** @param {Record<string, string | number>} [values] */
  add(values = {}) {
    const number = ++this.#made;
    const row = document.createElement('li');
    for (const field of this.#fields) row.append(...this.#input(field, number, values[field.key]));
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = t('parts.remove');
    remove.setAttribute('aria-label', t('parts.removeOne', this.#what, number));
    remove.onclick = () => {
      row.remove();
      this.#rowsChanged();
    };
    row.append(remove);
    this.#complete(row);
    this.#list.append(row);
    this.#rowsChanged();
    return row;
  }

  /**
   * The rows become those of a picture. A source that stands here already, or that the page offers, is taken by its
   * name; for the others a row asks.
   * @param {Need[]} needs
   * @returns {string[]} the names of what a row asks for
   */
  take(needs) {
    const before = /** @type {HTMLElement[]} */ ([...this.#list.children]);
    const rows = needs.map((need) => {
      const at = before.findIndex((row) => isCalled(sourceIn(row).value, need.name));
      const [row = this.add()] = at < 0 ? [] : before.splice(at, 1);
      this.#fill(row, need);
      return row;
    });
    for (const row of before) row.remove();
    this.#list.append(...rows);
    if (rows.length > 0) openDrawer(this.#list);
    this.#rowsChanged();
    return needs.flatMap(({ name }, i) => (sourceIn(rows[i]).value ? [] : [name]));
  }

  /** @param {HTMLElement} row @param {Need} need */
  #fill(row, need) {
    row.querySelector('.remark')?.remove();
    if (need.remark) row.prepend(make('p', { className: 'hint remark', textContent: need.remark }));
    for (const { key, kind, list } of this.#fields) {
      const input = fieldIn(row, key);
      if (key !== 'source' && kind === 'source') {
        input.value ||= String(need[key] ?? '');
      } else if (kind === 'source' && !input.value) {
        const offered = list ? [...element(list, HTMLDataListElement).options].map(({ value }) => value) : [];
        input.value = offered.find((source) => isCalled(source, need.name)) ?? '';
        if (!input.value) ask(row, input, need.name);
      }
      if (kind === 'number' || kind === 'choice') input.value = String(need[key] ?? input.value);
    }
    row.dispatchEvent(new Event('change'));
  }

  /** @param {Field} field @param {number} number @param {string | number} [value] @returns {HTMLElement[]} */
  #input({ key, label, kind, value: usual = '', min, max, step, list, choices = [] }, number, value) {
    const input = document.createElement(kind === 'choice' ? 'select' : 'input');
    input.id = `${this.#what.replace(/\W/g, '')}-${key}-${number}`;
    input.dataset.key = key;
    const name = document.createElement('label');
    name.htmlFor = input.id;
    name.textContent = label;
    // A label stays with its field where a row breaks.
    const pair = document.createElement('span');
    pair.className = kind === 'number' ? 'pair small' : 'pair';
    pair.append(name, input);
    if (input instanceof HTMLSelectElement) {
      for (const [chosen, words] of choices) input.append(new Option(words, chosen));
      return [pair];
    }
    if (list) input.setAttribute('list', list);
    if (kind === 'picture' || kind === 'pictures') {
      Object.assign(input, { type: 'file', accept: 'image/*', multiple: kind === 'pictures' });
    } else {
      input.type = kind === 'number' ? 'number' : 'text';
      if (kind === 'number') Object.assign(input, { min: String(min), max: String(max), step: String(step) });
      if (kind !== 'number') Object.assign(input, { autocomplete: 'off', spellcheck: false });
      input.value = String(value ?? usual);
    }
    if (kind !== 'source') return [pair];
    const file = document.createElement('input');
    Object.assign(file, { type: 'file', accept: '.safetensors,.pt,.pth,.bin,.ckpt,.png' });
    file.setAttribute('aria-label', t('parts.fromDisk', label));
    file.onchange = () => {
      const [chosen] = file.files ?? [];
      if (!chosen) return;
      files.set(input, chosen);
      input.value = chosen.name;
      this.#changed();
    };
    return [pair, file];
  }

  /** The words of textual inversion. */
  get tokens() {
    return this.read().map(({ token }) => String(token)).filter(Boolean);
  }

  /** What the sources are called in a prompt: the file's name without its ending. */
  get names() {
    return [...this.#list.children].map((row) => fileIn(sourceIn(row).value)).filter(Boolean);
  }

  /**
   * One object a row, without rows that name no source.
   * @param {(row: Element) => Record<string, any>} [more] what else is read of a row
   * @returns {Record<string, any>[]}
   */
  read(more = () => ({})) {
    return [...this.#list.children].map((row) => {
      const values = more(row);
      for (const { key, kind } of this.#fields) {
        const input = fieldIn(row, key);
        const file = files.get(input);
        if (kind === 'picture') values[key] = input.files?.[0];
        else if (kind === 'pictures') values[key] = [...input.files ?? []];
        else if (kind === 'number') values[key] = input.valueAsNumber;
        else values[key] = kind === 'source' && file?.name === input.value ? file : input.value.trim();
      }
      return values;
    }).filter(({ source }) => source);
  }
}

/** @param {Element} row @param {string} key */
const fieldIn = (row, key) => /** @type {HTMLInputElement} */ (row.querySelector(`[data-key=${key}]`));
/** @param {Element} row */
const sourceIn = (row) => fieldIn(row, 'source');

/** @param {string} source @returns {string} its file's name, without the ending */
const fileIn = (source) => (source.split(/[?#]/)[0].split('/').at(-1) ?? '').replace(/\.\w+$/, '');

/**
 * Whether a picture's text means this source: it has the whole of it, or the file's name without its ending.
 * @param {string} source
 * @param {string} name
 */
function isCalled(source, name) {
  return source !== '' && [source, fileIn(source)].includes(name);
}

/**
 * A row says which file it is for, until it has one.
 * @param {HTMLElement} row
 * @param {HTMLInputElement} source
 * @param {string} name
 */
function ask(row, source, name) {
  const note = make('p', { className: 'hint asks', id: `${source.id}-asks` });
  note.textContent = t('parts.asks', name);
  source.setAttribute('aria-describedby', note.id);
  row.prepend(note);
  row.addEventListener('change', () => {
    if (!source.value) return;
    note.remove();
    source.removeAttribute('aria-describedby');
  });
}

/** @type {WeakMap<HTMLInputElement, File>} files whose names stand in the fields */
const files = new WeakMap();
