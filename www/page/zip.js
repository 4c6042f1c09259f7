/**
 * Files in one zip archive, as they are: PNGs do not get smaller. The format is PKWARE's APPNOTE 6.3, sections 4.3.7 to
 * 4.3.16: for each file a local header and the bytes, then a directory of all headers, then its end.
 */

const VERSION = 20;
/** Names are UTF-8. */
const FLAGS = 1 << 11;
/** More does not fit into its 32 and 16 bits. */
const MOST = { bytes: 2 ** 32 - 1, files: 2 ** 16 - 1 };

const CRCS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** @param {Uint8Array} bytes */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRCS[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

/** Little-endian: sizes in bytes and values. @param {[2 | 4, number][]} fields */
function record(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return new Uint8Array(view.buffer);
}

/** As MS-DOS writes it. @param {number} time in milliseconds @returns {[2, number][]} time and date */
function dos(time) {
  const when = new Date(time);
  const [year, month, day] = [when.getFullYear() - 1980, when.getMonth() + 1, when.getDate()];
  const [hours, minutes, seconds] = [when.getHours(), when.getMinutes(), when.getSeconds()];
  return [[2, (hours << 11) | (minutes << 5) | (seconds >> 1)], [2, (year << 9) | (month << 5) | day]];
}

/**
 * One file is in memory at a time.
 * @param {AsyncIterable<{ name: string, time: number, file: Blob }>} files names differ
 * @returns {Promise<Blob | undefined>} nothing where it would be larger than the format allows
 */
export async function zip(files) {
  /** @type {BlobPart[]} */
  const parts = [];
  /** @type {BlobPart[]} */
  const directory = [];
  let at = 0, directorySize = 0, count = 0;
  for await (const { name, time, file } of files) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const encoded = new TextEncoder().encode(name);
    const { length } = bytes;
    /** @type {[2 | 4, number][]} */
    const common = [
      [2, VERSION], [2, FLAGS], [2, 0], ...dos(time), [4, crc32(bytes)], [4, length], [4, length],
      [2, encoded.length], [2, 0],
    ];
    const header = record([[4, 0x04034b50], ...common]);
    const entry = record([[4, 0x02014b50], [2, VERSION], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]);
    parts.push(header, encoded, file);
    directory.push(entry, encoded);
    at += header.length + encoded.length + length;
    directorySize += entry.length + encoded.length;
    if (++count > MOST.files || at + directorySize > MOST.bytes) return undefined;
  }
  const end = record([
    [4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, directorySize], [4, at], [2, 0],
  ]);
  return new Blob([...parts, ...directory, end], { type: 'application/zip' });
}
