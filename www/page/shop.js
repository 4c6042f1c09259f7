/** The models that the page offers: what each is, what it costs here, and whether it fits. */
import { t } from '../messages/index.js';
import { describeCost } from './cost.js';
import { EMBEDDED } from './model.js';
import { any, make, makeButton, say, size } from './ui.js';

/**
 * @typedef {object} On
 * @property {import('./model.js').Models} models
 * @property {() => boolean} open the list is seen
 * @property {() => void} taken one is chosen to draw with
 */

export class Shop {
  #list = any('models-list');
  #on;
  #asked = 0;

  /** @param {On} on */
  constructor(on) {
    this.#on = on;
  }

  /** What each costs now; nothing while nobody sees it. */
  async show() {
    const { models, open } = this.#on;
    if (!open()) return;
    const mine = ++this.#asked;
    const { small, entries } = await models.offers();
    if (mine !== this.#asked) return;
    const at = [...this.#list.querySelectorAll('button')].findIndex((one) => one === document.activeElement);
    const about = make('p', {}, t('shop.aboutSmall', small > 0 ? t('cost.once', size(small)) : t('cost.nothing')));
    this.#list.replaceChildren(
      this.#card(EMBEDDED, t('shop.small'), [about]),
      ...entries.map(({ entry, cost }) => this.#card(entry.source, entry.name, describeCost(entry, cost))),
    );
    this.#list.querySelectorAll('button')[at]?.focus();
  }

  /** @param {string} source @param {string} name @param {Node[]} told */
  #card(source, name, told) {
    const { models, taken } = this.#on;
    const chosen = models.source === source || (models.offered()?.source === source);
    const use = makeButton({
      textContent: t(chosen ? 'shop.chosen' : 'shop.use'), ariaLabel: t(chosen ? 'shop.isChosen' : 'shop.useOne', name),
      ariaPressed: String(chosen),
    });
    use.onclick = () => {
      models.pickOffered(source);
      say(t('kept.isModel', name));
      taken();
    };
    const cost = make('div', { className: 'cost' }, ...told);
    return make('li', { className: 'card' }, make('h3', { textContent: name }), cost, use);
  }
}
