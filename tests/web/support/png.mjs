// A PNG for tests of what stands in its chunks.
import { deflateSync } from 'node:zlib';

/**
 * A PNG of one grey point with these chunks before the picture.
 * @param {[string, Buffer][]} chunks
 */
export function png(chunks) {
  const crcs = Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n >>> 0;
  });
  const chunk = (/** @type {string} */ type, /** @type {Buffer} */ content) => {
    const body = Buffer.concat([Buffer.from(type), content]);
    const crc = ~body.reduce((c, byte) => crcs[(c ^ byte) & 255] ^ (c >>> 8), ~0) >>> 0;
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(content.length);
    ends.writeUInt32BE(crc, 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'), chunk('IHDR', Buffer.from('00000001000000010800000000', 'hex')),
    ...chunks.map(([type, content]) => chunk(type, content)),
    chunk('IDAT', deflateSync(Buffer.from([0, 128]))), chunk('IEND', Buffer.alloc(0)),
  ]);
}
