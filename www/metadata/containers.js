/**
 * The texts in a picture's file, by keyword: a PNG's chunks (PNG specification, 11.3.3), and what Exif has in PNG, JPEG,
 * WebP and AVIF: "UserComment", "ImageDescription", "Make", "Model". Nothing is decoded but these.
 */
import { invalid } from '../errors.js';

/** @typedef {Map<string, string>} Texts */

/** Bytes: more than any text of a picture; what claims to be larger is not read. */
const MOST_TEXT = 1 << 24;

/**
 * @param {Uint8Array<ArrayBuffer>} file
 * @returns {Promise<Texts>} empty where there are none, or it is no picture
 * @throws {import('../errors.js').DiffusionError} where a text is damaged
 */
export async function textsIn(file) {
  /** @type {Texts} */
  const texts = new Map();
  if (starts(file, 0, '\x89PNG\r\n\x1a\n')) await readPng(file, texts);
  else if (starts(file, 0, '\xff\xd8')) readJpeg(file, texts);
  else if (starts(file, 0, 'RIFF') && starts(file, 8, 'WEBP')) readWebp(file, texts);
  else if (starts(file, 4, 'ftyp')) readAvif(file, texts);
  return texts;
}

/** @param {Uint8Array} bytes */
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** @param {Uint8Array} bytes @param {number} at @param {string} word */
function starts(bytes, at, word) {
  for (let i = 0; i < word.length; i++) if (bytes[at + i] !== word.charCodeAt(i)) return false;
  return true;
}

/** @param {string} where */
const damaged = (where) =>
  invalid(`The text in this picture is damaged (${where}). Take the file from where it came from once more, or use ` +
    'another.');

// --------------------------------------------------------------------------------------------------- PNG

/** @param {Uint8Array<ArrayBuffer>} png @param {Texts} texts */
async function readPng(png, texts) {
  const view = viewOf(png);
  for (let at = 8; at + 12 <= png.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > png.length) return;
    const type = latin1(png.subarray(at + 4, at + 8));
    const content = png.subarray(at + 8, at + 8 + length);
    if (type === 'eXIf') readExif(content, texts);
    else if (['tEXt', 'zTXt', 'iTXt'].includes(type)) {
      const nul = content.indexOf(0);
      if (nul < 0 || nul > 79) throw damaged(`${type} without a keyword`);
      const keyword = latin1(content.subarray(0, nul));
      // The first of a name counts, as it does for every reader of A1111's.
      if (!texts.has(keyword)) texts.set(keyword, await pngText(type, content.subarray(nul + 1), keyword));
    }
    at += 12 + length;
  }
}

/** @param {string} type @param {Uint8Array<ArrayBuffer>} content behind the keyword @param {string} keyword */
async function pngText(type, content, keyword) {
  if (type === 'tEXt') return narrow(content);
  if (type === 'zTXt') return narrow(await inflate(content.subarray(1), keyword));
  // iTXt: compressed or not, how, language, translated keyword, text in UTF-8
  const language = content.indexOf(0, 2);
  const translated = language < 0 ? -1 : content.indexOf(0, language + 1);
  if (translated < 0) throw damaged(`iTXt "${keyword}" has no text`);
  const text = content.subarray(translated + 1);
  return decoded('utf-8', content[0] === 1 ? await inflate(text, keyword) : text);
}

/** @param {string} encoding @param {Uint8Array} bytes */
const decoded = (encoding, bytes) => new TextDecoder(encoding).decode(bytes.subarray(0, MOST_TEXT));

/** One byte a character. @param {Uint8Array} bytes */
function latin1(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return text;
}

/** Text of a chunk that is to be Latin-1: many programs write UTF-8 there, which Latin-1 is hardly ever by chance. */
function narrow(/** @type {Uint8Array} */ bytes) {
  const text = bytes.subarray(0, MOST_TEXT);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(text);
  } catch {
    return latin1(text);
  }
}

