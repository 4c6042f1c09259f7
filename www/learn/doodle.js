/** A data set drawn by hand: points, by mouse, by finger or by keyboard. */
import { Plane, REACH } from './plane.js';
import { uniform } from './chance.js';

/** How far points lie from where they are put, and how many come at once. */
const SPREAD = 0.12, AT_ONCE = 3;
/** As many as a trainer takes without becoming slow, and how far the keyboard goes at once. */
const MOST = 4000, STRIDE = 0.15;

export class Doodle {
  #plane;
  #chance = uniform(1);
  /** @type {[number, number]} */
  #at = [0, 0];
  #keys = false;
  /** x, y, x, y ... @type {number[]} */
  points = [];

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#plane = new Plane(canvas);
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#keys = false;
      this.#put(this.#plane.under(event));
    });
    canvas.addEventListener('pointermove', (event) => {
      if (event.buttons & 1) this.#put(this.#plane.under(event));
    });
    canvas.addEventListener('keydown', (event) => this.#key(event));
    this.show();
  }

  clear() {
    this.points = [];
    this.show();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (way) this.#at = /** @type {[number, number]} */ (this.#at.map((v, i) => within(v + STRIDE * way[i])));
    else if (event.key === 'Backspace') this.points.splice(-2 * AT_ONCE);
    else if (event.key !== ' ') return;
    event.preventDefault();
    this.#keys = true;
    // With Shift, a line.
    if (event.key === ' ' || (way && event.shiftKey)) this.#put(this.#at);
    this.show();
  }

  /** @param {[number, number]} at */
  #put(at) {
    const nearby = () => (this.#chance() + this.#chance() - 1) * SPREAD;
    for (let i = 0; i < AT_ONCE && this.points.length < 2 * MOST; i++) {
      this.points.push(within(at[0] + nearby()), within(at[1] + nearby()));
    }
    this.show();
  }

  show() {
    this.#plane.clear();
    this.#plane.points(this.points, 'accent', { size: 4 });
    if (this.#keys) this.#plane.cross(this.#at);
  }
}

/** @param {number} value */
const within = (value) => Math.min(REACH - 0.1, Math.max(0.1 - REACH, value));
