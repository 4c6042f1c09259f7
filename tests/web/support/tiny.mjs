// Tiny random models in the diffusers layout, as different checkpoints spell and store them. Configurations and tensor
// lists come from tests/reference/pipelines.py; the values are drawn from the tensors' names, as there, so that its
// expected pictures hold. The tokenizer is CLIP's, as the embedded model has it.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './browser.mjs';

/**
 * @typedef {'F16' | 'BF16' | 'F32'} Dtype
 * @typedef {{ name: string, dtype: string, shape: number[], data: Uint8Array }} Tensor
 *
 * @typedef {object} TinyOptions
 * @property {'f16' | 'bf16' | 'f32'} [dtype]  on disk; default f16
 * @property {number} [shards]   so many files of weights and an index for each component, instead of one file
 * @property {string} [variant]  in the weights' file names: "fp16"
 * @property {boolean} [oldNames]  as the Hub's older files: `text_model.` and position ids in CLIP, `query`, `key`,
 *   `value` and `proj_attn` in the VAE's attention
 * @property {number} [latentChannels]  default 4
 * @property {number} [inChannels]  of the UNet, beside its latents' others
 * @property {string} [pipelineClass]  in model_index.json
 */

const reference = join(root, 'tests/reference/data/pipelines');
const folders = JSON.parse(readFileSync(join(reference, 'models.json'), 'utf8'));
/** Those that single files are made of as well; see single.mjs. @type {Record<string, any>} */
export const singles = JSON.parse(readFileSync(join(reference, '../single_file/models.json'), 'utf8'));
/** By kind, to which a test may add its own: sd1, sd2, sdxl, lcm, and those of single files: single-sd1, single-sd2, single-sdxl. @type {Record<string, any>} */
export const models = {
  ...folders,
  ...Object.fromEntries(Object.entries(singles).map(([kind, model]) => [`single-${kind}`, model])),
};

/** Low and high 32 bits of a * b modulo 2^64. @param {number} al @param {number} ah @param {number} bl @param {number} bh */
function multiply(al, ah, bl, bh) {
  const [a0, a1, b0, b1] = [al & 0xffff, al >>> 16, bl & 0xffff, bl >>> 16];
  const middle = a1 * b0 + ((a0 * b0) >>> 16); // below 2^32
  const cross = a0 * b1 + (middle & 0xffff);
  const high = a1 * b1 + (middle >>> 16) + Math.floor(cross / 65536);
  return [Math.imul(al, bl) >>> 0, (high + Math.imul(al, bh) + Math.imul(ah, bl)) >>> 0];
}

/** FNV-1a, 64 bits: low and high half. @param {string} text */
function fnv1a(text) {
  let [low, high] = [0x84222325, 0xcbf29ce4];
  for (const byte of Buffer.from(text)) [low, high] = multiply((low ^ byte) >>> 0, high, 0x1b3, 0x100);
  return [low, high];
}

/**
 * `drawn` of tests/reference/models.py: f32 values of a tensor by its canonical name.
 * @param {string} name @param {number[]} shape @param {number} gain
 */
export function drawn(name, shape, gain) {
  const count = shape.reduce((a, b) => a * b, 1);
  let [scale, shift] = [0.1, 0];
  if (name.endsWith('.bias')) shift = 0;
  else if (name.includes('norm')) shift = 1;
  else if (name.includes('token_embedding') || name.includes('position_embedding')) scale = 0.5;
  else {
    if (['.to_q.', '.to_k.', '.q_proj.', '.k_proj.'].some(part => name.includes(part))) gain *= 1.4;
    else if (name === 'conv_out.weight') gain *= 1.8;
    scale = gain * Math.sqrt(3 / (count / shape[0]));
  }
  const out = new Float32Array(count);
  let [sl, sh] = fnv1a(name);
  for (let i = 0; i < count; i++) { // splitmix64, the upper 24 bits
    const sum = sl + 0x7f4a7c15;
    sh = (sh + 0x9e3779b9 + (sum > 0xffffffff ? 1 : 0)) >>> 0;
    sl = sum >>> 0;
    let [l, h] = multiply((sl ^ (sl >>> 30 | sh << 2)) >>> 0, (sh ^ sh >>> 30) >>> 0, 0x1ce4e5b9, 0xbf58476d);
    [l, h] = multiply((l ^ (l >>> 27 | h << 5)) >>> 0, (h ^ h >>> 27) >>> 0, 0x133111eb, 0x94d049bb);
    out[i] = (((h ^ h >>> 31) >>> 8) / 8388608 - 1) * scale + shift;
  }
  return out;
}

