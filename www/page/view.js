/**
 * Looking closer at a canvas: by wheel, by two fingers, by a drag with Space or the middle button, by keys, by buttons.
 * The canvas is scaled by CSS and knows nothing of it: where a pointer is on it, its box says.
 */

/** @typedef {{ x: number, y: number }} Point */
/** @typedef {Point & { width: number, height: number }} Rectangle */

/** So many times closer than the whole. */
const CLOSEST = 16;
/** By one press of a key or a button. */
const PACE = 1.5;
/** What the keyboard's brush keeps from the edge, in shares of what is seen. */
const EDGE = 0.15;

/** @param {number} value @param {number} least @param {number} most */
const within = (value, least, most) => Math.min(most, Math.max(least, value));

export class View {
  #box;
  #canvas;
  #on;
  /** Of the screen, for one of the canvas. */
  #scale = 1;
  /** What lies in the middle, in pixels of the canvas. */
  #middle = { x: 0, y: 0 };
  /** All is seen, and shall be, whatever its size is. */
  #whole = true;
  /** The fingers that touch it, where they are. @type {Map<number, Point>} */
  #fingers = new Map();
  /** A pointer that drags what is seen. @type {(Point & { id: number }) | undefined} */
  #drag;
  #space = { down: false, used: false };

  /**
   * @param {HTMLElement} box the canvas is in it
   * @param {HTMLCanvasElement} canvas
   * @param {object} on
   * @param {() => Rectangle} on.content what there is to see, in pixels of the canvas
   * @param {() => Point | undefined} on.cursor where the keyboard is at work
   * @param {() => void} on.gesture a second finger came: what the first one did was not meant
   * @param {() => void} on.moved everything lies elsewhere now
   */
  constructor(box, canvas, on) {
    this.#box = box;
    this.#canvas = canvas;
    this.#on = on;
    new ResizeObserver(() => this.layout()).observe(box);
    const capture = { capture: true };
    box.addEventListener('pointerdown', (event) => this.#down(event), capture);
    box.addEventListener('pointermove', (event) => this.#move(event), capture);
    for (const end of /** @type {const} */ (['pointerup', 'pointercancel'])) {
      box.addEventListener(end, (event) => this.#up(event), capture);
    }
    // Else the middle button scrolls the page by itself.
    box.addEventListener('mousedown', (event) => {
      if (event.button === 1) event.preventDefault();
    });
    box.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    box.addEventListener('keydown', (event) => this.#key(event));
    box.addEventListener('keyup', (event) => {
      if (event.key !== ' ') return;
      if (this.#space.used) event.stopPropagation(); // it was held for a drag
      this.#space = { down: false, used: false };
    }, capture);
    box.addEventListener('focusout', () => { this.#space = { down: false, used: false }; });
  }

  /** Where a pixel of the canvas lies in the box. @param {Point} pixel @returns {Point} */
  place({ x, y }) {
    const { clientWidth, clientHeight } = this.#box;
    return {
      x: clientWidth / 2 + (x - this.#middle.x) * this.#scale, y: clientHeight / 2 + (y - this.#middle.y) * this.#scale,
    };
  }

  get scale() {
    return this.#scale;
  }

  /** Puts everything where it belongs: sizes have changed. */
  layout() {
    const content = this.#on.content();
    this.#box.style.aspectRatio = `${content.width} / ${content.height}`;
    const { clientWidth, clientHeight } = this.#box;
    if (!clientWidth || !clientHeight) return; // not seen yet
    const fit = Math.min(clientWidth / content.width, clientHeight / content.height);
    this.#scale = this.#whole ? fit : within(this.#scale, fit, fit * CLOSEST);
    this.#whole = this.#scale === fit;
    const half = { x: clientWidth / 2 / this.#scale, y: clientHeight / 2 / this.#scale };
    /** @param {number} at @param {number} from @param {number} size @param {number} seen half of it */
    const inside = (at, from, size, seen) =>
      (size <= seen * 2 ? from + size / 2 : within(at, from + seen, from + size - seen));
    this.#middle = {
      x: inside(this.#middle.x, content.x, content.width, half.x),
      y: inside(this.#middle.y, content.y, content.height, half.y),
    };
    const { x, y } = this.place({ x: 0, y: 0 });
    Object.assign(this.#canvas.style, {
      width: `${this.#canvas.width * this.#scale}px`, height: `${this.#canvas.height * this.#scale}px`,
      transform: `translate(${x}px, ${y}px)`,
    });
    this.#on.moved();
  }

  /** All of it. */
  whole() {
    this.#whole = true;
    this.layout();
  }

  /** @param {boolean} closer */
  step(closer) {
    this.#zoom(closer ? PACE : 1 / PACE, this.place(this.#on.cursor() ?? this.#middle));
  }

  /** Moves what is seen as far as it must for a pixel to be in sight. @param {Point} pixel */
  reveal({ x, y }) {
    const { clientWidth, clientHeight } = this.#box;
    const far = { x: (0.5 - EDGE) * clientWidth / this.#scale, y: (0.5 - EDGE) * clientHeight / this.#scale };
    this.#middle = {
      x: within(this.#middle.x, x - far.x, x + far.x), y: within(this.#middle.y, y - far.y, y + far.y),
    };
    this.layout();
  }

  /** @param {number} factor @param {Point} at of the box: what is there stays there */
  #zoom(factor, at) {
    const { clientWidth, clientHeight } = this.#box;
    const off = { x: at.x - clientWidth / 2, y: at.y - clientHeight / 2 };
    const pixel = { x: this.#middle.x + off.x / this.#scale, y: this.#middle.y + off.y / this.#scale };
    const content = this.#on.content();
    const fit = Math.min(clientWidth / content.width, clientHeight / content.height);
    this.#scale = within(this.#scale * factor, fit, fit * CLOSEST);
    this.#whole = this.#scale === fit;
    this.#middle = { x: pixel.x - off.x / this.#scale, y: pixel.y - off.y / this.#scale };
    this.layout();
  }

  /** @param {Point} by */
  #pan(by) {
    this.#middle = { x: this.#middle.x - by.x / this.#scale, y: this.#middle.y - by.y / this.#scale };
    this.layout();
  }

  /** @param {{ clientX: number, clientY: number }} event @returns {Point} of the box */
  #at({ clientX, clientY }) {
    const { left, top } = this.#box.getBoundingClientRect();
    return { x: clientX - left - this.#box.clientLeft, y: clientY - top - this.#box.clientTop };
  }

  /** @param {PointerEvent} event */
  #down(event) {
    const { pointerId: id, pointerType, button } = event;
    const at = this.#at(event);
    if (pointerType === 'touch') {
      this.#fingers.set(id, at);
      if (this.#fingers.size === 2) this.#on.gesture();
      if (this.#fingers.size > 1) event.stopPropagation();
    } else if (button === 1 || (button === 0 && this.#space.down)) {
      this.#drag = { id, ...at };
      this.#space.used = true;
      this.#box.setPointerCapture(id);
      event.stopPropagation();
    }
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const at = this.#at(event);
    if (this.#drag?.id === event.pointerId) {
      this.#pan({ x: at.x - this.#drag.x, y: at.y - this.#drag.y });
      this.#drag = { id: event.pointerId, ...at };
      event.stopPropagation();
    }
    if (!this.#fingers.has(event.pointerId)) return;
    const before = span([...this.#fingers.values()]);
    this.#fingers.set(event.pointerId, at);
    const now = span([...this.#fingers.values()]);
    if (this.#fingers.size !== 2) return;
    event.stopPropagation();
    // In this order: of the whole nothing can be moved.
    if (before.apart > 0 && now.apart > 0) this.#zoom(now.apart / before.apart, before);
    this.#pan({ x: now.x - before.x, y: now.y - before.y });
  }

  /** @param {PointerEvent} event */
  #up({ pointerId }) {
    this.#fingers.delete(pointerId);
    if (this.#drag?.id === pointerId) this.#drag = undefined;
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    // Else the page is scrolled, as over everything that one does not work on. A pinch on a touchpad comes with Ctrl.
    if (!event.ctrlKey && !this.#box.contains(document.activeElement)) return;
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 40;
    if (this.#whole && event.deltaY > 0 && !event.ctrlKey) return;
    event.preventDefault();
    this.#zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), this.#at(event));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === ' ') this.#space.down = true;
    else if (event.key === '+' || event.key === '=') this.step(true);
    else if (event.key === '-') this.step(false);
    else if (event.key === '0') this.whole();
    else return;
    event.preventDefault();
  }
}

/** Between two points, and how far they are apart. @param {Point[]} points */
function span([first, second = first]) {
  return {
    x: (first.x + second.x) / 2, y: (first.y + second.y) / 2, apart: Math.hypot(first.x - second.x, first.y - second.y),
  };
}
