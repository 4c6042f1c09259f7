/**
 * The places of this document, each with an address: drawing, and the models at "#models". To go from one to the other
 * stops nothing: what is drawn goes on, and a model that is loaded stays.
 */
import { any } from './ui.js';

/** @typedef {'draw' | 'models'} Place */

export class Places {
  #views = { draw: any('form'), models: any('place-models') };
  #links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll('.places a')]);
  #report = any('report');
  /** Where the report stands while one draws. */
  #home = /** @type {HTMLElement} */ (this.#report.parentElement);
  #title = document.title;
  /** How far down each was read. @type {Record<Place, number>} */
  #scrolled = { draw: 0, models: 0 };
  #opened;
  /** @type {Place} */
  current = 'draw';

  /** @param {() => void} opened the models are seen now */
  constructor(opened) {
    this.#opened = opened;
  }

  /** Opens what the address names, now and whenever it changes. */
  start() {
    this.#follow();
    addEventListener('hashchange', () => this.#follow());
  }

  /** @param {Place} place @param {string} [id] of the element there that gets the keyboard */
  go(place, id) {
    if (place !== this.current) {
      location.hash = place;
      this.#show(place);
    }
    if (id) any(id).focus();
  }

  #follow() {
    const place = location.hash === '#models' ? 'models' : 'draw';
    if (place !== this.current) this.#show(place);
  }

  /** @param {Place} place */
  #show(place) {
    this.#scrolled[this.current] = scrollY;
    this.#views[this.current].hidden = true;
    this.#views[place].hidden = false;
    this.current = place;
    const heading = any('models-title');
    if (place === 'models') heading.parentElement?.append(this.#report);
    else this.#home.append(this.#report);
    document.title = place === 'models' ? `${heading.textContent} · ${this.#title}` : this.#title;
    for (const link of this.#links) {
      if (link.hash === `#${place}`) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    // The link that led here may be hidden now: the keyboard goes on from the top of what is seen.
    (place === 'models' ? heading : this.#views.draw).focus({ preventScroll: true });
    scrollTo(0, this.#scrolled[place]);
    if (place === 'models') this.#opened();
  }
}
