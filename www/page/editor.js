/**
 * A picture to start from, and a brush that says where it shall change. By mouse, pen, finger or keyboard.
 */

/** @typedef {{ width: number, height: number }} Size */
/** @typedef {{ x: number, y: number }} Point */

/** So many strokes can be taken back; each holds a sheet of the picture's size. */
const UNDONE = 12;

export class PictureEditor {
  /** @type {ImageBitmap | undefined} */ #picture;
  /** White where it shall change. */
  #mask = new OffscreenCanvas(1, 1);
  #canvas;
  #size;
  /** The paint as it was before each stroke, and what was taken back; the last one last. @type {OffscreenCanvas[]} */
  #before = [];
  /** @type {OffscreenCanvas[]} */
  #after = [];
  /** Where the keyboard's brush stands, in pixels of the picture. */
  #cursor = { x: 0, y: 0 };
  #focused = false;
  /**
   * The pointer that paints: where it is, and what could be taken back before it came.
   * @type {{ id: number, at: Point, before: OffscreenCanvas[], after: OffscreenCanvas[] } | undefined}
   */
  #pen;
  /** Space is held: it paints when it is let go, since with it one may also drag what is seen. */
  #space = false;
  /** Brush width in hundredths of the picture's shorter side. */
  brush = 12;
  erasing = false;
  /** Of the paint over the picture. */
  opacity = 0.6;
  /** Called after each stroke. */
  onChange = () => {};
  /** Called when the keyboard has moved its brush. */
  onCursor = () => {};

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => Size} size what is drawn: the picture is scaled to fill it and cut at both sides alike, as `generate`
   *   does
   */
  constructor(canvas, size) {
    this.#canvas = canvas;
    this.#size = size;
    /** @param {PointerEvent} event */
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      return { x: x * canvas.width, y: y * canvas.height };
    };
    canvas.addEventListener('pointerdown', (event) => {
      if (this.#pen || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      const at = place(event);
      this.#pen = { id: event.pointerId, at, before: this.#before, after: this.#after };
      this.#remember();
      this.#stroke(at, at);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (this.#pen?.id !== event.pointerId) return;
      const to = place(event);
      this.#stroke(this.#pen.at, to);
      this.#pen.at = to;
    });
    for (const end of /** @type {const} */ (['pointerup', 'pointercancel'])) {
      canvas.addEventListener(end, (event) => {
        if (this.#pen?.id !== event.pointerId) return;
        this.#pen = undefined;
        this.onChange();
      });
    }
    canvas.addEventListener('focus', () => this.#focus(canvas.matches(':focus-visible')));
    canvas.addEventListener('blur', () => this.#focus(false));
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('keyup', ({ key }) => {
      if (key !== ' ' || !this.#space) return;
      this.#space = false;
      this.#dot(false);
    });
  }

  /** Something is painted. */
  get painted() {
    const { data } = mask2d(this.#mask).getImageData(0, 0, this.#mask.width, this.#mask.height);
    return data.some((value, i) => i % 4 === 3 && value > 127);
  }

  get picture() {
    return this.#picture;
  }

  /**
   * White on black, of the picture's size as it is drawn; nothing where nothing is painted.
   * @returns {ImageData | undefined}
   */
  get mask() {
    if (!this.#picture || !this.painted) return undefined;
    const canvas = new OffscreenCanvas(this.#mask.width, this.#mask.height);
    const context = mask2d(canvas);
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.#mask, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  /**
   * @param {ImageBitmapSource | undefined} source nothing takes the picture away
   */
  async open(source) {
    const before = this.#picture;
    this.#picture = source && await createImageBitmap(source, { colorSpaceConversion: 'none' });
    before?.close();
    this.#before = [];
    this.#after = [];
    this.#wipe();
    this.#cursor = { x: this.#canvas.width / 2, y: this.#canvas.height / 2 };
  }

  /** Takes the paint away. */
  clear() {
    this.#remember();
    this.#wipe();
  }

  get canUndo() {
    return this.#before.length > 0;
  }

  get canRedo() {
    return this.#after.length > 0;
  }

  /** Takes back what a pointer is painting: it did not mean to. */
  cancel() {
    const before = this.#pen && this.#before.at(-1);
    if (!this.#pen || !before) return;
    this.#mask = before;
    this.#before = this.#pen.before;
    this.#after = this.#pen.after;
    this.#pen = undefined;
    this.#show();
    this.onChange();
  }

  /** Where the keyboard's brush is, while the keyboard is at work here. @returns {Point | undefined} */
  get cursor() {
    return this.#focused ? this.#cursor : undefined;
  }

  /** Takes the last stroke back. */
  undo() {
    this.#swap(this.#before, this.#after);
  }

  /** Paints again what was taken back. */
  redo() {
    this.#swap(this.#after, this.#before);
  }

  /** @param {OffscreenCanvas[]} from @param {OffscreenCanvas[]} to */
  #swap(from, to) {
    const mask = from.pop();
    if (!mask) return;
    to.push(this.#mask);
    this.#mask = mask;
    this.resize(); // another size may be drawn by now
    this.#show();
    this.onChange();
  }

  /** Something is about to be painted. */
  #remember() {
    const { width, height } = this.#mask;
    const copy = new OffscreenCanvas(width, height);
    mask2d(copy).drawImage(this.#mask, 0, 0);
    this.#before = [...this.#before, copy].slice(-UNDONE);
    this.#after = [];
  }

  #wipe() {
    const { width, height } = this.#size();
    this.#mask = new OffscreenCanvas(width, height);
    this.#show();
    this.onChange();
  }

  /** Paints where a picture is bright, in place of what was painted. @param {ImageData} image */
  paintBy(image) {
    const { width, height, data } = image;
    const paint = new ImageData(width, height);
    for (let i = 0; i < data.length; i += 4) {
      // How bright a colour is, as Rec. 709 weighs it.
      const bright = 0.2126 * data[i] + 0.7152 * data[i + 1] + 0.0722 * data[i + 2];
      paint.data.set([255, 255, 255, bright], i);
    }
    const whole = new OffscreenCanvas(width, height);
    mask2d(whole).putImageData(paint, 0, 0);
    this.clear();
    mask2d(this.#mask).drawImage(whole, 0, 0, this.#mask.width, this.#mask.height);
    this.#show();
    this.onChange();
  }

  /** Follows a change of the size that is drawn; paint is scaled along. */
  resize() {
    const { width, height } = this.#size();
    if (!this.#picture || (width === this.#mask.width && height === this.#mask.height)) return;
    const before = this.#mask;
    this.#mask = new OffscreenCanvas(width, height);
    mask2d(this.#mask).drawImage(before, 0, 0, width, height);
    this.#show();
  }

  /** @param {Point} from @param {Point} to */
  #stroke(from, to) {
    const context = mask2d(this.#mask);
    context.globalCompositeOperation = this.erasing ? 'destination-out' : 'source-over';
    context.strokeStyle = 'white';
    context.lineCap = 'round';
    context.lineWidth = this.#brushWidth();
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    // A line of no length leaves no trace: a dot is a disc.
    context.fillStyle = 'white';
    context.beginPath();
    context.arc(to.x, to.y, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    this.#show();
  }

  #brushWidth() {
    return Math.max(1, (Math.min(this.#mask.width, this.#mask.height) * this.brush) / 100);
  }

  /** @param {boolean} focused */
  #focus(focused) {
    this.#focused = focused;
    this.#show();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z') {
      event.preventDefault();
      if (event.shiftKey) this.redo();
      else this.undo();
      return;
    }
    const pace = this.#brushWidth() / 2;
    const ways = { ArrowLeft: [-pace, 0], ArrowRight: [pace, 0], ArrowUp: [0, -pace], ArrowDown: [0, pace] };
    const way = /** @type {Record<string, number[]>} */ (ways)[event.key];
    const erases = event.key === 'Backspace' || event.key === 'Delete';
    if (event.key === ' ') this.#space = true;
    else if (!way && !erases) return;
    event.preventDefault();
    this.#focused = true;
    if (erases && !event.repeat) this.#dot(true);
    if (!way) return;
    const from = this.#cursor;
    /** @param {number} v @param {number} most */ const within = (v, most) => Math.min(most, Math.max(0, v));
    this.#cursor = { x: within(from.x + way[0], this.#mask.width), y: within(from.y + way[1], this.#mask.height) };
    if (event.shiftKey) {
      if (!event.repeat) this.#remember();
      this.#stroke(from, this.#cursor);
      this.onChange();
    } else {
      this.#show();
    }
    this.onCursor();
  }

  /** By keyboard, where its brush is. @param {boolean} erases whatever the brush does else */
  #dot(erases) {
    const before = this.erasing;
    this.erasing = erases;
    this.#remember();
    this.#stroke(this.#cursor, this.#cursor);
    this.erasing = before;
    this.onChange();
  }

  #show() {
    const { width, height } = this.#mask;
    const { width: before, height: high } = this.#canvas;
    if (before !== width || high !== height) Object.assign(this.#canvas, { width, height });
    const context = this.#canvas.getContext('2d');
    if (!context) return;
    context.clearRect(0, 0, width, height);
    if (this.#picture) {
      const scale = Math.max(width / this.#picture.width, height / this.#picture.height);
      const [w, h] = [this.#picture.width * scale, this.#picture.height * scale];
      context.drawImage(this.#picture, (width - w) / 2, (height - h) / 2, w, h);
    }
    context.globalAlpha = this.opacity;
    const tinted = new OffscreenCanvas(width, height);
    const tint = mask2d(tinted);
    tint.drawImage(this.#mask, 0, 0);
    tint.globalCompositeOperation = 'source-in';
    tint.fillStyle = getComputedStyle(this.#canvas).getPropertyValue('--accent') || 'teal';
    tint.fillRect(0, 0, width, height);
    // With stripes of white: the accent alone is not seen on a picture of its colour.
    const pace = Math.max(6, Math.min(width, height) / 24);
    tint.globalCompositeOperation = 'source-atop';
    tint.strokeStyle = 'white';
    tint.lineWidth = pace / 4;
    for (let x = -height; x < width; x += pace) {
      tint.moveTo(x, height);
      tint.lineTo(x + height, 0);
    }
    tint.stroke();
    context.drawImage(tinted, 0, 0);
    context.globalAlpha = 1;
    if (this.#focused) {
      for (const [colour, radius] of /** @type {const} */ ([['black', 0], ['white', 1]])) {
        context.strokeStyle = colour;
        context.beginPath();
        context.arc(this.#cursor.x, this.#cursor.y, Math.max(1, this.#brushWidth() / 2 - radius), 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
}

/** @param {OffscreenCanvas} canvas */
function mask2d(canvas) {
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (!context) throw new Error('This browser gives no 2D canvas.');
  return context;
}