/** @param {Uint8Array<ArrayBuffer>} bytes zlib's @param {string} keyword */
async function inflate(bytes, keyword) {
  const parts = [];
  let size = 0;
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  try {
    for (let part = await reader.read(); !part.done && size < MOST_TEXT; part = await reader.read()) {
      parts.push(part.value);
      size += part.value.length;
    }
  } catch {
    throw damaged(`"${keyword}" does not unpack`);
  }
  await reader.cancel();
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// -------------------------------------------------------------------------------------- JPEG, WebP, AVIF

/** @param {Uint8Array} jpeg @param {Texts} texts */
function readJpeg(jpeg, texts) {
  const view = viewOf(jpeg);
  for (let at = 2; at + 4 <= jpeg.length && jpeg[at] === 0xff;) {
    const marker = jpeg[at + 1];
    // Fill bytes; then the picture itself begins.
    if (marker === 0xff) { at++; continue; }
    if (marker === 0xda) return;
    const end = at + 2 + view.getUint16(at + 2);
    const content = jpeg.subarray(at + 4, end);
    if (end > jpeg.length || end < at + 4) return;
    if (marker === 0xe1 && starts(content, 0, 'Exif\0\0')) readExif(content.subarray(6), texts);
    if (marker === 0xfe) texts.set('Comment', narrow(content).replace(/\0+$/, ''));
    at = end;
  }
}

/** @param {Uint8Array} webp @param {Texts} texts */
function readWebp(webp, texts) {
  const view = viewOf(webp);
  for (let at = 12; at + 8 <= webp.length;) {
    const end = at + 8 + view.getUint32(at + 4, true);
    if (end > webp.length) return;
    if (starts(webp, at, 'EXIF')) readExif(webp.subarray(at + 8, end), texts);
    at = end + (end & 1);
  }
}

/**
 * The boxes of an ISO file between two places: type, and where the content begins and ends.
 * @param {Uint8Array} file
 * @param {number} at
 * @param {number} end
 */
function boxes(file, at, end) {
  const view = viewOf(file);
  /** @type {{ type: string, from: number, to: number }[]} */
  const found = [];
  while (at + 8 <= end) {
    let size = view.getUint32(at), head = 8;
    if (size === 1 && at + 16 <= end) [size, head] = [Number(view.getBigUint64(at + 8)), 16];
    if (size === 0) size = end - at;
    if (size < head || at + size > end) break;
    found.push({ type: latin1(file.subarray(at + 4, at + 8)), from: at + head, to: at + size });
    at += size;
  }
  return found;
}

/** An AVIF's item of type "Exif": meta, in it iinf (which item) and iloc (where); ISO 14496-12, 8.11. */
function readAvif(/** @type {Uint8Array} */ avif, /** @type {Texts} */ texts) {
  const meta = boxes(avif, 0, avif.length).find(({ type }) => type === 'meta');
  if (!meta) return;
  const within = boxes(avif, meta.from + 4, meta.to);
  const [information, locations] = ['iinf', 'iloc'].map((name) => within.find(({ type }) => type === name));
  if (!information || !locations) return;
  const view = viewOf(avif);
  try {
    const wide = avif[information.from] > 0;
    const entries = boxes(avif, information.from + (wide ? 8 : 6), information.to);
    const entry = entries.find(({ type, from }) => type === 'infe' &&
      starts(avif, from + (avif[from] > 2 ? 10 : 8), 'Exif'));
    if (!entry) return;
    const id = avif[entry.from] > 2 ? view.getUint32(entry.from + 4) : view.getUint16(entry.from + 4);
    const place = itemAt(avif.subarray(locations.from, locations.to), id);
    if (!place) return;
    const item = avif.subarray(place.from, place.from + place.length);
    // Its first four bytes say how far behind them the TIFF header lies.
    readExif(item.subarray(4 + viewOf(item).getUint32(0)), texts);
  } catch (error) {
    if (error instanceof RangeError) throw damaged('the list of an AVIF\'s items');
    throw error;
  }
}

/**
 * Where an item lies, by the content of iloc.
 * @param {Uint8Array} iloc
 * @param {number} wanted
 */
function itemAt(iloc, wanted) {
  const view = viewOf(iloc);
  const version = iloc[0];
  const [sizeOfOffset, sizeOfLength] = [iloc[4] >> 4, iloc[4] & 15];
  const [sizeOfBase, sizeOfIndex] = [iloc[5] >> 4, version > 0 ? iloc[5] & 15 : 0];
  let at = 6;
  /** @param {number} size 0, 2, 4 or 8 */
  const take = (size) => {
    at += size;
    if (size === 0) return 0;
    if (size === 8) return Number(view.getBigUint64(at - 8));
    return size === 4 ? view.getUint32(at - 4) : view.getUint16(at - 2);
  };
  const wide = version > 1 ? 4 : 2;
  for (let count = take(wide); count > 0; count--) {
    const id = take(wide);
    const method = version > 0 ? take(2) & 15 : 0;
    take(2);
    const base = take(sizeOfBase);
    const extents = Array.from({ length: take(2) }, () => {
      take(sizeOfIndex);
      return { from: base + take(sizeOfOffset), length: take(sizeOfLength) };
    });
    if (id === wanted) return method === 0 ? extents[0] : undefined;
  }
  return undefined;
}

// -------------------------------------------------------------------------------------------------- Exif

/** Tags that hold text (Exif 2.32), and that of the directory with the user's comment. */
const TAGS = new Map([[0x010e, 'ImageDescription'], [0x010f, 'Make'], [0x0110, 'Model'], [0x9286, 'UserComment']]);
const EXIF_DIRECTORY = 0x8769;

/** @param {Uint8Array} exif from the TIFF header on, or with "Exif" before it @param {Texts} texts */
function readExif(exif, texts) {
  const tiff = starts(exif, 0, 'Exif\0\0') ? exif.subarray(6) : exif;
  const little = starts(tiff, 0, 'II*\0');
  if (!little && !starts(tiff, 0, 'MM\0*')) return;
  const view = viewOf(tiff);
  /** @param {number} at @param {boolean} [outer] */
  const readDirectory = (at, outer = true) => {
    for (let count = view.getUint16(at, little), entry = at + 2; count > 0; count--, entry += 12) {
      const tag = view.getUint16(entry, little);
      const length = view.getUint32(entry + 4, little);
      // What has up to four bytes stands in the entry itself.
      const from = length > 4 ? view.getUint32(entry + 8, little) : entry + 8;
      const name = TAGS.get(tag);
      if (tag === EXIF_DIRECTORY && outer) readDirectory(view.getUint32(entry + 8, little), false);
      if (!name || texts.has(name)) continue;
      if (from + length > tiff.length) throw damaged(`Exif's ${name} is cut off`);
      const content = tiff.subarray(from, from + length);
      texts.set(name, name === 'UserComment' ? userComment(content, little) : narrow(content).replace(/\0+$/, ''));
    }
  };
  try {
    readDirectory(view.getUint32(4, little));
  } catch (error) {
    if (error instanceof RangeError) throw damaged('Exif is cut off');
    throw error;
  }
}

/** The text behind the eight bytes that say how it is written. @param {Uint8Array} content @param {boolean} little */
function userComment(content, little) {
  const text = content.subarray(8);
  const code = latin1(content.subarray(0, 8)).replace(/\0+$/, '');
  const read = code === 'UNICODE' ? decoded(sixteen(text, little), text)
    : code === 'JIS' ? decoded('iso-2022-jp', text)
      : narrow(code === 'ASCII' || code === '' ? text : content);
  return read.replace(/\0+$/, '');
}

/**
 * The byte order of UTF-16: that of a mark; else programs take the file's or the other, and nearly every text has more
 * characters of Latin than of others.
 * @param {Uint8Array} text
 * @param {boolean} little the file's
 */
function sixteen(text, little) {
  if (starts(text, 0, '\xff\xfe')) return 'utf-16le';
  if (starts(text, 0, '\xfe\xff')) return 'utf-16be';
  let [even, odd] = [0, 0];
  for (let at = 0; at + 1 < Math.min(text.length, 4096); at += 2) {
    if (text[at] === 0) even++;
    if (text[at + 1] === 0) odd++;
  }
  if (even === odd) return little ? 'utf-16le' : 'utf-16be';
  return even > odd ? 'utf-16be' : 'utf-16le';
}
