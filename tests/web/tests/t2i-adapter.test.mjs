// T2I-Adapters through the public module in Chromium against diffusers' StableDiffusionAdapterPipeline and
// StableDiffusionXLAdapterPipeline: each kind, several with weights, start and end, grey pictures, without guidance, with a
// LoRA; folders and files of the original code. Expected latents: tests/reference/t2i_adapter.py.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { controlled } from '../support/controlled.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { models as kinds, tinyTensor, writeLora, writeSafetensors, writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2

const reference = join(root, 'tests/reference/data/t2i_adapter');
const read = (/** @type {string} */ name) => JSON.parse(readFileSync(join(reference, name), 'utf8'));
/** @typedef {import('../support/controlled.mjs').Net} Net */
/** @type {{ name: string, kind: string, controlnets: Net[], options: any, latents: number[], offset: number }[]} */
const cases = read('cases.json');
const expected = readFileSync(join(reference, 'cases.bin'));
/** @type {Record<string, { prefix: string, gain: number, config: any, tensors: string[] }>} */
const adapters = read('adapters.json');
const deep = read('deep.json');
kinds.deep = {
  ...kinds.sdxl,
  components: { ...kinds.sdxl.components, unet: deep.config },
  tensors: { ...kinds.sdxl.tensors, unet: deep.tensors },
};

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-t2i-'));
after(() => rmSync(models, { recursive: true }));
writeLora(join(models, 'snow.safetensors'));

/** A name in TencentARC's files. @param {string} name @param {boolean} light */
const original = (name, light) =>
  light
    ? name.replace('adapter.', '').replace('.resnets.', '.body.')
    : name
        .replace('adapter.', '')
        .replace(/body\.(\d)\.resnets\.(\d)/, (_, i, j) => `body.${2 * i + Number(j)}`)
        .replace(/body\.(\d)\.in_conv/, (_, i) => `body.${2 * i}.in_conv`);

for (const [name, { prefix, gain, config, tensors }] of Object.entries(adapters)) {
  const folder = join(models, 'nets', name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const written = tensors.map(line => {
    const [tensor, ...shape] = line.split(' ');
    return tinyTensor(tensor, shape.map(Number), gain, prefix + tensor);
  });
  writeSafetensors(join(folder, 'diffusion_pytorch_model.safetensors'), written);
  const file = (/** @type {string} */ end) => join(models, 'nets', `${name}${end}.safetensors`);
  writeSafetensors(file(''), written);
  const light = config.adapter_type === 'light_adapter';
  writeSafetensors(file('-original'), written.map(t => ({ ...t, name: original(t.name, light) })));
}

test('T2I-Adapters', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const { open, draw } = controlled(page, `${server.url}/models`);
    const theirs = (/** @type {typeof cases[0]} */ c) => {
      const from = expected.byteOffset + c.offset;
      return [...new Float32Array(expected.buffer.slice(from, from + 4 * c.latents.reduce((a, b) => a * b)))];
    };
    const named = (/** @type {string} */ name) => /** @type {typeof cases[0]} */ (cases.find(c => c.name === name));
    const memory = () => page.evaluate(() => /** @type {any} */ (window).pipeline.memory());

    for (const kind of ['sd2', 'sdxl', 'deep']) {
      writeTiny(join(models, kind), kind);
      await open(kind);
      for (const c of cases.filter(c => c.kind === kind)) {
        await t.test(c.name, async t => {
          const { latents, message } = await draw(c);
          assert.equal(message, undefined);
          const error = relative(latents, theirs(c));
          t.diagnostic(`latents ${error.toExponential(1)}`);
          assert.ok(error <= LATENTS, `latents: ${error}`);
        });
      }
      if (kind !== 'sd2') continue;

      await t.test('one file, by diffusers\' names and by the original code\'s', async t => {
        for (const name of ['full', 'light', 'grey']) {
          const c = named(name);
          for (const end of ['', '-original']) {
            const net = { ...c.controlnets[0], name: `${name}${end}.safetensors` };
            const { latents, message, parameters } = await draw({ ...c, controlnets: [net] });
            assert.equal(message, undefined);
            const error = relative(latents, theirs(c));
            t.diagnostic(`${net.name}: latents ${error.toExponential(1)}`);
            assert.ok(error <= LATENTS, `${net.name}: ${error}`);
            assert.match(parameters, new RegExp(`ControlNet 0: "Module: none, Model: .*${net.name}, Weight: `));
          }
        }
      });

      await t.test('first steps and the others together are all; nothing is fetched or uploaded again', async () => {
        const { options, controlnets: [net] } = named('full');
        await draw(named('full'));
        const before = await memory();
        /** @type {string[]} */
        const requests = [];
        page.on('request', request => requests.push(request.url()));
        const halves = [{ ...net, end: 0.5 }, { ...net, start: 0.5 }];
        const both = await draw({ options, controlnets: halves });
        assert.ok(relative(both.latents, theirs(named('full'))) <= LATENTS);
        const first = await draw({ options, controlnets: [halves[0]] });
        assert.ok(relative(first.latents, theirs(named('full'))) > 10 * LATENTS);
        assert.ok(relative((await draw(named('none'))).latents, theirs(named('none'))) <= LATENTS);
        assert.deepEqual(requests, []);
        assert.equal((await memory()).uploaded, before.uploaded);
      });

      await t.test('edges are found first; fewer runs of the UNet, memory "low"', async () => {
        const { options, controlnets: [net] } = named('full');
        const edges = await draw({ options, controlnets: [{ ...net, preprocess: 'canny' }] });
        assert.equal(edges.message, undefined);
        assert.ok(relative(edges.latents, theirs(named('full'))) > 10 * LATENTS);
        const cached = { ...options, deepCache: { interval: 2, branch: 0 } };
        assert.equal((await draw({ options: cached, controlnets: [net] })).message, undefined);
        await open(kind, { memory: 'low' });
        for (const name of ['two', 'none', 'full'])
          assert.ok(relative((await draw(named(name))).latents, theirs(named(name))) <= LATENTS, name);
        await open(kind);
      });

      await t.test('what does not fit is refused before its weights are fetched; nothing is lost', async () => {
        /** @type {string[]} */
        const requests = [];
        page.on('request', request => requests.push(request.url()));
        const { options, controlnets: [net] } = named('full');
        const refused = async (/** @type {any} */ more, /** @type {RegExp} */ why, set = {}) =>
          assert.match(
            (await draw({ options: { ...options, ...set }, controlnets: [{ ...net, ...more }] })).message ?? '',
            why,
          );
        await refused({ name: 'xl' }, /unsupported-model: .*T2I-Adapter for another kind of model.*sd1 model\. Choose/);
        assert.deepEqual(requests.filter(url => /safetensors/.test(url)), []);
        await refused({ mode: 'canny' }, /invalid-option: .*is for a ControlNet Union/);
        await refused({ start: 0.7, end: 0.2 }, /invalid-option: /);
        assert.ok(relative((await draw(named('full'))).latents, theirs(named('full'))) <= LATENTS);
        errors.splice(0);
      });
    }
  });
});
