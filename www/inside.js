/**
 * What "Look inside" shows of a step: what the network was given and what it takes the picture to be, the noise it
 * guesses and what guidance adds to that, where each word acts, and what each block of it makes. Fetched when the drawer
 * is opened first.
 */
import { showBlocks } from './inside-blocks.js';
import { list, number, t } from './messages/index.js';
import { paintChannels } from './page/latents.js';
import { context2d, duration, make, makeButton, size } from './page/ui.js';
import { longestOf, showActing, showMap, wordsOf } from './page/word-maps.js';

/** @typedef {import('./page/looking.js').Inside} Inside */
/** @typedef {{ width: number, height: number, data: Uint8ClampedArray<ArrayBuffer> }} Picture */

const TILES = /** @type {const} */ (['input', 'x0', 'noise', 'guidance']);

export class Panel {
  #about = make('p', { className: 'hint' });
  #cost = make('p', { className: 'hint', role: 'status' });
  #title = make('h3');
  #tiles = TILES.map((name) => tile(t(`inside.${name}`)));
  #acting = make('canvas', { width: 256, height: 256 });
  #words = make('div', { className: 'maps', role: 'group', ariaLabel: t('inside.words') });
  #wordsPart;
  #blocks = make('ol', { className: 'blocks' });
  #blocksPart;
  #seen = make('div', { className: 'seen', hidden: true });
  /** @type {Inside | undefined} */
  #inside;
  /** The word whose place is shown; without one, the longest. @type {number | undefined} */
  #chosen;

  /** @param {HTMLElement} drawer */
  constructor(drawer) {
    document.head.append(make('link', { rel: 'stylesheet', href: new URL('./inside.css', import.meta.url).href }));
    this.#wordsPart = make('section', {},
      make('h3', { textContent: t('inside.words') }),
      make('p', { className: 'hint', textContent: t('inside.wordsHint') }),
      make('div', { className: 'acting' }, this.#acting, this.#words));
    this.#blocksPart = make('section', {},
      make('h3', { textContent: t('inside.blocks') }),
      make('p', { className: 'hint', textContent: t('inside.blocksHint') }), this.#blocks);
    this.#acting.setAttribute('role', 'img');
    const tiles = make('div', { className: 'tiles' }, ...this.#tiles.map(({ figure }) => figure));
    this.#seen.append(this.#title, tiles, this.#wordsPart, this.#blocksPart);
    this.#about.textContent = t('inside.about');
    drawer.append(this.#about, this.#cost, this.#seen);
  }

  /** @param {Inside | undefined} inside @param {import('./page/looking.js').Times} times */
  show(inside, { looked, plain }) {
    this.#about.textContent = t(inside ? 'inside.about' : 'inside.none');
    this.#seen.hidden = !inside;
    const said = [
      looked !== undefined && t('inside.timed', duration(looked)),
      looked !== undefined && plain !== undefined && t('inside.timedPlain', duration(plain)),
      inside && t('inside.kept', size(bytesOf(inside) * inside.total)),
    ].filter((one) => typeof one === 'string');
    this.#cost.textContent = said.length > 0 ? t('inside.cost', list(said)) : t('inside.costs');
    if (!inside) return;
    if (this.#inside?.attention?.tokens.length !== inside.attention?.tokens.length) this.#chosen = undefined;
    this.#inside = inside;
    this.#title.textContent = t('step.title', inside.step, inside.total);
    this.#showParts(inside);
    this.#showWords(inside);
    this.#blocksPart.hidden = !inside.activations?.length;
    if (inside.activations) showBlocks(this.#blocks, inside.activations);
  }

  /** @param {Inside} inside */
  #showParts({ colours, noise, cond, uncond, channels }) {
    const [input, x0, guess, guidance] = this.#tiles;
    for (const [shown, picture] of /** @type {const} */ ([[input, colours?.input], [x0, colours?.x0]])) {
      shown.figure.hidden = !picture;
      if (picture) showPicture(shown.canvas, picture);
    }
    const sides = colours?.x0;
    guess.figure.hidden = !noise || !sides;
    guidance.figure.hidden = !cond || !uncond || !sides;
    if (!sides) return;
    const { width, height } = sides;
    if (noise) paintChannels(guess.canvas, noise, { channels, width, height, reach: 3 });
    if (!cond || !uncond) return;
    const difference = cond.map((value, i) => value - uncond[i]);
    const length = Math.hypot(...lengths(difference));
    // Small beside the noise: as much of it as can be seen.
    const reach = 3 * (length / Math.sqrt(difference.length)) || 1;
    paintChannels(guidance.canvas, difference, { channels, width, height, reach });
    guidance.caption.textContent =
      t('inside.guidanceLong', length.toFixed(1), Math.hypot(...lengths(uncond)).toFixed(1));
  }

  /** @param {Inside} inside */
  #showWords({ attention, colours, step }) {
    this.#wordsPart.hidden = !attention;
    if (!attention) return;
    const words = wordsOf(attention, (kind) => t(`inside.${kind}`));
    const { width, height } = attention;
    if (this.#words.childElementCount !== words.length) {
      this.#words.replaceChildren(...words.map((_, i) => this.#button(i)));
    }
    const chosen = this.#chosen ??= Math.min(longestOf(attention), words.length - 1);
    for (const [i, button] of [...this.#words.children].entries()) {
      button.setAttribute('aria-pressed', String(i === chosen));
      const [canvas, name, share] = button.children;
      showMap(/** @type {HTMLCanvasElement} */ (canvas), words[i].map, width, height);
      name.textContent = words[i].name;
      share.textContent = t('inside.share', number(Math.round(100 * words[i].share)));
    }
    const picture = make('canvas');
    if (colours) showPicture(picture, colours.x0);
    this.#acting.height = Math.round((this.#acting.width * height) / width);
    showActing(this.#acting, colours && picture, words[chosen].map, { width, height });
    this.#acting.setAttribute('aria-label', t('inside.acting', words[chosen].name, step));
  }

  /** @param {number} i */
  #button(i) {
    const button = makeButton({}, make('canvas'), make('span'), make('small'));
    button.onclick = () => {
      this.#chosen = i;
      if (this.#inside) this.#showWords(this.#inside);
    };
    return button;
  }
}

/** @param {string} words */
function tile(words) {
  const canvas = make('canvas'), caption = make('figcaption', { textContent: words });
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', words);
  return { canvas, caption, figure: make('figure', {}, canvas, caption) };
}

/** @param {HTMLCanvasElement} canvas @param {Picture} picture */
function showPicture(canvas, { width, height, data }) {
  Object.assign(canvas, { width, height });
  context2d(canvas).putImageData(new ImageData(data, width, height), 0, 0);
}

/** Lengths of parts, since a call takes only so many arguments. @param {Float32Array} values */
function lengths(values) {
  const parts = [];
  for (let at = 0; at < values.length; at += 4096) parts.push(Math.hypot(...values.subarray(at, at + 4096)));
  return parts;
}

/** What is kept of a step. @param {unknown} value @returns {number} */
function bytesOf(value) {
  if (ArrayBuffer.isView(value)) return value.byteLength;
  if (!value || typeof value !== 'object') return 0;
  return Object.values(value).reduce((sum, one) => sum + bytesOf(one), 0);
}
