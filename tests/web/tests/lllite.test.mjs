// ControlNet-LLLites through the public module in Chromium against hooks on the layers of diffusers' UNet: SD's and SDXL's
// kinds, one and several, scales, start and end, several pictures, without guidance, with a LoRA or a T2I-Adapter, over
// quantised weights, in little memory. Expected latents: tests/reference/lllite.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { controlled } from '../support/controlled.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { models as kinds, tinyTensor, writeLora, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2
const OVER_Q8 = 2e-2;
/** Where the UNet alone is further off: beyond that. */
const BESIDE_Q8 = 2e-3;

const reference = join(root, 'tests/reference/data/lllite');
const read = (/** @type {string} */ name) => JSON.parse(readFileSync(join(reference, name), 'utf8'));
/** @typedef {import('../support/controlled.mjs').Net} Net */
/** @typedef {{ name: string, kind: string, controlnets: Net[], options: any, latents: number[], offset: number }} Case */
/** @type {Case[]} */
const cases = read('cases.json');
const expected = readFileSync(join(reference, 'cases.bin'));
/** @type {Record<string, { prefix: string, gain: number, tensors: string[] }>} */
const nets = read('nets.json');
const xl = read('xl.json');
kinds.xl = {
  ...kinds.sdxl,
  components: { ...kinds.sdxl.components, ...xl.components },
  tensors: { ...kinds.sdxl.tensors, ...xl.tensors },
};

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-lllite-'));
after(() => rmSync(models, { recursive: true }));
mkdirSync(join(models, 'nets'));
writeLora(join(models, 'snow.safetensors'));

/** @typedef {import('../support/tiny.mjs').Tensor} Tensor */
/** @param {string} name @returns {Tensor[]} */
const tensorsOf = name =>
  nets[name].tensors.map(line => {
    const [tensor, ...shape] = line.split(' ');
    return tinyTensor(tensor, shape.map(Number), nets[name].gain, nets[name].prefix + tensor);
  });
const write = (/** @type {string} */ name, /** @type {Tensor[]} */ tensors) =>
  writeSafetensors(join(models, 'nets', `${name}.safetensors`), tensors);
const adapter = JSON.parse(readFileSync(join(reference, '../t2i_adapter/adapters.json'), 'utf8')).full;
for (const name of Object.keys(nets)) write(name, tensorsOf(name));
nets.full = adapter;
write('full', tensorsOf('full'));

const module = 'lllite_unet_middle_block_1_transformer_blocks_0_attn1_to_q';
const up = `${module}.up.0.weight`;
/** @param {string} name @param {Partial<Tensor>} change */
const changed = (name, change) => (/** @type {Tensor} */ t) => (t.name === name ? { ...t, ...change } : t);
const broken = (/** @type {string} */ name, /** @type {(tensors: Tensor[]) => Tensor[]} */ change) =>
  write(name, change(tensorsOf('one')));
broken('lacking', tensors => tensors.filter(t => t.name !== `${module}.mid.0.weight`));
broken('without a bias', tensors => tensors.filter(t => t.name !== `${module}.mid.0.bias`));
const { shape, data } = tinyTensor(up, [64, 16], 1);
broken('infinite', tensors => tensors.map(changed(up, { data: new Uint8Array(data.length).fill(0x7c) })));
broken('no number', tensors => tensors.map(changed(up, { data: new Uint8Array(data.length).fill(0x7e) })));
broken('empty', tensors => tensors.map(changed(up, { shape: [64, 0], data: new Uint8Array() })));
broken('turned', tensors => tensors.map(changed(up, { shape: shape.toReversed() })));
const renamed = (/** @type {string} */ to) => (/** @type {Tensor} */ t) => ({ ...t, name: t.name.replace(module, to) });
broken('elsewhere', tensors => tensors.map(renamed('lllite_unet_middle_block_9_proj_in')));
broken('of the text', tensors => tensors.map(renamed(module.replace('attn1_to_q', 'attn2_to_k'))));
broken('of the time', tensors => tensors.map(renamed('lllite_unet_middle_block_0_emb_layers_1')));