/** Nearest f16, ties to even, of numbers below 65504, as bits. @param {Float32Array} values */
function toHalf(values) {
  const bits = new Uint32Array(values.buffer);
  return new Uint16Array(values.length).map((_, i) => {
    const size = bits[i] & 0x7fffffff;
    // Below 2^-14 f16's units are 2^-24, as f32's are from 0.5 to 1: its own addition rounds to them.
    const half =
      size < 0x38800000
        ? (Math.fround(Math.abs(values[i]) + 0.5) - 0.5) * 2 ** 24
        : (size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13;
    return (bits[i] >>> 16 & 0x8000) | half;
  });
}

/** Nearest bf16, ties to even, as bits. @param {Float32Array} values */
function toBfloat(values) {
  const bits = new Uint32Array(values.buffer);
  return new Uint16Array(values.length).map((_, i) => (bits[i] + 0x7fff + (bits[i] >>> 16 & 1)) >>> 16);
}

/** @param {Float32Array} values @param {Dtype} dtype */
export function encode(values, dtype) {
  const stored = dtype === 'F32' ? values : dtype === 'F16' ? toHalf(values) : toBfloat(values);
  return new Uint8Array(stored.buffer);
}

/** A name as the Hub's older files spell it. @param {string} component @param {string} name */
function oldName(component, name) {
  if (component.startsWith('text_encoder'))
    return /^(text_model|text_projection)\./.test(name) ? name : `text_model.${name}`;
  if (component !== 'vae') return name;
  /** @type {Record<string, string>} */
  const old = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' };
  return name.replace(
    /(mid_block\.attentions\.0\.)(to_q|to_k|to_v|to_out\.0)\./,
    (_, before, layer) => `${before}${old[layer]}.`,
  );
}

/** @param {string} path @param {Tensor[]} tensors */
export function writeSafetensors(path, tensors) {
  /** @type {Record<string, any>} */
  const header = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const { name, dtype, shape, data } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.length] };
    offset += data.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc(-text.length & 7, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(path, Buffer.concat([length, padded, ...tensors.map(t => t.data)]));
}

/**
 * A tensor in f16, drawn from a name that may be another.
 * @param {string} name @param {number[]} shape @param {number} gain @param {string} [from]
 * @returns {Tensor}
 */
export const tinyTensor = (name, shape, gain, from = name) =>
  ({ name, dtype: 'F16', shape, data: encode(drawn(from, shape, gain), 'F16') });

/**
 * Writes the LoRA that `merge` of tests/reference/pix2pix.py merges: of four channels in conv_in.
 * @param {string} path @param {number} [context] width of the model's text
 */
export function writeLora(path, context = 32) {
  /** @type {[string, number[], number[]][]} */
  const layers = [
    ['mid_block.attentions.0.transformer_blocks.0.attn2.to_k', [4, context], [64, 4]],
    ['conv_in', [4, 4, 3, 3], [32, 4, 1, 1]],
  ];
  const key = (/** @type {string} */ name) => `lora_unet_${name.replaceAll('.', '_')}`;
  writeSafetensors(
    path,
    layers.flatMap(([name, down, up]) => [
      tinyTensor(`${key(name)}.lora_down.weight`, down, 1.5, `lora.${name}.down`),
      tinyTensor(`${key(name)}.lora_up.weight`, up, 1.5, `lora.${name}.up`),
    ]),
  );
}

/**
 * A tensor's shape in a model of other latents than four channels.
 * @param {string} name @param {number[]} shape @param {number} channels
 */
function ofLatents(name, [out, into, ...rest], channels) {
  const is = (/** @type {RegExp} */ pattern) => pattern.test(name);
  // The encoder gives a mean and a variance of each channel.
  if (is(/^(encoder\.conv_out|quant_conv)\./)) out = 2 * channels;
  if (is(/^quant_conv\.weight/)) into = 2 * channels;
  if (is(/^(conv_out|post_quant_conv)\./)) out = channels;
  if (is(/^((decoder\.)?conv_in|post_quant_conv)\.weight/)) into = channels;
  return [out, into, ...rest].filter(side => side !== undefined);
}

