// What is added to a model and to its prompts, through the public module in Chromium against diffusers: LoRAs of every
// format, textual inversion, CLIP skip, prompts of more than 77 tokens and emphasis. Expected latents:
// tests/reference/extras.py and lora_lycoris.py, in f32 on the tiny random models of pipelines.test.mjs.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { relative } from '../support/relative.mjs';
import { serve } from '../support/hub.mjs';
import { writeTiny } from '../support/tiny.mjs';

const LATENTS = 1e-2; // relative L2, as in pipelines.test.mjs

const reference = join(root, 'tests/reference/data/extras');
/** @typedef {{ name: string, kind: string, options: any, latents: number[], offset: number }} Case */
const cases = ['cases', 'lycoris'].flatMap(file => {
  const expected = readFileSync(join(reference, `${file}.bin`));
  /** @type {Case[]} */
  const read = JSON.parse(readFileSync(join(reference, `${file}.json`), 'utf8'));
  return read.filter(c => file === 'cases' || c.name !== 'plain').map(c => ({ ...c, expected }));
});

const models = mkdtempSync(join(tmpdir(), 'browser-diffusion-extras-'));
after(() => rmSync(models, { recursive: true }));
cpSync(reference, join(models, 'files'), { recursive: true });

test('LoRA, textual inversion, CLIP skip, long prompts', async t => {
  const server = await serve({ roots: { '/': join(root, 'www'), '/models/': models }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    /** @param {string} kind @param {any} [load] */
    const open = (kind, load = {}) => page.evaluate(async ({ source, load }) => {
      const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
      await /** @type {any} */ (window).pipeline?.dispose();
      Object.assign(window, { pipeline: await DiffusionPipeline.fromPretrained(source, load) });
    }, { source: `${server.url}/models/${kind}`, load });
    const at = (/** @type {string} */ file) =>
      `${server.url}/models/files/${file.includes('.') ? file : `${file}.safetensors`}`;
    /** @param {any} options as in cases.json @returns {Promise<{ latents: number[], unmatched: any[], parameters: string, code?: string, message?: string }>} */
    const draw = ({ loras, embeddings, ...options }) =>
      page.evaluate(
        async options => {
          try {
            const {
              latents: [latents],
              unmatched,
              parameters,
            } = await /** @type {any} */ (window).pipeline.generate({ ...options, output: 'latent' });
            return { latents: [...latents], unmatched, parameters };
          } catch (error) {
            const { code, message } = /** @type {any} */ (error);
            return { latents: [], unmatched: [], parameters: '', code, message };
          }
        },
        {
          ...options,
          ...(loras && { loras: loras.map((/** @type {any} */ { file, scale }) => ({ source: at(file), scale })) }),
          ...(embeddings && {
            embeddings: embeddings.map((/** @type {any} */ { file, token }) => ({ source: at(file), token })),
          }),
        },
      );
    const theirs = (/** @type {typeof cases[0]} */ c) => [
      ...new Float32Array(
        c.expected.buffer.slice(
          c.expected.byteOffset + c.offset,
          c.expected.byteOffset + c.offset + 4 * c.latents.reduce((a, b) => a * b),
        ),
      ),
    ];
    const named = (/** @type {string} */ name) => /** @type {typeof cases[0]} */ (cases.find(c => c.name === name));
    const plain = theirs(named('plain'));

    for (const kind of ['sd1', 'sdxl']) {
      writeTiny(join(models, kind), kind);
      await open(kind);
      for (const c of cases.filter(c => c.kind === kind)) {
        await t.test(c.name, async t => {
          const { latents, unmatched, message } = await draw(c.options);
          assert.equal(message, undefined);
          const error = relative(latents, theirs(c));
          const moved = kind === 'sd1' && c.name !== 'plain' ? relative(theirs(c), plain) : 1;
          t.diagnostic(`latents ${error.toExponential(1)}${moved < 1 ? `, moved by ${moved.toExponential(1)}` : ''}`);
          assert.ok(error <= LATENTS && error < moved / 3, `latents: ${error}`);
          assert.deepEqual(unmatched, []);
        });
      }
      if (kind === 'sdxl') break;

      await t.test(
        'without its LoRAs the model is what it was, and a tag in the prompt says how strong one is',
        async () => {
          const c = named('kohya 0.8');
          const tagged = await draw({
            ...c.options,
            prompt: `${c.options.prompt} <lora:kohya:0.8>`,
            promptSyntax: 'a1111',
            loras: [{ file: 'kohya', scale: 0 }],
          });
          assert.ok(relative(tagged.latents, theirs(c)) <= LATENTS);
          assert.match(tagged.parameters, /<lora:kohya:0\.8>/);
          const again = await draw(named('plain').options),
            other = await draw({ ...named('plain').options, loras: [{ file: 'kohya', scale: 0 }] });
          assert.deepEqual(again.latents, other.latents);
          assert.ok(relative(again.latents, plain) <= LATENTS);
          const missing = await draw({ ...c.options, prompt: 'a <lora:other:1>', promptSyntax: 'a1111' });
          assert.equal(missing.code, 'invalid-option');
          assert.match(missing.message ?? '', /other/);
        },
      );

      await t.test(
        'a scale changed from 0.5 to 0.8: nothing fetched, nothing of the base written to the GPU',
        async t => {
          await draw(named('kohya 0.5').options);
          const before = await page.evaluate(() => /** @type {any} */ (window).pipeline.memory());
          /** @type {string[]} */
          const requests = [];
          page.on('request', request => requests.push(request.url()));
          const { latents } = await draw(named('kohya 0.8').options);
          const after = await page.evaluate(() => /** @type {any} */ (window).pipeline.memory());
          t.diagnostic(
            `weights of ${after.weights} bytes, uploaded ${before.uploaded} before and ${after.uploaded} after; ` +
              `${requests.length} requests`,
          );
          assert.ok(relative(latents, theirs(named('kohya 0.8'))) <= LATENTS);
          assert.ok(before.uploaded > (0.9 * before.weights) / 2 && after.uploaded === before.uploaded);
          assert.deepEqual(requests, []);
        },
      );

      await t.test('a prompt token by token, as CLIP\'s own tokenizer has it', async () => {
        const view = (/** @type {string} */ prompt, /** @type {any} */ options) =>
          page.evaluate(
            ([prompt, options]) => /** @type {any} */ (window).pipeline.tokenize(prompt, options),
            /** @type {const} */ ([prompt, options]),
          );
        const apple = await view('a (red:1.3) apple, 🍎', { promptSyntax: 'a1111' });
        // Of "a", "red", "apple" and ",": CLIP's vocabulary, by transformers' CLIPTokenizer.
        assert.deepEqual(
          apple.tokens.slice(0, 4).map((/** @type {any} */ t) => [t.id, Math.round(t.weight * 10) / 10, t.cut]),
          [
            [320, 1, false],
            [736, 1.3, false],
            [3055, 1, false],
            [267, 1, false],
          ],
        );
        assert.equal(apple.foreign, false);
        const long = await view('cat '.repeat(90), {});
        assert.deepEqual([long.tokens.filter((/** @type {any} */ t) => !t.cut).length, long.tokens.length], [75, 90]);
        assert.equal((await view('cat '.repeat(90), { promptSyntax: 'a1111' })).chunks, 2);
        assert.equal((await view('一只老鼠在弹吉他', {})).foreign, true);
      });

      await t.test('memory "low": the LoRA is there again after its weights left', async () => {
        await open(kind, { memory: 'low' });
        for (const name of ['kohya 0.8', 'plain', 'kohya 0.5'])
          assert.ok(relative((await draw(named(name).options)).latents, theirs(named(name))) <= LATENTS, name);
        await open(kind);
      });

      // Low ranks are added when a layer runs, the other formats merged in f16 for their layers; q8's tolerance is that
      // of memory.test.mjs.
      await t.test('over q8 weights', async t => {
        await open(kind, { weights: 'q8' });
        for (const c of cases.filter(c => c.kind === kind && c.options.loras)) {
          const { latents, message } = await draw(c.options);
          assert.equal(message, undefined);
          const error = relative(latents, theirs(c)), moved = relative(theirs(c), plain);
          t.diagnostic(`${c.name}: latents ${error.toExponential(1)}, moved by ${moved.toExponential(1)}`);
          assert.ok(error <= 2e-2 && error < moved / 3, `${c.name}: ${error}`);
        }
        const bare = await draw(named('plain').options);
        await draw(named('kohya 0.5').options);
        const memory = () => page.evaluate(() => /** @type {any} */ (window).pipeline.memory());
        const before = await memory();
        const { latents } = await draw(named('kohya 0.8').options);
        const after = await memory();
        t.diagnostic(`weights of ${after.weights} bytes; another scale uploaded ${after.uploaded - before.uploaded}`);
        assert.ok(relative(latents, theirs(named('kohya 0.8'))) <= 2e-2);
        assert.ok(
          after.uploaded - before.uploaded <= statSync(join(reference, 'kohya.safetensors')).size,
          'no more than the LoRA',
        );
        assert.equal(after.weights, before.weights);
        assert.deepEqual(
          (await draw(named('plain').options)).latents,
          bare.latents,
          'without LoRAs it is what it was, bit for bit',
        );
        assert.ok(relative(bare.latents, plain) <= 2e-2);
      });

      await t.test('over q4 weights', async t => {
        await open(kind, { weights: 'q4' });
        const bare = (await draw(named('plain').options)).latents;
        for (const name of ['kohya 0.8', 'locon', 'lokr']) {
          const c = named(name), { latents } = await draw(c.options);
          const error = relative(latents, theirs(c));
          const moved = latents.map((v, i) => v - bare[i]), wanted = theirs(c).map((v, i) => v - plain[i]);
          t.diagnostic(
            `${name}: latents ${error.toExponential(1)}, the way it moves ${relative(moved, wanted).toExponential(1)}`,
          );
          // q4 alone may move the latents as far as some LoRAs do: what one adds to them must be its own (none at all: 1).
          assert.ok(error <= 1e-1 && relative(moved, wanted) < 0.5, `${name}: ${error}`);
        }
        await open(kind);
      });

      await t.test('files that are none, or of another model, are refused by name; nothing is lost', async () => {
        const refused = async (/** @type {any} */ more, /** @type {string} */ code, /** @type {RegExp} */ message) => {
          const result = await draw({ ...named('plain').options, ...more });
          assert.equal(result.code, code, result.message);
          assert.match(result.message ?? '', message);
        };
        await refused({ loras: [{ file: 'thing' }] }, 'unsupported-model', /thing\.safetensors/);
        await refused({ loras: [{ file: 'cases.json' }] }, 'invalid-option', /cases\.json/);
        await refused({ embeddings: [{ file: 'kohya', token: 'x' }] }, 'bad-checkpoint', /kohya/);
        assert.ok(relative((await draw(named('plain').options)).latents, plain) <= LATENTS);
      });
    }
  });
});
