/** While a prompt is typed: the names that go on as it begins, below the field, to choose by arrows or mouse. */
import { t } from '../messages/index.js';
import { offersFor } from './offers.js';
import { any, make } from './ui.js';

/** @typedef {HTMLInputElement | HTMLTextAreaElement} Field */
/** @typedef {import('./offers.js').Names} Names */
/** @typedef {import('./offers.js').Offer} Offer */

export class Completion {
  #field;
  #list;
  #names;
  /** @type {Offer[]} */
  #offers = [];
  /** The one that Enter takes. */
  #chosen = -1;

  /** @param {Field} field @param {() => Names} names */
  constructor(field, names) {
    this.#field = field;
    this.#names = names;
    this.#list = make('ul', { id: `${field.id}-completions`, className: 'completions', role: 'listbox', hidden: true });
    this.#list.setAttribute('aria-label', t('complete.list'));
    field.after(this.#list);
    field.setAttribute('aria-autocomplete', 'list');
    field.setAttribute('aria-controls', this.#list.id);
    field.addEventListener('input', (event) => {
      // What sets the form is not typing.
      if (/** @type {InputEvent} */ (event).inputType && !(/** @type {InputEvent} */ (event).isComposing)) this.#look();
      else this.#close();
    });
    field.addEventListener('blur', () => this.#close());
    field.addEventListener('keydown', (event) => this.#press(/** @type {KeyboardEvent} */ (event)));
  }

  #look() {
    const { value, selectionStart: at, selectionEnd: end } = this.#field;
    this.#offers = at === end ? offersFor(value.slice(0, at ?? 0), this.#names()) : [];
    if (this.#offers.length === 0) {
      this.#close();
      return;
    }
    this.#list.replaceChildren(...this.#offers.map((offer, i) => {
      const item = make('li', { id: `${this.#list.id}-${i}`, role: 'option', textContent: offer.label });
      item.addEventListener('pointerdown', (event) => {
        event.preventDefault(); // the field keeps the keyboard
        this.#take(offer);
      });
      return item;
    }));
    this.#choose(-1);
    if (this.#list.hidden) any('spoken').textContent = t('complete.count', this.#offers.length);
    this.#list.hidden = false;
    this.#list.style.top = `${this.#field.offsetTop + this.#field.offsetHeight + 2}px`;
  }

  #close() {
    this.#list.hidden = true;
    this.#offers = [];
    this.#field.removeAttribute('aria-activedescendant');
  }

  /** @param {number} which */
  #choose(which) {
    this.#chosen = which;
    for (const [i, item] of [...this.#list.children].entries()) item.setAttribute('aria-selected', String(i === which));
    const item = this.#list.children[which];
    if (item) this.#field.setAttribute('aria-activedescendant', item.id);
    else this.#field.removeAttribute('aria-activedescendant');
    item?.scrollIntoView({ block: 'nearest' });
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const { key, ctrlKey, metaKey, altKey, shiftKey, isComposing } = event;
    if (this.#list.hidden || ctrlKey || metaKey || altKey || shiftKey || isComposing) return;
    const count = this.#offers.length, chosen = this.#offers[this.#chosen];
    if (key === 'ArrowDown') this.#choose((this.#chosen + 1) % count);
    else if (key === 'ArrowUp') this.#choose((this.#chosen < 0 ? count : this.#chosen) - 1);
    else if (['Enter', 'Tab'].includes(key) && chosen) this.#take(chosen);
    else if (key === 'Escape') this.#close();
    else return;
    event.preventDefault();
    event.stopPropagation(); // Enter draws and Escape stops where no list is open
  }

  /** As if it had been typed, so that the browser's own undo takes it back. @param {Offer} offer */
  #take({ text, typed }) {
    const field = this.#field, at = field.selectionStart ?? 0;
    // What stands behind already is not put there again.
    const behind = field.value.slice(at);
    const whole = text.endsWith(', ') && /^\s*[,，]/u.test(behind) ? text.slice(0, -2) : text;
    this.#close();
    field.setSelectionRange(at - typed.length, at);
    if (!document.execCommand('insertText', false, whole)) {
      field.setRangeText(whole, at - typed.length, at, 'end');
      field.dispatchEvent(new Event('input', { bubbles: true }));
    }
    this.#close();
  }
}
