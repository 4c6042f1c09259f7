/** Offers what the embedded model can draw: the nouns of embedded/concepts.json. */
import { any, make, makeButton } from './ui.js';

// What goes with the nouns, in the words that the embedded model learnt from.
const COLOURS = [
  'red', 'orange', 'yellow', 'green', 'blue', 'light blue', 'purple', 'pink', 'black', 'gray', 'brown', 'white',
];
const SCENES = ['on the grass', 'on the beach', 'in the snow', 'in the sea', 'in the sky', 'at sunset', 'at night'];
const WITHOUT_ARTICLE = ['grapes', 'cherries', 'french fries', 'cheese', 'fire', 'pizza'];

export class Suggestions {
  #panel = any('suggestions');
  #choose;
  /** @type {string[]} */
  #nouns = [];
  #wanted = true;

  /** @param {(words: string) => void} choose */
  constructor(choose) {
    this.#choose = choose;
  }

  async load() {
    try {
      this.#nouns = await (await fetch(new URL('../embedded/concepts.json', import.meta.url))).json();
    } catch {
      return; // suggestions are a help, not a need
    }
    const shuffle = makeButton({ textContent: 'other ideas', className: 'shuffle' });
    shuffle.onclick = () => {
      for (const old of this.#panel.querySelectorAll(':scope > button:not(.shuffle)')) old.remove();
      this.#panel.prepend(...this.#ideas());
    };
    const all = make('details', {},
      make('summary', { textContent: `All ${this.#nouns.length} things that the small model has learnt` }),
      make('div', {}, ...this.#nouns.map((noun) => this.#chip(thing(noun)))));
    this.#panel.replaceChildren(...this.#ideas(), shuffle, all);
    this.show(this.#wanted);
  }

  /** @param {boolean} wanted the embedded model is chosen */
  show(wanted) {
    this.#wanted = wanted;
    this.#panel.hidden = !wanted || this.#nouns.length === 0;
  }

  #ideas() {
    const noun = () => pick(this.#nouns);
    const kinds = [
      () => thing(noun()),
      () => thing(noun(), pick(COLOURS.slice(0, -1))), // nothing was tinted white
      () => `${thing(noun())} on ${article(pick(COLOURS))} background`,
      () => `${thing(noun())} ${pick(SCENES)}`,
    ];
    const ideas = new Set(Array.from({ length: 6 }, (_, i) => kinds[i % kinds.length]()));
    return [...ideas].map((words) => this.#chip(words));
  }

  /** @param {string} words */
  #chip(words) {
    return makeButton({ textContent: words, onclick: () => this.#choose(words) });
  }
}

/** @param {string[]} list */
const pick = (list) => list[Math.floor(Math.random() * list.length)];

/** @param {string} words */
const article = (words) => (/^[aeio]|^umbrella/.test(words) ? `an ${words}` : `a ${words}`);

/** @param {string} noun @param {string} [colour] */
function thing(noun, colour) {
  const words = colour ? `${colour} ${noun}` : noun;
  return WITHOUT_ARTICLE.includes(noun) ? words : article(words);
}
