/** The text of a picture, written into its file: a PNG's chunk, and Exif's user comment in JPEG and WebP. */

/**
 * The file with its text.
 * @param {Uint8Array<ArrayBuffer>} file as the browser encoded it
 * @param {string} type
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>[]} one after another
 */
export function withText(file, type, text) {
  if (type === 'image/jpeg') return jpegWithText(file, text);
  if (type === 'image/webp') return webpWithText(file, text);
  // The header chunk always comes first and ends at byte 33; text may stand anywhere after it.
  return [file.subarray(0, 33), textChunk('parameters', text), file.subarray(33)];
}

/** @param {string} text a character each byte */
const bytesOf = (text) => Uint8Array.from(text, (character) => character.charCodeAt(0));

/**
 * A PNG text chunk: tEXt, or iTXt where the text is not Latin-1, as Pillow and so AUTOMATIC1111 do.
 * @param {string} keyword
 * @param {string} value
 */
function textChunk(keyword, value) {
  const latin1 = /^[\u0001-\u00ff]*$/.test(value);
  const content = latin1
    ? bytesOf(`${keyword}\0${value}`)
    // keyword, NUL, not compressed (two bytes), no language, no translated keyword, text in UTF-8
    : new TextEncoder().encode(`${keyword}\0\0\0\0\0${value}`);
  const chunk = new Uint8Array(content.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, content.length);
  chunk.set(bytesOf(latin1 ? 'tEXt' : 'iTXt'), 4);
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
 * Exif with nothing but a user comment, in UTF-16 of the file's byte order, as piexif and so A1111 write it.
 * @param {string} text
 */
function exifOf(text) {
  // Header (8), a directory of one entry that points to the other (18), that one (18), the comment.
  const comment = 44;
  const length = 8 + text.length * 2;
  const exif = new Uint8Array(comment + length);
  const view = new DataView(exif.buffer);
  exif.set(bytesOf('MM\0*'));
  view.setUint32(4, 8);
  /** @param {number} at @param {number[]} entry tag, type, count, value */
  const directory = (at, [tag, type, count, value]) => {
    view.setUint16(at, 1);
    view.setUint16(at + 2, tag);
    view.setUint16(at + 4, type);
    view.setUint32(at + 6, count);
    view.setUint32(at + 10, value);
  };
  directory(8, [0x8769, 4, 1, 26]);
  directory(26, [0x9286, 7, length, comment]);
  exif.set(bytesOf('UNICODE\0'), comment);
  for (let i = 0; i < text.length; i++) view.setUint16(comment + 8 + 2 * i, text.charCodeAt(i));
  return exif;
}

/** What a JPEG's segment can hold. */
const LONGEST_SEGMENT = 65_533;

/** @param {Uint8Array<ArrayBuffer>} jpeg @param {string} text */
function jpegWithText(jpeg, text) {
  const exif = exifOf(text);
  const length = 2 + 6 + exif.length;
  // A segment has no room for a text of more than 32 thousand characters: the picture goes without.
  if (length > LONGEST_SEGMENT) return [jpeg];
  const head = Uint8Array.of(0xff, 0xe1, length >> 8, length & 255, ...bytesOf('Exif\0\0'));
  return [jpeg.subarray(0, 2), head, exif, jpeg.subarray(2)];
}

/** Flags of VP8X (WebP container specification): Exif follows; there is alpha. */
const HAS_EXIF = 8, HAS_ALPHA = 16;

/** @param {Uint8Array<ArrayBuffer>} webp @param {string} text */
function webpWithText(webp, text) {
  const chunks = webpChunks(webp);
  const extended = chunks.find(({ type }) => type === 'VP8X');
  const head = extended ? Uint8Array.from(extended.bytes) : extendedHeader(chunks[0]);
  head[8] |= HAS_EXIF;
  const others = chunks.filter(({ type }) => !['VP8X', 'EXIF'].includes(type)).map(({ bytes }) => bytes);
  const parts = [head, ...others, riffChunk('EXIF', exifOf(text))];
  const size = 4 + parts.reduce((sum, { length }) => sum + length, 0);
  const file = new Uint8Array(12);
  file.set(bytesOf('RIFF'));
  new DataView(file.buffer).setUint32(4, size, true);
  file.set(bytesOf('WEBP'), 8);
  return [file, ...parts];
}

/** @param {Uint8Array<ArrayBuffer>} webp */
function webpChunks(webp) {
  const view = new DataView(webp.buffer, webp.byteOffset, webp.byteLength);
  const chunks = [];
  for (let at = 12; at + 8 <= webp.length;) {
    const size = view.getUint32(at + 4, true);
    const end = at + 8 + size + (size & 1);
    chunks.push({ type: String.fromCharCode(...webp.subarray(at, at + 4)), bytes: webp.subarray(at, end) });
    at = end;
  }
  return chunks;
}

/** The header that a simple file lacks. @param {{ type: string, bytes: Uint8Array }} picture its one chunk */
function extendedHeader({ type, bytes }) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // VP8L: a signature byte, then 14 bits of width - 1, 14 of height - 1, alpha; VP8: 14 bits each behind its start code.
  const bits = type === 'VP8L' ? view.getUint32(9, true) : 0;
  const [width, height] = type === 'VP8L' ? [(bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1]
    : [view.getUint16(14, true) & 0x3fff, view.getUint16(16, true) & 0x3fff];
  const content = new Uint8Array(10);
  if (bits & (1 << 28)) content[0] = HAS_ALPHA;
  for (let byte = 0; byte < 3; byte++) {
    content[4 + byte] = (width - 1) >> (8 * byte);
    content[7 + byte] = (height - 1) >> (8 * byte);
  }
  return riffChunk('VP8X', content);
}

/** @param {string} type @param {Uint8Array} content */
function riffChunk(type, content) {
  const chunk = new Uint8Array(8 + content.length + (content.length & 1));
  chunk.set(bytesOf(type));
  new DataView(chunk.buffer).setUint32(4, content.length, true);
  chunk.set(content, 8);
  return chunk;
}
