// Control-LoRAs through the public module in Chromium, beside the UNet of the tiny SDXL: against the plain rule in torch, run as
// diffusers' ControlNetModel; over quantised weights, in little memory, beside LoRAs. Expected latents:
// tests/reference/control_lora.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { controlled } from '../support/controlled.mjs';
import { original } from '../support/ldm.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { tinyTensor, writeLora, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2

const reference = join(root, 'tests/reference/data/control_lora');
const read = (/** @type {string} */ name) => JSON.parse(readFileSync(join(reference, name), 'utf8'));
/** @typedef {import('../support/controlled.mjs').Net} Net */
/** @type {{ name: string, controlnets: Net[], options: any, latents: number[], offset: number }[]} */
const cases = read('cases.json');
const expected = readFileSync(join(reference, 'cases.bin'));
/** @type {Record<string, { prefix: string, gain: number, tensors: string[] }>} */
const nets = read('nets.json');

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-control-lora-'));
after(() => rmSync(models, { recursive: true }));
mkdirSync(join(models, 'nets'));
for (const kind of ['sdxl', 'sd1']) writeTiny(join(models, kind), kind);
writeLora(join(models, 'snow.safetensors'), 64);

/** @typedef {import('../support/tiny.mjs').Tensor} Tensor */
/** Says what the file is. @type {Tensor} */
const mark = { name: 'lora_controlnet', dtype: 'F16', shape: [0], data: new Uint8Array() };
/** @param {string} name @returns {Tensor[]} */
const tensorsOf = name =>
  nets[name].tensors.map(line => {
    const [tensor, ...shape] = line.split(' ');
    const { prefix, gain } = nets[name];
    return { ...tinyTensor(tensor, shape.map(Number), gain, prefix + tensor), name: original(tensor) };
  });
const write = (/** @type {string} */ name, /** @type {Tensor[]} */ tensors) =>
  writeSafetensors(join(models, 'nets', `${name}.safetensors`), tensors);
for (const name of Object.keys(nets)) write(name, [...tensorsOf(name), mark]);
const broken = (/** @type {string} */ name, /** @type {(tensors: Tensor[]) => Tensor[]} */ change) =>
  write(name, [...change(tensorsOf('one')), mark]);
const up = 'input_blocks.1.0.in_layers.2.up';
const infinite = { ...tinyTensor(up, [32, 4, 1, 1], 1), data: new Uint8Array(256).fill(0x7c) };
broken('half', tensors => tensors.filter(t => t.name !== up));
broken('lacking', tensors => tensors.filter(t => t.name !== 'zero_convs.1.0.weight'));
broken('infinite', tensors => tensors.map(t => (t.name === up ? infinite : t)));
const empty = { ...infinite, shape: [32, 0, 1, 1], data: new Uint8Array() };
broken('empty', tensors => tensors.map(t => (t.name === up ? empty : t)));
broken('twice', tensors => [...tensors, tinyTensor('input_blocks.1.0.in_layers.2.weight', [32, 32, 3, 3], 1)]);

test('Control-LoRAs', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const { open, draw } = controlled(page, `${server.url}/models`);
    const files = (/** @type {Net[]} */ nets) => nets.map(net => ({ ...net, name: `${net.name}.safetensors` }));
    const named = (/** @type {string} */ name) => /** @type {typeof cases[0]} */ (cases.find(c => c.name === name));
    /** How far off the latents of a case are. @param {import('node:test').TestContext} t @param {string} name */
    const off = async (t, name) => {
      const c = named(name);
      const { latents, message } = await draw({ ...c, controlnets: files(c.controlnets) });
      assert.equal(message, undefined);
      const from = expected.byteOffset + c.offset;
      const theirs = new Float32Array(expected.buffer.slice(from, from + 4 * c.latents.reduce((a, b) => a * b)));
      const error = relative(latents, [...theirs]);
      t.diagnostic(`${name}: latents ${error.toExponential(1)}`);
      return error;
    };
    const check = async (/** @type {import('node:test').TestContext} */ t, /** @type {string} */ name) => {
      const error = await off(t, name);
      assert.ok(error <= LATENTS, `${name}: ${error}`);
    };

    await open('sdxl');
    // The LoRA is merged when the Control-LoRA comes, and when it is there.
    for (const name of ['a LoRA over the UNet', 'one', 'two', 'a LoRA over the UNet', 'none'])
      await t.test(name, t => check(t, name));

    await t.test('what does not fit or is broken is refused by name; nothing is lost', async t => {
      const refused = async (/** @type {string} */ name, /** @type {RegExp} */ why) => {
        const { message } = await draw({ ...named('one'), controlnets: files([{ name, size: [56, 40] }]) });
        assert.match(message ?? '', why);
      };
      await refused('half', /bad-checkpoint: .*one of the two factors of down_blocks\.0\.resnets\.0\.conv1\.weight/);
      await refused('lacking', /bad-checkpoint: .*lacks controlnet_down_blocks\.1\.weight/);
      await refused('infinite', /bad-checkpoint: .*down_blocks\.0\.resnets\.0\.conv1\.up/);
      await refused('empty', /bad-checkpoint: .*in_layers\.2\.up/);
      await refused('twice', /bad-checkpoint: .*conv1\.weight both whole and in factors/);
      await check(t, 'two');
      await open('sd1');
      await refused('one', /unsupported-model: .*for another kind of model.*sd1/);
      const whole = await page.evaluate(async source => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        return DiffusionPipeline.fromPretrained(source).catch((/** @type {any} */ e) => `${e.code}: ${e.message}`);
      }, `${server.url}/models/nets/one.safetensors`);
      assert.match(whole, /unsupported-model: .*is a Control-LoRA, not a whole model.*`controlnets`/);
      errors.splice(0);
    });

    await t.test('over quantised weights, and in little memory', async t => {
      await open('sdxl', { weights: 'q8' });
      const without = await off(t, 'none');
      // As much as the UNet loses, and as much again: what is summed is its quantised weights.
      for (const name of ['one', 'two']) assert.ok((await off(t, name)) <= 2 * without, name);
      await open('sdxl', { memory: 'low' });
      for (const name of ['two', 'a LoRA over the UNet', 'one']) await check(t, name);
    });
  });
});
