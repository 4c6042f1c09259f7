/** Pictures: what the caller gives as pixels, what is drawn as a file, and the text in a PNG. */
import { invalid, show } from './errors.js';
import { base } from './sources.js';

const TYPES = ['image/png', 'image/jpeg', 'image/webp'];

/** A picture: its pixels, and itself as a file. */
export class GeneratedImage {
  #parameters;

  /** How it was made, as the PNG carries it. */
  get parameters() {
    return this.#parameters;
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {Uint8ClampedArray<ArrayBuffer>} data RGBA, row by row, alpha 255
   * @param {string} parameters how it was made, written into the PNG
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
    if (type !== 'image/png' || !this.#parameters) return blob;
    const png = new Uint8Array(await blob.arrayBuffer());
    // The header chunk always comes first and ends at byte 33; text may stand anywhere after it.
    return new Blob([png.subarray(0, 33), textChunk('parameters', this.#parameters), png.subarray(33)], { type });
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

// ----------------------------------------------------------- the text in a PNG (PNG specification, 11.3.3)

/**
 * A PNG text chunk: tEXt, or iTXt where the text is not Latin-1, as Pillow and so AUTOMATIC1111 do.
 * @param {string} keyword
 * @param {string} value
 */
function textChunk(keyword, value) {
  const latin1 = /^[\u0001-\u00ff]*$/.test(value);
  const content = latin1
    ? Uint8Array.from(`${keyword}\0${value}`, (c) => c.charCodeAt(0))
    // keyword, NUL, not compressed (two bytes), no language, no translated keyword, text in UTF-8
    : new TextEncoder().encode(`${keyword}\0\0\0\0\0${value}`);
  const chunk = new Uint8Array(content.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, content.length);
  chunk.set(new TextEncoder().encode(latin1 ? 'tEXt' : 'iTXt'), 4);
  chunk.set(content, 8);
  view.setUint32(8 + content.length, crc32(chunk.subarray(4, 8 + content.length)));
  return chunk;
}

/**
 * CRC-32 as PNG wants it (ISO 3309, reflected polynomial 0xEDB88320).
 * @param {Uint8Array} bytes
 */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/**
 * The text called `parameters` in a PNG.
 * @param {Uint8Array<ArrayBuffer>} png
 * @returns {Promise<string | undefined>} nothing where it has none, or is no PNG
 */
export async function parametersIn(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  if (png.length < 8 || view.getUint32(0) !== 0x89504e47 || view.getUint32(4) !== 0x0d0a1a0a) return undefined;
  for (let at = 8; at + 12 <= png.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > png.length) return undefined;
    const type = latin1(png.subarray(at + 4, at + 8));
    const content = png.subarray(at + 8, at + 8 + length);
    const nul = content.indexOf(0);
    if (['tEXt', 'zTXt', 'iTXt'].includes(type) && latin1(content.subarray(0, nul)) === 'parameters') {
      const rest = content.subarray(nul + 1);
      if (type === 'tEXt') return latin1(rest);
      if (type === 'zTXt') return latin1(await inflate(rest.subarray(1)));
      // iTXt: compressed or not, how, language, translated keyword, text in UTF-8
      const translated = rest.indexOf(0, 2) + 1;
      const text = rest.subarray(rest.indexOf(0, translated) + 1);
      return new TextDecoder().decode(rest[0] === 1 ? await inflate(text) : text);
    }
    at += 12 + length;
  }
  return undefined;
}

/** @param {Uint8Array} bytes */
const latin1 = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');

/** More than any prompt: what claims to be larger is no text of a person's. */
const MOST_TEXT = 1 << 20;

/** @param {Uint8Array<ArrayBuffer>} bytes zlib's */
async function inflate(bytes) {
  const parts = [];
  let size = 0;
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  for (let part = await reader.read(); !part.done && size < MOST_TEXT; part = await reader.read()) {
    parts.push(part.value);
    size += part.value.length;
  }
  await reader.cancel();
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
