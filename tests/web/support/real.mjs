// Diffusers folders with exactly the configurations, tensor names and shapes of Stable Diffusion 1.5 and SDXL base, and
// random f16 weights: what a real checkpoint asks of the loader and the GPU. Served without ever lying on a disk, or
// written there. Names, shapes and configurations are those that tests/reference/{models,single_file,pipelines}.py took
// from diffusers; the tokenizer is CLIP's, as the embedded model has it.
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { root } from './browser.mjs';
import { serve } from './serve.mjs';

/**
 * @typedef {{ name: string, shape: number[] }} Tensor
 * @typedef {{ size: number, read(start: number, end: number): Iterable<Uint8Array> }} File bytes from start up to, not including, end
 * @typedef {'sd15' | 'sdxl'} Name
 */

const reference = join(root, 'tests/reference/data');
/** @param {string} path */
const json = path => JSON.parse(readFileSync(join(reference, path), 'utf8'));

/** Component to its configuration's name in models/real.json; the pipeline's own in pipelines/models.json. */
const models = {
  sd15: { pipeline: 'sd1', components: { text_encoder: 'sd15/text_encoder', unet: 'sd15/unet', vae: 'sd15/vae' } },
  // SDXL's first text encoder is Stable Diffusion 1.5's.
  sdxl: {
    pipeline: 'sdxl',
    components: {
      text_encoder: 'sd15/text_encoder',
      text_encoder_2: 'sdxl/text_encoder_2',
      unet: 'sdxl/unet',
      vae: 'sdxl/vae',
    },
  },
};

/** One part of names.txt; each line there says how much of the line before it repeats. @param {string} title @returns {Tensor[]} */
function tensors(title) {
  const lines = readFileSync(join(reference, 'single_file/names.txt'), 'utf8').trimEnd().split('\n');
  const out = [];
  let last = '';
  for (let i = lines.indexOf(`= ${title}`) + 1; i < lines.length && !lines[i].startsWith('= '); i++) {
    const [, shared, rest] = /** @type {RegExpExecArray} */ (/^(\d+) (.*)$/.exec(lines[i]));
    last = last.slice(0, Number(shared)) + rest;
    const [name, ...shape] = last.split(' ');
    out.push({ name, shape: shape.map(Number) });
  }
  return out;
}

// ---- values ----------------------------------------------------------------------------------------------------------

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

/** @type {Map<number, Uint16Array>} */
const tables = new Map();

/** 65,536 standard normal numbers times `scale`, as f16 bits: tensors draw from these. @param {number} scale */
function normals(scale) {
  let table = tables.get(scale);
  if (!table) {
    const random = generator(0x5d15);
    const uniform = () => (random() + 1) / 4294967297;
    table = Uint16Array.from({ length: 65536 }, () =>
      halfBits(scale * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())),
    );
    tables.set(scale, table);
  }
  return table;
}

/** Values of a tensor are drawn in blocks of so many, each from a seed of its own, so that a file can be read from anywhere. */
const BLOCK = 1 << 20;

/** 1 / sqrt(fan-in) normal, embeddings 0.02 normal, norms 1, biases 0. @param {Tensor} tensor @param {number} index of the block */
function block({ name, shape }, index) {
  const count = shape.reduce((a, b) => a * b, 1);
  const out = new Uint16Array(Math.min(BLOCK, count - index * BLOCK));
  if (shape.length === 1) return out.fill(name.endsWith('.weight') ? 0x3c00 : 0);
  const table = normals(name.includes('embedding.weight') ? 0.02 : (count / shape[0]) ** -0.5);
  const seed = [...name].reduce((hash, c) => Math.imul(hash ^ c.charCodeAt(0), 0x01000193), 0x811c9dc5);
  const random = generator(seed ^ Math.imul(index, 0x9e3779b1));
  for (let i = 0; i < out.length; i += 2) {
    const bits = random();
    out[i] = table[bits & 0xffff];
    out[i + 1] = table[bits >>> 16];
  }
  return out;
}

// ---- files -----------------------------------------------------------------------------------------------------------

