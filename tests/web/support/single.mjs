// Single-file checkpoints of the tiny random models, as the original code wrote them: .safetensors, and torch.save's zip
// and legacy formats. Names, fused tensors and transposed ones come from tests/reference/single_file.py.
import { writeFileSync } from 'node:fs';
import { singles, tinyTensors, writeSafetensors } from './tiny.mjs';

/** @typedef {import('./tiny.mjs').Tensor} Tensor */

const sizes = /** @type {Record<string, number>} */ ({ F16: 2, BF16: 2, F32: 4, I64: 8 });

/**
 * All tensors of a model by their original names, components mixed as state_dict() has them.
 * @param {string} kind one of `singles` @param {'f16' | 'bf16' | 'f32'} dtype
 * @returns {Tensor[]}
 */
export function originalTensors(kind, dtype) {
  /** @type {Record<string, Map<string, Tensor>>} */
  const parts = {};
  for (const component of Object.keys(singles[kind].components)) {
    parts[component] = new Map(
      tinyTensors(`single-${kind}`, component, { dtype }).map(t => [t.name.replace(/^text_model\./, ''), t]),
    );
  }
  /** @type {Tensor[]} */
  const tensors = singles[kind].original.map((/** @type {any[]} */ [name, component, transposed, ...from]) => {
    const found = from.map((/** @type {string} */ n) => {
      const tensor = parts[component].get(n.replace(/^text_model\./, ''));
      if (!tensor) throw new Error(`${component} has no ${n}`);
      return tensor;
    });
    const [{ dtype, shape }] = found;
    let data = Buffer.concat(found.map((/** @type {Tensor} */ t) => t.data));
    if (transposed) {
      const [[rows, columns], size] = [shape, sizes[dtype]];
      const turned = Buffer.alloc(data.length);
      for (let r = 0; r < rows; r++)
        for (let c = 0; c < columns; c++)
          data.copy(turned, (c * rows + r) * size, (r * columns + c) * size, (r * columns + c + 1) * size);
      return { name, dtype, shape: [columns, rows], data: turned };
    }
    // The VAE's attention is made of convolutions there.
    const more = /\.attn_1\.(q|k|v|proj_out)\.weight$/.test(name) ? [1, 1] : [];
    return { name, dtype, shape: [shape[0] * found.length, ...shape.slice(1), ...more], data };
  });
  // What is of no use stands there too.
  const floats = (/** @type {number} */ n) => new Uint8Array(new Float32Array(n).fill(0.5).buffer);
  const ids = new Uint8Array(BigInt64Array.from({ length: 77 }, (_, i) => BigInt(i)).buffer);
  tensors.unshift({ name: 'betas', dtype: 'F32', shape: [1000], data: floats(1000) });
  tensors.push({ name: 'model_ema.diffusion_modelinput_blocks00weight', dtype: 'F32', shape: [8], data: floats(8) });
  if (kind === 'sd1')
    tensors.push({
      name: 'cond_stage_model.transformer.text_model.embeddings.position_ids',
      dtype: 'I64',
      shape: [1, 77],
      data: ids,
    });
  return tensors;
}

// ---- pickles ---------------------------------------------------------------------------------------------------------

const u8 = (/** @type {number} */ n) => Buffer.from([n]);
const u16 = (/** @type {number} */ n) => { const b = Buffer.alloc(2); b.writeUInt16LE(n); return b; };
const u32 = (/** @type {number} */ n) => { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; };
const u64 = (/** @type {number} */ n) => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); return b; };
const text = (/** @type {string} */ s) => Buffer.concat([u8(0x58), u32(Buffer.byteLength(s)), Buffer.from(s)]);
const int = (/** @type {number} */ n) => Buffer.concat([u8(0x4a), u32(n)]);
const global = (/** @type {string} */ module, /** @type {string} */ name) => Buffer.from(`c${module}\n${name}\n`);
const tuple = (/** @type {Buffer[]} */ ...items) => Buffer.concat([Buffer.from('('), ...items, Buffer.from('t')]);
const pickle = (/** @type {Buffer[]} */ ...parts) =>
  Buffer.concat([Buffer.from([0x80, 2]), ...parts, Buffer.from('.')]);
const ordered = Buffer.concat([global('collections', 'OrderedDict'), Buffer.from(')R')]);
const none = Buffer.from('N');

