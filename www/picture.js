/** Pictures: what the caller gives as pixels, and what is drawn as a file. */
import { invalid, show } from './errors.js';
import { withText } from './metadata/writing.js';
import { base } from './sources.js';

const TYPES = ['image/png', 'image/jpeg', 'image/webp'];

/** A picture: its pixels, and itself as a file. */
export class GeneratedImage {
  #parameters;

  /** How it was made, as the file carries it. */
  get parameters() {
    return this.#parameters;
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {Uint8ClampedArray<ArrayBuffer>} data RGBA, row by row, alpha 255
   * @param {string} parameters how it was made, written into the file
   */
  constructor(width, height, data, parameters) {
    this.width = width;
    this.height = height;
    this.data = data;
    this.#parameters = parameters;
  }

  /**
   * @param {'image/png' | 'image/jpeg' | 'image/webp'} [type]
   * @returns {Promise<Blob>}
   */
  async toBlob(type = 'image/png') {
    if (!TYPES.includes(type)) throw invalid(`The type must be one of ${TYPES.join(', ')}, not ${show(type)}.`);
    const canvas = new OffscreenCanvas(this.width, this.height);
    const context = canvas.getContext('2d', { colorSpace: 'srgb', willReadFrequently: true });
    context?.putImageData(new ImageData(this.data, this.width, this.height), 0, 0);
    const blob = await canvas.convertToBlob({ type, quality: 0.95 });
    if (blob.type !== type) throw invalid(`This browser cannot write ${type}; use "image/png".`);
    if (!this.#parameters) return blob;
    return new Blob(withText(new Uint8Array(await blob.arrayBuffer()), type, this.#parameters), { type });
  }
}

// ----------------------------------------------------------------------------------------- what is given

/** Kinds of pictures that exist here: in a worker there are no elements. */
function pictureTypes() {
  const { Blob, ImageData, ImageBitmap, HTMLImageElement, HTMLCanvasElement, OffscreenCanvas } =
    /** @type {any} */ (globalThis);
  return [Blob, ImageData, ImageBitmap, HTMLImageElement, HTMLCanvasElement, OffscreenCanvas, GeneratedImage]
    .filter(Boolean);
}

/**
 * What is wrong with a picture that was given, or nothing.
 * @param {unknown} source
 * @returns {string | undefined}
 */
export const imageSource = (source) =>
  (typeof source === 'string' || pictureTypes().some((type) => source instanceof type)
    ? undefined : 'must be a picture: a Blob, ImageData, ImageBitmap, <img>, canvas or an address');

/**
 * A picture's pixels at the size that is drawn. One of another shape is scaled to fill it and cut at both sides alike.
 * @param {any} source
 * @param {string} name the option, for messages
 * @param {{ width?: number, height?: number, background?: string }} [how] sides left out: the picture's own;
 *   background: what transparent parts lie on
 * @returns {Promise<{ width: number, height: number, data: Uint8ClampedArray }>}
 */
export async function pixels(source, name, how = {}) {
  let bitmap;
  try {
    const blob = typeof source === 'string' ? await (await fetch(new URL(source, base()))).blob()
      : source instanceof GeneratedImage ? new ImageData(source.data, source.width, source.height) : source;
    // ImageData that is opaque passes through a canvas unchanged; so do pictures drawn at their own size.
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none' });
  } catch (error) {
    const reason = /** @type {Error} */ (error)?.message ?? error;
    throw invalid(`${name} is not a picture that this browser can read (${reason}).`);
  }
  const { width = bitmap.width, height = bitmap.height, background = 'white' } = how;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [wide, high] = [bitmap.width * scale, bitmap.height * scale];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (!context) throw invalid(`${name} could not be drawn; this browser lends no canvas.`);
  context.fillStyle = background;
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
  bitmap.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}