/** @param {string | Buffer} content @returns {File} */
function small(content) {
  const bytes = Buffer.from(content);
  return { size: bytes.length, read: (start, end) => [bytes.subarray(start, end)] };
}

/** A safetensors file of f16 tensors. @param {Tensor[]} list @returns {File} */
function safetensors(list) {
  /** @type {Record<string, any>} */
  const header = { __metadata__: { format: 'pt' } };
  let offset = 0;
  const placed = list.map(tensor => {
    const begin = offset;
    offset += 2 * tensor.shape.reduce((a, b) => a * b, 1);
    header[tensor.name] = { dtype: 'F16', shape: tensor.shape, data_offsets: [begin, offset] };
    return { tensor, begin, end: offset };
  });
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.concat([Buffer.alloc(8), text, Buffer.alloc(-text.length & 7, ' ')]);
  head.writeBigUInt64LE(BigInt(head.length - 8));
  return {
    size: head.length + offset,
    *read(start, end) {
      if (start < head.length) yield head.subarray(start, end);
      const [from, to] = [start - head.length, end - head.length]; // in the data
      for (const { tensor, begin, end: last } of placed) {
        if (last <= from || begin >= to) continue;
        const first = Math.max(0, Math.floor((from - begin) / (2 * BLOCK)));
        for (let i = first; begin + 2 * BLOCK * i < Math.min(last, to); i++) {
          const at = begin + 2 * BLOCK * i;
          const bytes = new Uint8Array(block(tensor, i).buffer);
          yield bytes.subarray(Math.max(0, from - at), Math.min(bytes.length, to - at));
        }
      }
    },
  };
}

/** All files of a model's folder, by path. @param {Name} name @returns {Map<string, File>} */
function files(name) {
  const { pipeline, components } = models[name];
  const { model_index, scheduler, tokenizers } = json('pipelines/models.json')[pipeline];
  const configs = json('models/real.json');
  const text = (/** @type {unknown} */ value) => small(`${JSON.stringify(value, null, 2)}\n`);
  const out = new Map([['model_index.json', text(model_index)], ['scheduler/scheduler_config.json', text(scheduler)]]);
  for (const [folder, own] of Object.entries(tokenizers)) {
    for (const [file, value] of Object.entries(own)) out.set(`${folder}/${file}`, text(value));
    for (const file of ['vocab.json', 'merges.txt'])
      out.set(`${folder}/${file}`, small(readFileSync(join(root, 'www/embedded/tokenizer', file))));
  }
  for (const [component, config] of Object.entries(components)) {
    const stem = component.startsWith('text_encoder') ? 'model' : 'diffusion_pytorch_model';
    out.set(`${component}/config.json`, text(configs[config].config));
    out.set(`${component}/${stem}.safetensors`, safetensors(tensors(`${name} ${component}`)));
  }
  return out;
}

/** Serves the folder, its weights made as they are asked for. @param {Name} name */
export function serveReal(name) {
  const all = files(name);
  return serve(path => {
    const file = all.get(path.slice(1));
    // The version of what `block` draws.
    return (
      file && {
        size: file.size,
        etag: `"real-${name}-1-${file.size}"`,
        read: (start, end) => Readable.from(file.read(start, end + 1), { objectMode: false }),
      }
    );
  });
}

/** Makes the folder in .tools where it is not there yet. @param {Name} name @returns {string} its path */
export function writeReal(name) {
  const folder = join(root, '.tools/real', name);
  if (existsSync(folder)) return folder;
  const all = files(name);
  const gigabytes = [...all.values()].reduce((sum, file) => sum + file.size, 0) / 1e9;
  console.error(`==> writing random weights in the shapes of ${name} (${gigabytes.toFixed(1)} GB, once)`);
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  for (const [path, file] of all) {
    mkdirSync(dirname(join(partial, path)), { recursive: true });
    const out = openSync(join(partial, path), 'w');
    for (const bytes of file.read(0, file.size)) for (let at = 0; at < bytes.length;) at += writeSync(out, bytes, at);
    closeSync(out);
  }
  renameSync(partial, folder);
  return folder;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const name of process.argv.slice(2)) console.log(writeReal(/** @type {Name} */ (name)));
