// What comes with the model to practise with, drawn by the module in Chromium: the LoRA makes pictures ink on paper, the
// control makes them follow another picture's edges, each at eight prompts; neither is large; nothing of them is fetched
// before it is used, and then once. Prompts, pairs and measures are those of training/check_practice.py, which draws the
// same by diffusers; what is demanded here is taken from its figures at other seeds.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/** @typedef {import('playwright-core').Page} Page */

const folder = join(root, 'www/embedded');
const PARTS = ['lora/ink.safetensors', 'controlnet/diffusion_pytorch_model.safetensors'];

/**
 * Torch's means of eight sets of eight prompts, at other seeds, less four standard deviations of a set
 * (training/README.md).
 */
const LEAST = {
  chromaLess: 0.868 - 4 * 0.005, inkMore: 0.075 - 4 * 0.005, nearWith: 0.811 - 4 * 0.019,
  nearMore: 0.463 - 4 * 0.021,
};

/** How often each was asked for. @param {{ log: { path: string }[] }} server */
const fetched = server => PARTS.map(path => server.log.filter(request => request.path === `/embedded/${path}`).length);

/** A list of strings or of pairs as training/check_practice.py has it. @param {string} name */
const list = name => {
  const source = readFileSync(join(root, 'training/check_practice.py'), 'utf8');
  const [, text = ''] = new RegExp(`^${name} = (\\[[^\\]]*\\])`, 'm').exec(source) ?? [];
  return JSON.parse(text.replaceAll('(', '[').replaceAll(')', ']'));
};
/** @type {string[]} */
const prompts = list('PROMPTS');
/** @type {[shown: string, asked: string][]} */
const pairs = list('PAIRS');

test('each is at most a megabyte, and the folder at most 48', () => {
  for (const path of PARTS) assert.ok(statSync(join(folder, path)).size <= 1e6, path);
  const all = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile());
  const bytes = all.reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
  assert.ok(bytes <= 48e6, String(bytes));
});

/**
 * What is drawn, and measured as check_practice.py measures it: runs in the page.
 * @param {{ prompts: string[], pairs: [string, string][] }} what
 */
async function drawAndMeasure({ prompts, pairs }) {
  const at = (/** @type {string} */ path) => new URL(path, location.href).href;
  const { DiffusionPipeline, canny } = await import(at('browser-diffusion.js'));
  const pipeline = await DiffusionPipeline.fromPretrained('embedded');
  /** @typedef {{ width: number, height: number, data: Uint8ClampedArray }} Image */
  /** @param {string} prompt @param {number} seed @param {object} [options] @returns {Promise<Image>} */
  const draw = async (prompt, seed, options) => (await pipeline.generate({ prompt, seed, ...options })).images[0];
  const { canvas, sheet } = makeSheet(pairs.length, 6);
  /** @param {Image} image @param {number} column @param {number} row */
  const put = ({ data, width, height }, column, row) =>
    sheet.putImageData(new ImageData(new Uint8ClampedArray(data), width, height), column * width, row * height);

  /** The largest and the least of each pixel's three values. @param {Image} image */
  const ranges = ({ data }) => Array.from({ length: data.length / 4 }, (_, i) => {
    const rgb = data.subarray(4 * i, 4 * i + 3);
    return { most: Math.max(...rgb), range: Math.max(...rgb) - Math.min(...rgb) };
  });
  /** @param {Image[]} images */
  const style = images => {
    const all = images.flatMap(ranges);
    const ink = all.filter(({ most, range }) => most < 110 && range < 40).length / all.length;
    return { chroma: all.reduce((sum, { range }) => sum + range, 0) / all.length / 255, ink };
  };
  /** The share of shown's edges that have one of got's within two pixels. @param {Image} shown @param {Image} got */
  const near = (shown, got) => {
    const { width, height } = shown;
    const is = (/** @type {Image} */ { data }, /** @type {number} */ x, /** @type {number} */ y) =>
      x >= 0 && y >= 0 && x < width && y < height && data[4 * (y * width + x)] > 127;
    const around = [-2, -1, 0, 1, 2].flatMap(dy => [-2, -1, 0, 1, 2].map(dx => [dx, dy]));
    const edges = Array.from({ length: width * height }, (_, i) => [i % width, Math.floor(i / width)])
      .filter(([x, y]) => is(shown, x, y));
    return edges.filter(([x, y]) => around.some(([dx, dy]) => is(got, x + dx, y + dy))).length / edges.length;
  };
  const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  const plain = [], inked = [];
  for (const [k, prompt] of prompts.entries()) {
    const scaled = (/** @type {number} */ scale) =>
      draw(prompt, 1 + k, { loras: [{ source: at('embedded/lora/ink.safetensors'), scale }] });
    plain.push(await scaled(0));
    inked.push(await scaled(1));
    put(plain[k], k, 0);
    put(inked[k], k, 1);
  }
  const without = [], following = [];
  for (const [k, [whose, asked]] of pairs.entries()) {
    const image = await draw(whose, 1 + k);
    const edges = await canny(image);
    const control = { source: at('embedded/controlnet'), image, preprocess: 'canny' };
    const [alone, led] = [await draw(asked, 101 + k), await draw(asked, 101 + k, { controlnets: [control] })];
    without.push(near(edges, await canny(alone)));
    following.push(near(edges, await canny(led)));
    [image, edges, alone, led].forEach((each, i) => put(each, k, 2 + i));
  }
  await pipeline.dispose();
  return {
    plain: style(plain), inked: style(inked), without: mean(without), following: mean(following),
    sheet: canvas.toDataURL(),
  };

  /** @param {number} columns @param {number} rows */
  function makeSheet(columns, rows) {
    const canvas = Object.assign(document.createElement('canvas'), { width: 128 * columns, height: 128 * rows });
    const sheet = canvas.getContext('2d');
    if (!sheet) throw new Error('no canvas');
    return { canvas, sheet };
  }
}

