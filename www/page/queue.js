/** What waits to be drawn. */
import { t } from '../messages/index.js';
import { any, make, makeButton } from './ui.js';

/** @typedef {import('./drawing.js').Job} Job */

export class Queue {
  #list = any('queue');
  /** @type {Job[]} */
  #jobs = [];
  #emptied;

  /** @param {() => void} emptied by hand: the button that had the keyboard is gone */
  constructor(emptied) {
    this.#emptied = emptied;
  }

  /** @param {Job} job */
  add(job) {
    this.#jobs.push(job);
    this.#show();
  }

  /** The one that is drawn next, which waits no longer. */
  take() {
    const next = this.#jobs.shift();
    this.#show();
    return next;
  }

  /** @param {Job} job */
  #remove(job) {
    const place = this.#jobs.indexOf(job);
    this.#jobs.splice(place, 1);
    this.#show();
    const next = this.#list.querySelectorAll('button')[Math.min(place, this.#jobs.length - 1)];
    if (next) next.focus();
    else this.#emptied();
  }

  #show() {
    this.#list.hidden = this.#jobs.length === 0;
    this.#list.replaceChildren(...this.#jobs.map((job) => {
      const prompt = job.options.prompt.trim() || t('queue.wordless');
      const words = job.axes ? t('queue.grid', prompt) : prompt;
      const onclick = () => this.#remove(job);
      const remove = { textContent: t('queue.remove'), ariaLabel: t('queue.removeOne', words), onclick };
      return make('li', {}, words, makeButton(remove));
    }));
  }
}
