// A diffusers folder with exactly Stable Diffusion 1.5's configurations, tensor names and shapes, and random f16
// weights: two gigabytes of what a real checkpoint asks of the loader and the GPU. sd15-tensors.txt is made by
// tests/reference/sd15_tensors.py; the tokenizer is CLIP's, as the embedded model has it.
import { closeSync, cpSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from './browser.mjs';

/** @typedef {{ name: string, shape: number[] }} Tensor */

/** xorshift32. @param {number} seed @returns {() => number} 32 random bits */
function generator(seed) {
  let x = seed >>> 0 || 1;
  return () => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return x >>> 0; };
}

/** Nearest f16 of a number within f16's normal range (or zero), as bits. @param {number} value */
function halfBits(value) {
  if (value === 0) return 0;
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(value))));
  const units = Math.round(Math.abs(value) / 2 ** (exponent - 10)); // 1024..2048 for a normal number
  return (value < 0 ? 0x8000 : 0) + (exponent + 14) * 1024 + units;
}

/** 65,536 standard normal numbers times `scale`, as f16 bits: tensors draw from these. @param {number} scale */
function normals(scale) {
  const random = generator(0x5d15);
  const uniform = () => (random() + 1) / 4294967297;
  return Uint16Array.from({ length: 65536 }, () =>
    halfBits(scale * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())));
}

/** The tensor's values: 1 / sqrt(fan-in) normal, embeddings 0.02 normal, norms 1, biases 0. @param {Tensor} tensor */
function* values({ name, shape }) {
  const count = shape.reduce((a, b) => a * b, 1);
  const block = new Uint16Array(Math.min(count, 1 << 22));
  const one = name.endsWith('.weight') && shape.length === 1;
  const table = shape.length > 1 ? normals(name.includes('embedding.weight') ? 0.02 : (count / shape[0]) ** -0.5) : null;
  const random = generator(name.length * 7919 + count);
  for (let done = 0; done < count; done += block.length) {
    const part = block.subarray(0, Math.min(block.length, count - done));
    if (table) for (let i = 0; i < part.length; i += 2) { const bits = random(); part[i] = table[bits & 0xffff]; part[i + 1] = table[bits >>> 16]; }
    else part.fill(one ? 0x3c00 : 0);
    yield part;
  }
}

/** @param {string} path @param {Tensor[]} tensors */
function writeSafetensors(path, tensors) {
  /** @type {Record<string, any>} */
  const header = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, shape } of tensors) {
    const end = offset + 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: 'F16', shape, data_offsets: [offset, end] };
    offset = end;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc(-text.length & 7, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const file = openSync(path, 'w');
  writeSync(file, length);
  writeSync(file, padded);
  for (const tensor of tensors) {
    for (const part of values(tensor)) {
      const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
    }
  }
  closeSync(file);
}

/** Makes the folder where it is not there yet. @returns {string} its path */
export function sd15Folder() {
  const folder = join(root, '.tools/sd15');
  if (existsSync(folder)) return folder;
  console.error('==> writing random weights in the shapes of Stable Diffusion 1.5 (2.1 GB, once)');
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  const configs = JSON.parse(readFileSync(new URL('sd15-configs.json', import.meta.url), 'utf8'));
  for (const [path, config] of Object.entries(configs)) {
    mkdirSync(dirname(join(partial, path)), { recursive: true });
    writeFileSync(join(partial, path), JSON.stringify(config, null, 2));
  }
  cpSync(join(root, 'www/embedded/tokenizer'), join(partial, 'tokenizer'), { recursive: true });
  const lines = readFileSync(new URL('sd15-tensors.txt', import.meta.url), 'utf8').trimEnd().split('\n').map(line => line.split(' '));
  for (const [name, file] of [['text_encoder', 'model'], ['unet', 'diffusion_pytorch_model'], ['vae', 'diffusion_pytorch_model']]) {
    const tensors = lines.filter(([part]) => part === name).map(([, tensor, ...shape]) => ({ name: tensor, shape: shape.map(Number) }));
    writeSafetensors(join(partial, name, `${file}.safetensors`), tensors);
  }
  renameSync(partial, folder);
  return folder;
}