test('ControlNet-LLLites', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const { open, draw: drawn } = controlled(page, `${server.url}/models`);
    const draw = (/** @type {{ options: any, controlnets: Net[] }} */ { options, controlnets }) =>
      drawn({ options, controlnets: controlnets.map(net => ({ ...net, name: `${net.name}.safetensors` })) });
    const theirs = (/** @type {Case} */ c) => {
      const from = expected.byteOffset + c.offset;
      return [...new Float32Array(expected.buffer.slice(from, from + 4 * c.latents.reduce((a, b) => a * b)))];
    };
    const named = (/** @type {string} */ name) => /** @type {Case} */ (cases.find(c => c.name === name));
    const memory = () => page.evaluate(() => /** @type {any} */ (window).pipeline.memory());
    /** How far off the latents of a case are. @param {import('node:test').TestContext} t @param {Case} c */
    const off = async (t, c) => {
      const { latents, message } = await draw(c);
      assert.equal(message, undefined);
      const error = relative(latents, theirs(c));
      t.diagnostic(`${c.name}: latents ${error.toExponential(1)}`);
      return error;
    };
    const check = async (/** @type {import('node:test').TestContext} */ t, /** @type {string} */ name) => {
      const error = await off(t, named(name));
      assert.ok(error <= LATENTS, `${name}: ${error}`);
    };

    for (const kind of ['sd1', 'xl', 'sd2']) {
      writeTiny(join(models, kind), kind);
      await open(kind);
      for (const { name } of cases.filter(c => c.kind === kind)) await t.test(name, t => check(t, name));
    }

    await t.test('first steps and the others together are all; nothing is fetched or uploaded again', async () => {
      const { options, controlnets: [net] } = named('one');
      await draw(named('the same twice'));
      await draw(named('one'));
      const before = await memory();
      /** @type {string[]} */
      const requests = [];
      page.on('request', request => requests.push(request.url()));
      const halves = [{ ...net, end: 0.5 }, { ...net, start: 0.5 }];
      const both = await draw({ options, controlnets: halves });
      assert.ok(relative(both.latents, theirs(named('one'))) <= LATENTS);
      const first = await draw({ options, controlnets: [halves[0]] });
      assert.ok(relative(first.latents, theirs(named('one'))) > 3 * LATENTS);
      const nothing = await draw({ options, controlnets: [{ ...net, scale: 0 }] });
      assert.ok(relative(nothing.latents, theirs(named('none'))) <= LATENTS);
      assert.ok(relative((await draw(named('none'))).latents, theirs(named('none'))) <= LATENTS);
      assert.deepEqual(requests, []);
      assert.equal((await memory()).uploaded, before.uploaded);
    });

    await t.test('edges are found first; fewer runs of the UNet, word maps, memory "low"', async t => {
      const { options, controlnets: [net] } = named('one');
      const edges = await draw({ options, controlnets: [{ ...net, preprocess: 'canny' }] });
      assert.equal(edges.message, undefined);
      assert.ok(relative(edges.latents, theirs(named('one'))) > 3 * LATENTS);
      // Of steps that all run the whole UNet, the same latents; of others, some.
      const all = await draw({ options: { ...options, deepCache: { interval: 2, branch: 0 } }, controlnets: [net] });
      assert.equal(all.message, undefined);
      const less = relative(all.latents, theirs(named('one')));
      t.diagnostic(`DeepCache: ${less.toExponential(1)} off`);
      assert.ok(less < 0.5);
      const seen = await draw({ options: { ...options, inside: { attention: true } }, controlnets: [net] });
      assert.ok(relative(seen.latents, theirs(named('one'))) <= LATENTS);
      await open('sd2', { memory: 'low' });
      for (const name of ['two', 'none', 'one']) await check(t, name);
    });

    await t.test('over quantised weights', async t => {
      for (const [kind, none] of [['sd2', 'none'], ['xl', 'xl, none']]) {
        await open(kind, { weights: 'q8' });
        const alone = await off(t, named(none));
        for (const c of cases.filter(c => c.kind === kind && c.name !== none)) {
          const error = await off(t, c);
          assert.ok(error <= Math.max(OVER_Q8, alone + BESIDE_Q8), `${c.name}: ${error}, the UNet alone ${alone}`);
        }
      }
      await open('sd2', { weights: 'q4' });
      for (const name of ['none', 'two', 'LoRA']) await off(t, named(name));
    });

    await t.test('what does not fit or is broken is refused by name; nothing is lost', async t => {
      await open('sd2');
      const { options } = named('one');
      const refused = async (/** @type {string} */ name, /** @type {RegExp} */ why, more = {}, set = {}) => {
        const controlnets = [{ name, size: /** @type {[number, number]} */ ([64, 64]), ...more }];
        assert.match((await draw({ options: { ...options, ...set }, controlnets })).message ?? '', why);
      };
      await refused('lacking', new RegExp(`bad-checkpoint: .*lacks ${module}\\.mid\\.0\\.weight.*Choose`));
      await refused('without a bias', new RegExp(`bad-checkpoint: .*${module}\\.mid\\.0\\.bias.*choose`));
      await refused('infinite', new RegExp(`bad-checkpoint: .*${up}`));
      await refused('no number', new RegExp(`bad-checkpoint: .*${up}.*NaN`));
      await refused('empty', new RegExp(`bad-checkpoint: .*${up}`));
      await refused('turned', new RegExp(`bad-checkpoint: .*${up} is of shape \\[16,64\\]`));
      await refused('elsewhere', /unsupported-model: .*middle_block_9_proj_in\.down\.0\.weight is for a layer that/);
      await refused('of the text', /unsupported-model: .*attn2_to_k\.down\.0\.weight is for 64 channels.* reads 32 /);
      await refused('of the time', /unsupported-model: .*middle_block_0_emb_layers_1\.down\.0\.weight is for/);
      await refused('xl-one', /unsupported-model: .*ControlNet-LLLite for this sd1 model: lllite_unet_.*Choose/);
      const odd = { width: 72, height: 88 };
      await refused('one', /invalid-option: .*LLLite of controlnets takes sides that are multiples of 32, /, {}, odd);
      await refused('one', /invalid-option: .*is for a ControlNet Union/, { mode: 'canny' });
      await refused('one', /invalid-option: /, { start: 0.7, end: 0.2 });
      await check(t, 'two');
      const whole = await page.evaluate(async source => {
        const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
        return DiffusionPipeline.fromPretrained(source).catch((/** @type {any} */ e) => `${e.code}: ${e.message}`);
      }, `${server.url}/models/nets/one.safetensors`);
      assert.match(whole, /unsupported-model: .*is a ControlNet-LLLite, not a whole model.*`controlnets`/);
      errors.splice(0);
    });
  });
});
