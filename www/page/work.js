/**
 * What the page is doing: at most one drawing, and loads or timings beside it. Generate, Stop and "Draw this next" can
 * be pressed when they make sense.
 */
import { t } from '../messages/index.js';
import { holdPage } from './stay.js';
import { any, button, element, explained } from './ui.js';
import { keepAwake } from './wake.js';

export class Work {
  #form = element('form', HTMLFormElement);
  #generate = button('generate');
  #stop = button('stop');
  #enqueue = button('enqueue');
  /** @type {AbortController | undefined} of the drawing */
  #controller;
  #beside = 0;
  #stopped;
  /** There is something to draw with, as far as is known. */
  open = true;

  /** @param {{ stopped: () => void, enqueue: () => void }} on stopped: whatever is loaded is to stop as well */
  constructor({ stopped, enqueue }) {
    this.#stop.onclick = () => this.stop();
    this.#enqueue.onclick = enqueue;
    this.#stopped = stopped;
  }

  get drawing() {
    return this.#controller !== undefined;
  }

  get #busy() {
    return this.drawing || this.#beside > 0;
  }

  /** Does nothing while another is drawn. @param {(signal: AbortSignal) => Promise<void>} work */
  async draw(work) {
    if (this.#controller) return;
    this.#controller = new AbortController();
    this.#arrange();
    keepAwake(true);
    holdPage(true);
    try {
      await work(this.#controller.signal);
    } finally {
      this.#controller = undefined;
      keepAwake(false);
      holdPage(false);
      this.#arrange();
    }
  }

  /** Something that one may draw during. @param {() => Promise<void>} work */
  async beside(work) {
    this.#beside++;
    this.#arrange();
    try {
      await work();
    } finally {
      this.#beside--;
      this.#arrange();
    }
  }

  stop() {
    if (!this.#busy) return;
    this.#controller?.abort();
    this.#stopped();
  }

  /** Without a GPU the page still tells how a picture is made. @param {string} reason */
  close(reason) {
    this.open = false;
    any('no-webgpu-reason').replaceChildren(...explained('webgpu-unavailable', reason));
    any('no-webgpu').hidden = false;
    for (const card of this.#form.querySelectorAll('.card')) card.toggleAttribute('hidden', true);
    this.#form.classList.add('bare');
  }

  focusEnqueue() {
    this.#enqueue.focus();
  }

  /** A button that no longer can be pressed must not take the keyboard's focus with it. */
  #arrange() {
    const focused = document.activeElement;
    this.#generate.disabled = this.drawing;
    this.#stop.disabled = !this.#busy;
    if (focused === this.#generate && this.#generate.disabled) this.#stop.focus();
    if (focused === this.#stop && this.#stop.disabled) this.#generate.focus();
    this.#enqueue.hidden = !this.drawing;
    any('report').classList.toggle('idle', !this.#busy);
  }
}
