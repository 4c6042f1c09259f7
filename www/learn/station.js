/**
 * What every chapter has: a question with two answers to guess from, an experiment that starts by itself when it comes
 * into view, one slider, and a link that reproduces it.
 */
import { any, element, errorWords, isAbort, make, makeButton } from '../page/ui.js';
import { t } from './say.js';

/** @typedef {import('./painter.js').Painter} Painter */

/** Whoever wants no motion sees each experiment's end at once. */
export const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

/** @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} rejects when it is stopped */
export const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => {
    clearTimeout(timer);
    reject(new DOMException('stopped', 'AbortError'));
  }, { once: true });
});

/** @param {AbortSignal} signal @returns {Promise<void>} rejects when it is stopped */
export const frame = (signal) => new Promise((resolve, reject) => {
  requestAnimationFrame(() => (signal.aborted ? reject(new DOMException('stopped', 'AbortError')) : resolve()));
});

/** An experiment is seen when some of it is in the middle of the screen. */
const SEEN = '-20% 0px';

export class Station {
  section;
  /** What it plays with. */
  subject;
  slider;
  output;
  painter;
  /** Where the slider stands was chosen, by the visitor or by a link: the experiment leaves it there. */
  chosen = false;
  #link;
  #scene;
  #waits = make('p', { className: 'waits' });
  #trouble = make('div', { className: 'error', hidden: true, role: 'alert' });
  #running = new AbortController();
  #seen = false;
  #begun = false;

  /**
   * @param {string} id of its section
   * @param {Painter} [painter] where its experiment needs the model
   * @param {import('./subject.js').Subject} [subject] where the visitor's words take part
   */
  constructor(id, painter, subject) {
    this.section = any(id);
    this.painter = painter;
    this.subject = subject;
    this.slider = /** @type {HTMLInputElement} */ (this.find('input[type=range]'));
    this.output = /** @type {HTMLOutputElement} */ (this.find('output'));
    this.#link = /** @type {HTMLAnchorElement} */ (this.find('.link'));
    this.#scene = this.find('.scene');
    this.#scene.before(this.#waits);
    this.#scene.after(this.#trouble);
    this.#guess();
    this.slider.addEventListener('input', () => {
      this.chosen = true;
      this.moved();
      this.showLink();
    });
    this.#link.addEventListener('click', () => {
      navigator.clipboard?.writeText(this.#link.href).catch(() => {}); // the address bar has it too
    });
    painter?.addEventListener('change', () => this.#ready());
    subject?.addEventListener('change', () => this.showLink());
    this.#ready();
    new IntersectionObserver(([{ isIntersecting }]) => {
      this.#seen = isIntersecting;
      this.#ready();
      this.seen(isIntersecting);
    }, { rootMargin: SEEN }).observe(this.#figure());
  }

  /** @template {HTMLElement} [T=HTMLElement] @param {string} selector @returns {T} */
  find(selector) {
    const found = this.section.querySelector(selector);
    if (!found) throw new TypeError(`${this.section.id} has no ${selector}`);
    return /** @type {T} */ (found);
  }

  #figure() {
    return this.#scene.parentElement ?? this.section;
  }

  // -------------------------------------------------------------------------- what each chapter has of its own

  /** The experiment, from its beginning. @param {AbortSignal} signal @returns {Promise<void>} */
  async play(signal) {
    await frame(signal);
  }

  /** The slider was moved by the visitor, which ends what moves by itself. */
  moved() {}

  /** It came into view, or left it. @param {boolean} _yes */
  seen(_yes) {}

  /** The settings that a link carries. @returns {Record<string, string>} */
  values() {
    return { at: this.slider.value };
  }

  /** Takes them from a link: whatever stands there. @param {URLSearchParams} values */
  take(values) {
    const at = values.get('at');
    // A slider takes no number out of its range.
    if (at !== null) {
      this.slider.value = at;
      this.chosen = true;
    }
    this.moved();
  }

  // ------------------------------------------------------------------------------------------------ starting

  /** Starts what waited for being seen, for the model, or for both. */
  #ready() {
    const state = this.painter?.state ?? 'ready';
    this.#waits.hidden = state === 'ready';
    this.#scene.hidden = state !== 'ready';
    const without = this.section.querySelector('.without');
    without?.toggleAttribute('hidden', state === 'ready');
    if (state !== 'ready') {
      this.#waits.textContent = t(`waits.${state}`);
      if (state === 'asks') {
        this.#waits.append(' ', makeButton({ textContent: t('waits.fetch'), onclick: () => this.painter?.load() }));
      }
      this.#begun = false;
      this.#running.abort();
      return;
    }
    if (this.#seen && !this.#begun) this.start();
  }

  /** The experiment is at work or was. */
  get begun() {
    return this.#begun;
  }

  /** Starts the experiment, anew if need be. */
  start() {
    this.#begun = true;
    this.#trouble.hidden = true;
    this.run((signal) => this.play(signal));
  }

  /** Starts it anew where it was started before: what it plays with is another. */
  restart() {
    this.#begun = false;
    this.#running.abort();
    this.#ready();
  }

  /** Stops what goes on. */
  stop() {
    this.#running.abort();
  }

  /** Does one thing in place of what goes on. @param {(signal: AbortSignal) => Promise<void>} work */
  async run(work) {
    this.#running.abort();
    const { signal } = this.#running = new AbortController();
    this.section.dataset.state = 'playing';
    try {
      await work(signal);
      if (!signal.aborted) this.section.dataset.state = 'played';
    } catch (error) {
      const stopped = isAbort(error) || (error instanceof DOMException && error.name === 'AbortError');
      if (!stopped && !signal.aborted) this.fail(error, () => this.start());
    }
  }

  /** Says what went wrong, with a way on. @param {unknown} error @param {() => void} again @param {string} [how] */
  fail(error, again, how = t('station.again')) {
    this.section.dataset.state = 'failed';
    const button = makeButton({ textContent: how });
    button.onclick = () => {
      this.#trouble.hidden = true;
      again();
    };
    this.#trouble.replaceChildren(make('p', {}, ...errorWords(error)), button);
    this.#trouble.hidden = false;
  }

  showLink() {
    const words = this.subject && { p: this.subject.words };
    this.#link.href = `#${this.section.id}&${new URLSearchParams({ ...this.values(), ...words })}`;
  }

  // ------------------------------------------------------------------------------------------------ guessing

  #guess() {
    const field = element(`${this.section.id}-guess`, HTMLFieldSetElement);
    const buttons = [...field.querySelectorAll('button')];
    const answer = /** @type {HTMLElement} */ (field.querySelector('.answer'));
    const words = answer.textContent;
    for (const button of buttons) {
      button.onclick = () => {
        const right = button.dataset.guess === field.dataset.right;
        for (const each of buttons) each.setAttribute('aria-pressed', String(each === button));
        answer.replaceChildren(make('b', {}, right ? t('guess.right') : t('guess.wrong')), ` ${words}`);
        answer.hidden = false;
      };
    }
  }
}
