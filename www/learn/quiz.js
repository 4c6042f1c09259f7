/** Ten questions, before and after. The answers stay in this browser. */
import { any, make, makeButton } from '../page/ui.js';
import { t } from './say.js';

/** Which of three answers is right, and the chapter that tells, or the page of help. @type {[number, string][]} */
const QUESTIONS = [
  [1, 'spoil'], [0, 'spoil'], [2, 'guess'], [1, 'guess'], [0, 'steps'],
  [2, 'steps'], [1, 'train'], [0, 'train'], [2, 'words'], [1, 'help'],
];
const STORED = 'browser-diffusion questions';

/** @typedef {'before' | 'after'} When */

/** @returns {Record<When, number[]>} which answer was given to each; a question that was not answered has none */
function kept() {
  const none = { before: [], after: [] };
  try {
    const { before, after } = JSON.parse(localStorage.getItem(STORED) ?? '{}');
    return { before: Array.isArray(before) ? before : [], after: Array.isArray(after) ? after : [] };
  } catch {
    return none; // storage may be forbidden, or hold something else
  }
}

/** @param {Record<When, number[]>} all */
function keep(all) {
  try {
    localStorage.setItem(STORED, JSON.stringify(all));
  } catch {
    // As above: then they are known as long as the page is open.
  }
}

export class Quiz {
  #given = kept();

  constructor() {
    for (const when of /** @type {const} */ (['before', 'after'])) {
      any(when).querySelector('.questions')?.append(...QUESTIONS.map((_, i) => this.#question(when, i)));
    }
    this.#show();
  }

  /** @param {When} when @param {number} i */
  #question(when, i) {
    const answers = [0, 1, 2].map((choice) => {
      const button = makeButton({ textContent: t(/** @type {'quiz.0.0'} */ (`quiz.${i}.${choice}`)) });
      button.onclick = () => {
        this.#given[when][i] = choice;
        keep(this.#given);
        this.#show();
      };
      return button;
    });
    const told = make('p', { className: 'hint' });
    const words = make('p', {}, t(/** @type {'quiz.0'} */ (`quiz.${i}`)));
    return make('li', {}, words, make('div', { className: 'row' }, ...answers), told);
  }

  #show() {
    for (const when of /** @type {const} */ (['before', 'after'])) {
      const items = any(when).querySelectorAll('.questions > li');
      for (const [i, [right, chapter]] of QUESTIONS.entries()) {
        const given = this.#given[when][i];
        for (const [choice, button] of [...items[i].querySelectorAll('button')].entries()) {
          button.setAttribute('aria-pressed', String(choice === given));
        }
        const told = items[i].querySelector('.hint');
        // Before, nothing is given away.
        if (when === 'before' || given === undefined || !told) continue;
        const help = /** @type {HTMLAnchorElement} */ (document.querySelector('.places a[href*="help.html"]'));
        const [href, title] = chapter === 'help'
          ? [`${help.href}#memory`, help.textContent ?? '']
          : [`#${chapter}`, any(`${chapter}-title`).textContent ?? ''];
        told.replaceChildren(given === right ? t('quiz.right') : t('quiz.wrong', this.#words(i, right)), ' ',
          make('a', { href }, t('quiz.where', title)));
      }
      const score = any(when).querySelector('.score');
      if (score) score.textContent = this.#score(when);
    }
  }

  /** @param {number} i @param {number} choice */
  #words(i, choice) {
    return t(/** @type {'quiz.0.0'} */ (`quiz.${i}.${choice}`));
  }

  /** @param {When} when */
  #score(when) {
    const count = (/** @type {When} */ which) =>
      QUESTIONS.filter(([right], i) => this.#given[which][i] === right).length;
    const whole = (/** @type {When} */ which) => QUESTIONS.every((_, i) => this.#given[which][i] !== undefined);
    if (!whole(when)) return '';
    if (when === 'before') return t('quiz.kept');
    return whole('before') ? t('quiz.both', count('after'), count('before')) : t('quiz.score', count('after'));
  }
}