/** @param {Tensor[]} tensors @param {boolean} [legacy] */
function object(tensors, legacy) {
  const classes = /** @type {Record<string, string>} */ ({
    F16: 'HalfStorage',
    BF16: 'BFloat16Storage',
    F32: 'FloatStorage',
    I64: 'LongStorage',
  });
  const items = tensors.flatMap(({ name, dtype, shape, data }, i) => {
    const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
    const storage = Buffer.concat([
      tuple(
        text('storage'),
        global('torch', classes[dtype]),
        text(String(i)),
        text('cpu'),
        int(data.length / sizes[dtype]),
        ...(legacy ? [none] : []),
      ),
      Buffer.from('Q'),
    ]);
    const args = tuple(storage, int(0), tuple(...shape.map(int)), tuple(...strides.map(int)), u8(0x89), ordered);
    return [text(name), global('torch._utils', '_rebuild_tensor_v2'), args, Buffer.from('R')];
  });
  const state = Buffer.concat([ordered, Buffer.from('('), ...items, Buffer.from('u')]);
  return pickle(
    Buffer.from('}('),
    text('global_step'),
    int(7),
    text('epoch'),
    none,
    text('state_dict'),
    state,
    Buffer.from('u'),
  );
}

/** CRC-32, as zip wants it. @param {Uint8Array} data */
function crc32(data) {
  let crc = -1;
  for (const byte of data) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = crc >>> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}

/** A stored archive, contents aligned to 64 bytes as torch does. @param {[string, Uint8Array][]} entries */
function zip(entries) {
  /** @type {Buffer[]} */
  const file = [];
  /** @type {Buffer[]} */
  const directory = [];
  let at = 0;
  for (const [name, data] of entries) {
    const pad = -(at + 30 + name.length + 4) & 63;
    const extra = Buffer.concat([Buffer.from('FB'), u16(pad), Buffer.alloc(pad, 'Z')]);
    const common = Buffer.concat([
      u16(0),
      u16(0),
      u32(0),
      u32(crc32(data)),
      u32(data.length),
      u32(data.length),
      u16(name.length),
    ]);
    const local = Buffer.concat([
      Buffer.from('PK\x03\x04'),
      u16(20),
      common,
      u16(extra.length),
      Buffer.from(name),
      extra,
    ]);
    directory.push(
      Buffer.concat([
        Buffer.from('PK\x01\x02'),
        u16(20),
        u16(20),
        common,
        Buffer.alloc(12),
        u32(at),
        Buffer.from(name),
      ]),
    );
    file.push(local, Buffer.from(data));
    at += local.length + data.length;
  }
  const all = Buffer.concat(directory);
  const end = Buffer.concat([
    Buffer.from('PK\x05\x06'),
    u32(0),
    u16(entries.length),
    u16(entries.length),
    u32(all.length),
    u32(at),
    u16(0),
  ]);
  return Buffer.concat([...file, all, end]);
}

/**
 * Writes a model as one file.
 * @param {string} path @param {string} kind one of `singles`
 * @param {{ format: 'safetensors' | 'zip' | 'legacy', dtype?: 'f16' | 'bf16' | 'f32' }} options
 */
export function writeSingle(path, kind, { format, dtype = 'f16' }) {
  const tensors = originalTensors(kind, dtype);
  if (format === 'safetensors') return writeSafetensors(path, tensors);
  if (format === 'zip') {
    const storages = tensors.map((t, i) => /** @type {[string, Uint8Array]} */ ([`model/data/${i}`, t.data]));
    return writeFileSync(
      path,
      zip([
        ['model/data.pkl', object(tensors)],
        ['model/byteorder', Buffer.from('little')],
        ...storages,
        ['model/version', Buffer.from('3\n')],
      ]),
    );
  }
  const magic = Buffer.from([0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]);
  const keys = pickle(Buffer.from(']('), ...tensors.map((_, i) => text(String(i))), Buffer.from('e'));
  const system = pickle(Buffer.from('}('), text('little_endian'), u8(0x88), Buffer.from('u'));
  const storages = tensors.flatMap(t => [u64(t.data.length / sizes[t.dtype]), t.data]);
  return writeFileSync(
    path,
    Buffer.concat([
      pickle(magic),
      pickle(Buffer.from([0x4d, 0xe9, 3])),
      system,
      object(tensors, true),
      keys,
      ...storages,
    ]),
  );
}
