/**
 * The frame of the picture to make, around the one that it starts from: it is dragged by hand or moved by keys, and what it
 * holds beside the picture is drawn anew. What it says stands in the four fields of `outpaint`, and the other way round.
 */
import { t } from '../messages/index.js';
import { any, button, input } from './ui.js';

/** @typedef {import('./view.js').Rectangle} Rectangle */
/** @typedef {'left' | 'right' | 'top' | 'bottom'} Side */
/** @typedef {Record<Side, number>} Margins */

const SIDES = /** @type {const} */ (['left', 'right', 'top', 'bottom']);
/** Margins are multiples of this. */
const STEP = 8;
/** Seen around the frame while it is worked on, in shares of its sides: to drag into. */
const ROOM = 0.25;

export class Frame {
  #frame = any('extend-frame');
  #area = any('extend-area');
  #button = button('extend-by-hand');
  #fields = SIDES.map((side) => ({ side, field: input(`extend-${side}`) }));
  #size;
  #view;
  /**
   * A pointer that drags it: where it began, which sides follow it (all of them: it is moved), what they were, and what
   * was to be seen.
   * @type {{ id: number, x: number, y: number, sides: string[], margins: Margins, content: Rectangle } | undefined}
   */
  #drag;

  /**
   * @param {() => import('./editor.js').Size} size of the picture inside
   * @param {() => import('./view.js').View} view in which it lies
   */
  constructor(size, view) {
    this.#size = size;
    this.#view = view;
    this.#button.onclick = () => this.#work(!this.#working);
    for (const { field } of this.#fields) field.addEventListener('input', () => view().layout());
    this.#frame.addEventListener('pointerdown', (event) => this.#down(event));
    this.#frame.addEventListener('pointermove', (event) => this.#move(event));
    for (const end of /** @type {const} */ (['pointerup', 'pointercancel'])) {
      this.#frame.addEventListener(end, ({ pointerId }) => {
        if (this.#drag?.id !== pointerId) return;
        this.#drag = undefined;
        view().layout();
      });
    }
    this.#frame.addEventListener('keydown', (event) => this.#key(event));
  }

  get #working() {
    return this.#button.getAttribute('aria-pressed') === 'true';
  }

  /** As the fields have them, as far as they say numbers. @returns {Margins} */
  get #margins() {
    const values = this.#fields.map(({ side, field }) => [side, Math.max(0, field.valueAsNumber || 0)]);
    return /** @type {Margins} */ (Object.fromEntries(values));
  }

  /** In pixels of the picture inside. @returns {Rectangle} */
  get #outside() {
    const { left, right, top, bottom } = this.#margins;
    const { width, height } = this.#size();
    return { x: -left, y: -top, width: left + width + right, height: top + height + bottom };
  }

  /** What there is to see. @returns {Rectangle} */
  get content() {
    if (this.#drag) return this.#drag.content;
    const { x, y, width, height } = this.#outside;
    if (!this.#working) return { x, y, width, height };
    const room = { x: width * ROOM, y: height * ROOM };
    return { x: x - room.x, y: y - room.y, width: width + 2 * room.x, height: height + 2 * room.y };
  }

  /** Lays it where it belongs in the view. */
  show() {
    const { x, y, width, height } = this.#outside;
    const { scale } = this.#view();
    const at = this.#view().place({ x, y });
    for (const element of [this.#frame, this.#area]) {
      Object.assign(element.style, {
        left: `${at.x}px`, top: `${at.y}px`, width: `${width * scale}px`, height: `${height * scale}px`,
      });
    }
    const extended = Object.values(this.#margins).some((margin) => margin > 0);
    this.#area.hidden = !extended && !this.#working;
    any('frame-size').textContent = extended ? t('frame.size', width, height) : '';
  }

  /** What a drag has done so far is taken back: it was none. */
  cancel() {
    if (!this.#drag) return;
    const { margins } = this.#drag;
    this.#drag = undefined;
    this.#set(margins);
  }

  /** The picture is gone, or another one has come. */
  stop() {
    this.#work(false);
  }

  /** @param {boolean} yes */
  #work(yes) {
    this.#button.setAttribute('aria-pressed', String(yes));
    this.#frame.hidden = !yes;
    any('frame-hint').hidden = !yes;
    any('paint-hint').hidden = yes;
    this.#view().whole();
    if (yes) this.#frame.focus();
  }

  /** @param {Margins} margins */
  #set(margins) {
    for (const { side, field } of this.#fields) {
      const margin = Math.min(Number(field.max), Math.max(0, Math.round(margins[side] / STEP) * STEP));
      if (field.valueAsNumber === margin) continue;
      field.value = String(margin);
      field.dispatchEvent(new Event('input', { bubbles: true }));
    }
    this.#view().layout();
  }

  /** @param {PointerEvent} event */
  #down(event) {
    const { target, pointerId: id, clientX: x, clientY: y, button: pressed } = event;
    if (this.#drag || pressed !== 0) return;
    const sides = target instanceof HTMLElement ? target.dataset.at?.split(' ') ?? [] : [];
    this.#frame.setPointerCapture(id);
    this.#drag = { id, x, y, sides, margins: this.#margins, content: this.content };
  }

  /** @param {PointerEvent} event */
  #move({ pointerId, clientX, clientY }) {
    if (this.#drag?.id !== pointerId) return;
    const { x, y, sides, margins } = this.#drag;
    const { scale } = this.#view();
    const by = { x: (clientX - x) / scale, y: (clientY - y) / scale };
    if (sides.length === 0) {
      // Its size stays, and the picture stays inside.
      const most = Number(this.#fields[0].field.max);
      /** @param {number} way @param {number} before @param {number} behind */
      const far = (way, before, behind) =>
        Math.min(before, most - behind, Math.max(-behind, before - most, Math.round(way / STEP) * STEP));
      const [right, down] = [far(by.x, margins.left, margins.right), far(by.y, margins.top, margins.bottom)];
      const across = { left: margins.left - right, right: margins.right + right };
      this.#set({ ...across, top: margins.top - down, bottom: margins.bottom + down });
      return;
    }
    const moved = { left: -by.x, right: by.x, top: -by.y, bottom: by.y };
    this.#set(/** @type {Margins} */ (Object.fromEntries(SIDES.map((side) =>
      [side, margins[side] + (sides.includes(side) ? moved[side] : 0)]))));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const side = /** @type {Side} */ (event.key.replace('Arrow', '').replace('Up', 'Top').replace('Down', 'Bottom')
      .toLowerCase());
    if (event.key === 'Delete' || event.key === 'Backspace') {
      this.#set({ left: 0, right: 0, top: 0, bottom: 0 });
    } else if (event.key.startsWith('Arrow')) {
      const margins = this.#margins;
      this.#set({ ...margins, [side]: margins[side] + (event.shiftKey ? -STEP : STEP) });
    } else {
      return;
    }
    event.preventDefault();
  }
}
