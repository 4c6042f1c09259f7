/** The prompts that were drawn last, to take one up again. */
import { t } from '../messages/index.js';
import { recallList, remember } from './stored.js';
import { any, button, details, make, makeButton } from './ui.js';

/** @typedef {{ prompt: string, negative: string }} Prompt */

const STORED = 'browser-diffusion prompts';
const MOST = 100;

export class Prompts {
  #view = details('past');
  #list = any('past-list');
  #choose;

  /** @param {(chosen: Prompt) => void} choose */
  constructor(choose) {
    this.#choose = choose;
    this.#view.addEventListener('toggle', () => this.#show());
    button('past-forget').onclick = () => {
      keep([]);
      this.#show();
      this.#view.open = false;
    };
    this.#show();
  }

  /** One is drawn. @param {Prompt} drawn */
  add(drawn) {
    if (!drawn.prompt.trim()) return;
    const others = kept().filter(({ prompt, negative }) => prompt !== drawn.prompt || negative !== drawn.negative);
    keep([drawn, ...others].slice(0, MOST));
    this.#show();
  }

  #show() {
    const all = kept();
    this.#view.hidden = all.length === 0;
    if (!this.#view.open) return;
    this.#list.replaceChildren(...all.map((one) => {
      const words = one.negative ? t('prompts.use', one.prompt, one.negative) : one.prompt;
      return make('li', {}, makeButton({ textContent: words, title: words, onclick: () => this.#choose(one) }));
    }));
  }
}

/** @returns {Prompt[]} newest first */
export const kept = () => recallList(STORED,
  (one) => typeof one?.prompt === 'string' && typeof one.negative === 'string');

/** Where there is no room the list stays as it was. @param {Prompt[]} prompts */
const keep = (prompts) => remember(STORED, JSON.stringify(prompts));
