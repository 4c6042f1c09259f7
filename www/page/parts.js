/**
 * Lists of what is added to a model: LoRAs, ControlNets, words of textual inversion. Each row names a source, by
 * address or as a file from disk.
 */

/**
 * @typedef {object} Field
 * @property {string} key
 * @property {string} label
 * @property {'text' | 'number' | 'picture' | 'source' | 'choice'} kind
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
    remove.textContent = 'Remove';
    remove.setAttribute('aria-label', `Remove ${this.#what} ${number}`);
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
    if (kind === 'picture') {
      Object.assign(input, { type: 'file', accept: 'image/*' });
    } else {
      input.type = kind === 'number' ? 'number' : 'text';
      if (kind === 'number') Object.assign(input, { min: String(min), max: String(max), step: String(step) });
      if (kind !== 'number') Object.assign(input, { autocomplete: 'off', spellcheck: false });
      input.value = String(value ?? usual);
    }
    if (kind !== 'source') return [pair];
    const file = document.createElement('input');
    Object.assign(file, { type: 'file', accept: '.safetensors,.pt,.pth,.bin,.ckpt,.png' });
    file.setAttribute('aria-label', `${label} from disk`);
    file.onchange = () => {
      const [chosen] = file.files ?? [];
      if (!chosen) return;
      files.set(input, chosen);
      input.value = chosen.name;
      this.#changed();
    };
    return [pair, file];
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
        const input = /** @type {HTMLInputElement} */ (row.querySelector(`[data-key=${key}]`));
        const file = files.get(input);
        if (kind === 'picture') values[key] = input.files?.[0];
        else if (kind === 'number') values[key] = input.valueAsNumber;
        else values[key] = kind === 'source' && file?.name === input.value ? file : input.value.trim();
      }
      return values;
    }).filter(({ source }) => source);
  }
}

/** @type {WeakMap<HTMLInputElement, File>} files whose names stand in the fields */
const files = new WeakMap();