test('the LoRA makes ink on paper of colours, and the control makes pictures follow edges', async t => {
  const server = await serve({ roots: { '/': join(root, 'www') }, files: { '/blank.html': '' } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const { sheet, ...got } = await page.evaluate(drawAndMeasure, { prompts, pairs });
    const shots = join(root, '.tools/screenshots');
    mkdirSync(shots, { recursive: true });
    writeFileSync(join(shots, 'practice.png'), Buffer.from(sheet.split(',')[1], 'base64'));
    t.diagnostic(JSON.stringify(got));
    const { plain, inked, without, following } = got;
    assert.ok(1 - inked.chroma / plain.chroma >= LEAST.chromaLess, 'colours go');
    assert.ok(inked.ink - plain.ink >= LEAST.inkMore, 'lines come');
    assert.ok(following >= LEAST.nearWith, 'edges are followed');
    assert.ok(following - without >= LEAST.nearMore, 'more than by chance');
    assert.deepEqual(fetched(server), [1, 1]);
  });
});

test('chapter 7 has a button for each, by mouse, by keyboard, in both languages; its link; fetched once', async t => {
  const server = await serve({ roots: { '/': join(root, 'www') } });
  t.after(server.close);
  await withBrowser({}, async context => {
    const page = await context.newPage();
    /** Hashes of what the six canvases show. @param {Page} page */
    const shown = page => page.evaluate(() => [...document.querySelectorAll('#practice .cells canvas')].map(each => {
      const canvas = /** @type {HTMLCanvasElement} */ (each);
      const { data } = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d')).getImageData(0, 0, 128, 128);
      return data.reduce((hash, value) => (Math.imul(hash, 31) + value) | 0, 7);
    }));
    /** @param {Page} page */
    const played = async page => {
      await page.waitForFunction(() => document.body.dataset.ready);
      await page.locator('#practice .experiments').scrollIntoViewIfNeeded();
      await page.waitForFunction(() => document.getElementById('practice')?.dataset.state === 'played');
    };
    const captions = (/** @type {Page} */ page) => page.locator('#practice figcaption').allInnerTexts();
    await page.goto(`${server.url}/learn.html#practice&what=steps`);
    await played(page);
    assert.deepEqual(fetched(server), [0, 0], 'nothing of them before they are used');

    await page.click('[data-experiment=lora]');
    await played(page);
    assert.deepEqual(await captions(page), [0, 0.3, 0.6, 0.9, 1.2, 1.5].map(scale => `LoRA ${scale}`));
    const inked = await shown(page);
    assert.equal(new Set(inked).size, 6, 'each is another picture');
    assert.deepEqual(fetched(server), [1, 0]);

    await page.focus('[data-experiment=control]');
    await page.keyboard.press('Enter');
    await played(page);
    const led = await shown(page);
    assert.equal(new Set(led).size, 6);
    assert.deepEqual(fetched(server), [1, 1]);
    const link = await page.getAttribute('#practice .link', 'href');
    assert.match(link ?? '', /what=control/);

    // Elsewhere, later, in the other language: from what the browser keeps, the same pictures.
    const other = await context.newPage();
    await other.goto(`${server.url}/zh/learn.html${link}`);
    await played(other);
    assert.equal(await other.getAttribute('[data-experiment=control]', 'aria-pressed'), 'true');
    assert.match((await captions(other)).join(' '), /你的图片的边缘.*西瓜，强度 0\.5/);
    assert.deepEqual(await shown(other), led);
    assert.deepEqual(fetched(server), [1, 1], 'kept');
  });
});
