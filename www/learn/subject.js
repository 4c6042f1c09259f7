/** What the chapters play with: the visitor's last words and last picture, or an example, or what is chosen here. */
import { PageError } from '../page/page-error.js';
import { fileOf, listPictures } from '../page/pictures.js';
import { kept } from '../page/prompts.js';
import { asRead } from '../page/read-as.js';
import { any, context2d, element, errorWords, input, make } from '../page/ui.js';
import { t } from './say.js';

/** The side of the pictures that the small model learnt, in pixels. */
export const SIDE = 128;
const EMBEDDED = 'embedded';

export class Subject extends EventTarget {
  #prompt = input('prompt');
  #canvas = element('subject', HTMLCanvasElement);
  #error = any('subject-error');
  /** @type {ImageData} */
  picture = new ImageData(SIDE, SIDE);

  constructor() {
    super();
    this.#prompt.addEventListener('change', () => this.#changed());
    const file = input('picture');
    file.addEventListener('change', () => {
      const [chosen] = file.files ?? [];
      if (chosen) this.choose(chosen);
    });
  }

  /** As it stands in the field. */
  get words() {
    return this.#prompt.value.trim();
  }

  /** As the small model is to read it. */
  read() {
    return asRead(this.words, EMBEDDED);
  }

  /** Takes the last words and the last picture of the drawing page. @param {string} [words] other words, of a link */
  async start(words) {
    const [last] = kept();
    if (words ?? last?.prompt) this.#prompt.value = words ?? last.prompt;
    const picture = await lastPicture().catch(() => undefined) ?? await example().catch(() => undefined);
    if (picture) this.#take(picture);
  }

  /** Other words, of a link. @param {string} words */
  say(words) {
    if (words === this.words) return;
    this.#prompt.value = words;
    this.#changed();
  }

  /** Another picture. @param {Blob} file */
  async choose(file) {
    this.#error.hidden = true;
    try {
      this.#take(await createImageBitmap(file));
    } catch {
      this.#error.replaceChildren(...errorWords(new PageError('invalid-option', t('subject.noPicture'))));
      this.#error.hidden = false;
      return;
    }
    this.#changed();
  }

  /** Scaled to fill the square, its middle. @param {ImageBitmap} image */
  #take(image) {
    const context = context2d(this.#canvas);
    const scale = SIDE / Math.min(image.width, image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    context.fillStyle = '#fff';
    context.fillRect(0, 0, SIDE, SIDE);
    context.imageSmoothingQuality = 'high';
    context.drawImage(image, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    this.picture = context.getImageData(0, 0, SIDE, SIDE);
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}

async function lastPicture() {
  // A database may take its time, or never answer: then the example is there.
  const late = new Promise((resolve) => setTimeout(resolve, 1000, []));
  const [newest] = /** @type {import('../page/pictures.js').Picture[]} */ (await Promise.race([listPictures(), late]));
  const file = newest && await fileOf(newest.id);
  return file && createImageBitmap(file);
}

/** The last picture of the example strip. */
async function example() {
  const told = await (await fetch(new URL('../example/example.json', import.meta.url))).json();
  const sheet = await (await fetch(new URL('../example/steps.webp', import.meta.url))).blob();
  const { width, height, steps } = told;
  return createImageBitmap(sheet, steps.length * width, 0, width, height);
}

/** A mask of the middle, white where it is painted anew. */
export function middle() {
  const canvas = make('canvas', { width: SIDE, height: SIDE });
  const context = context2d(canvas);
  context.fillRect(0, 0, SIDE, SIDE);
  context.fillStyle = '#fff';
  context.beginPath();
  context.arc(SIDE / 2, SIDE / 2, SIDE * 0.38, 0, 2 * Math.PI);
  context.fill();
  return canvas;
}