/**
 * The tensors of one component.
 * @param {string} kind @param {string} component `unet`, `vae`, `text_encoder`, ... @param {TinyOptions} [options]
 * @returns {Tensor[]}
 */
export function tinyTensors(kind, component, { dtype = 'f16', oldNames = false, latentChannels, inChannels } = {}) {
  const type = /** @type {Dtype} */ (dtype.toUpperCase());
  /** @type {string[]} */
  const list = models[kind].tensors[component];
  const tensors = list.map(line => {
    const [name, ...rest] = line.split(' ');
    const four = rest.map(Number);
    const shape = latentChannels && !component.startsWith('text') ? ofLatents(name, four, latentChannels) : four;
    if (inChannels && component === 'unet' && name === 'conv_in.weight') shape[1] = inChannels;
    const values = drawn(name.replace(/^text_model\./, ''), shape, models[kind].components[component].gain);
    return { name: oldNames ? oldName(component, name) : name, dtype: String(type), shape, data: encode(values, type) };
  });
  if (oldNames && component.startsWith('text_encoder')) {
    const ids = BigInt64Array.from({ length: 77 }, (_, i) => BigInt(i));
    tensors.unshift({
      name: 'text_model.embeddings.position_ids',
      dtype: 'I64',
      shape: [1, 77],
      data: new Uint8Array(ids.buffer),
    });
  }
  return tensors;
}

/**
 * Writes a checkpoint's folder.
 * @param {string} folder made if it is not there
 * @param {string} kind one of `models`
 * @param {TinyOptions} [options]
 */
export function writeTiny(folder, kind, options = {}) {
  const { model_index, scheduler, components, tokenizers } = models[kind];
  /** @param {string} path @param {unknown} value */
  const writeJson = (path, value) => writeFileSync(join(folder, path), `${JSON.stringify(value, null, 2)}\n`);
  for (const part of ['scheduler', ...Object.keys(components), ...Object.keys(tokenizers)])
    mkdirSync(join(folder, part), { recursive: true });
  const { pipelineClass: _class_name = model_index._class_name } = options;
  writeJson('model_index.json', { ...model_index, _class_name });
  writeJson('scheduler/scheduler_config.json', scheduler);
  for (const [name, files] of Object.entries(tokenizers)) {
    for (const file of ['vocab.json', 'merges.txt'])
      copyFileSync(join(root, 'www/embedded/tokenizer', file), join(folder, name, file));
    for (const [file, value] of Object.entries(files)) writeJson(join(name, file), value);
  }
  for (const [name, { gain, ...config }] of Object.entries(components)) {
    const { latentChannels: n, inChannels: in_channels } = options;
    const other = n && { unet: { in_channels: n, out_channels: n }, vae: { latent_channels: n } };
    const more = { .../** @type {any} */ (other)?.[name], ...(in_channels && name === 'unet' && { in_channels }) };
    writeJson(join(name, 'config.json'), { ...config, ...more });
    const stem = name.startsWith('text_encoder') ? 'model' : 'diffusion_pytorch_model';
    const variant = options.variant ? `.${options.variant}` : '';
    const tensors = tinyTensors(kind, name, options);
    if (!options.shards) {
      writeSafetensors(join(folder, name, `${stem}${variant}.safetensors`), tensors);
      continue;
    }
    const total = tensors.length;
    /** @type {Record<string, string>} */
    const weight_map = {};
    for (let i = 0; i < options.shards; i++) {
      const five = (/** @type {number} */ n) => String(n).padStart(5, '0');
      const file = `${stem}${variant}-${five(i + 1)}-of-${five(options.shards)}.safetensors`;
      const part = tensors.slice(Math.floor(total * i / options.shards), Math.floor(total * (i + 1) / options.shards));
      writeSafetensors(join(folder, name, file), part);
      for (const tensor of part) weight_map[tensor.name] = file;
    }
    const total_size = tensors.reduce((sum, t) => sum + t.data.length, 0);
    writeJson(join(name, `${stem}.safetensors.index${variant}.json`), { metadata: { total_size }, weight_map });
  }
}
