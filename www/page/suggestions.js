/** Offers what the embedded model can draw: the nouns of embedded/concepts.json. */
import { language, t } from '../messages/index.js';
import { readLexicon, writeChinese } from './chinese.js';
import { any, make, makeButton } from './ui.js';

// What goes with the nouns, in the words that the embedded model learnt from.
const COLOURS = [
  'red', 'orange', 'yellow', 'green', 'blue', 'light blue', 'purple', 'pink', 'black', 'gray', 'brown', 'white',
];
const SCENES = ['on the grass', 'on the beach', 'in the snow', 'in the sea', 'in the sky', 'at sunset', 'at night'];
const WITHOUT_ARTICLE = ['grapes', 'cherries', 'french fries', 'cheese', 'fire', 'pizza'];

/** As the captions have it. */
const ENGLISH = {
  thing,
  /** @param {string} noun @param {string} colour */
  onGround: (noun, colour) => `${thing(noun)} on ${article(colour)} background`,
  /** @param {string} noun @param {string} scene */
  inScene: (noun, scene) => `${thing(noun)} ${scene}`,
};

export class Suggestions {
  #panel = any('suggestions');
  #choose;
  /** @type {string[]} */
  #nouns = [];
  #wanted = true;
  #words = ENGLISH;

  /** @param {(words: string) => void} choose */
  constructor(choose) {
    this.#choose = choose;
  }

  async load() {
    try {
      this.#nouns = await (await fetch(new URL('../embedded/concepts.json', import.meta.url))).json();
      if (language === 'zh') this.#words = writeChinese(await readLexicon());
    } catch {
      if (this.#nouns.length === 0) return; // suggestions are a help, not a need
    }
    const shuffle = makeButton({ textContent: t('suggestions.other'), className: 'shuffle' });
    shuffle.onclick = () => {
      for (const old of this.#panel.querySelectorAll(':scope > button:not(.shuffle)')) old.remove();
      this.#panel.prepend(...this.#ideas());
    };
    const all = make('details', {},
      make('summary', { textContent: t('suggestions.all', this.#nouns.length) }),
      make('div', {}, ...this.#nouns.map((noun) => this.#chip(this.#words.thing(noun)))));
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
    const { thing, onGround, inScene } = this.#words;
    const kinds = [
      () => thing(noun()),
      () => thing(noun(), pick(COLOURS.slice(0, -1))), // nothing was tinted white
      () => onGround(noun(), pick(COLOURS)),
      () => inScene(noun(), pick(SCENES)),
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
