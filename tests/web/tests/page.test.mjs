// The page as a visitor meets it: the embedded model draws what it is asked for, every step is shown. The
// screenshot in README.md is this test's, made again with SCREENSHOT=1.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { adapters, withBrowser, root } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';
import { setLevel } from '../support/level.mjs';
import { writeSingle } from '../support/single.mjs';
import { writeTiny } from '../support/tiny.mjs';

test('the page draws a red apple', async t => {
  const server = await serve({ roots: { '/': `${root}/www` } });
  t.after(() => server.close());
  await withBrowser({ adapter: adapters[0] }, async context => {
    const page = await context.newPage();
    await page.addInitScript(setLevel, 'all');
    await page.setViewportSize({ width: 1200, height: 1050 });
    await page.goto(`${server.url}/index.html`);
    await page.fill('#prompt', 'a red apple');
    await page.fill('#steps', '20');
    await page.fill('#seed', '1');
    await page.waitForFunction(
      () => !/** @type {HTMLButtonElement} */ (document.querySelector('#generate')).disabled,
      null,
    );
    await page.click('#generate');
    await page.waitForFunction(() => /** @type {any} */ (window).browserDiffusion?.lastResult, null);

    const seen = await page.evaluate(() => {
      const { images: [image], timings } = /** @type {any} */ (window).browserDiffusion.lastResult;
      const { width, height, data } = image;
      /** Mean colour of a square of 16 pixels. @param {number} x0 @param {number} y0 */
      const mean = (x0, y0) => {
        const sum = [0, 0, 0];
        for (let y = y0; y < y0 + 16; y++)
          for (let x = x0; x < x0 + 16; x++) for (let c = 0; c < 3; c++) sum[c] += data[(y * width + x) * 4 + c];
        return sum.map(v => v / 256);
      };
      const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector('#canvas'));
      return {
        width, height, centre: mean(width / 2 - 8, height / 2), corner: mean(2, 2), steps: timings.steps.length,
        frames: document.querySelectorAll('#strip > *').length, canvas: canvas.width > 0, timings,
      };
    });
    t.diagnostic(
      `centre ${seen.centre.map(Math.round)}, corner ${seen.corner.map(Math.round)}, ` +
        `${Math.round(seen.timings.total)} ms`,
    );
    assert.equal(seen.width, 128);
    assert.equal(seen.height, 128);
    assert.equal(seen.steps, 20);
    assert.ok(seen.frames >= 20, `${seen.frames} frames in the strip`);
    const [red, green, blue] = seen.centre;
    assert.ok(red > 120 && red > green + 60 && red > blue + 60, `the middle is red: ${seen.centre}`);
    assert.ok(Math.min(...seen.corner) > 200, `the ground is white: ${seen.corner}`);
    // What the page shows before anything is fetched is this very picture. Its file is lossy: at this quality WebP moves
    // a value by some two of 255.
    const off = await page.evaluate(async () => {
      const { images: [{ width, height, data }] } = /** @type {any} */ (window).browserDiffusion.lastResult;
      const sheet = await (await fetch('example/steps.webp')).blob();
      const canvas = new OffscreenCanvas(width, height);
      const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
      context.drawImage(await createImageBitmap(sheet, 20 * width, 0, width, height), 0, 0);
      const example = context.getImageData(0, 0, width, height).data;
      return example.reduce((sum, value, i) => sum + Math.abs(value - data[i]), 0) / (example.length * 0.75);
    });
    t.diagnostic(`the example is off by ${off.toFixed(2)} of 255`);
    assert.ok(off < 6, `${off}: draw it again, node tests/web/support/example.mjs`);
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({
      path: process.env.SCREENSHOT ? `${root}/docs/screenshot.png` : `${root}/.tools/screenshot.png`,
    });
  });
});

test(
  'a file from disk is the model; one that is no checkpoint is refused and nothing is lost',
  async t => {
    const server = await serve({ roots: { '/': `${root}/www` } });
    t.after(() => server.close());
    await withBrowser({ adapter: adapters[0] }, async context => {
      const page = await context.newPage();
      await page.addInitScript(setLevel, 'all');
      await page.goto(`${server.url}/index.html`);
      await page.fill('#prompt', 'a (red:1.2) apple');
      await page.setInputFiles('#files', { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('no') });
      assert.match((await page.textContent('#error')) ?? '', /notes\.txt is no checkpoint/);
      assert.equal(await page.inputValue('#source'), 'embedded');
      await page.setInputFiles('#files', { name: 'broken.safetensors', mimeType: '', buffer: Buffer.alloc(64, 7) });
      assert.equal(await page.inputValue('#source'), 'broken.safetensors');
      await page.waitForFunction(
        () => !(/** @type {HTMLButtonElement} */ (document.querySelector('#generate')).disabled),
        null,
      );
      await page.click('#generate');
      await page.waitForFunction(
        () => /broken\.safetensors/.test(document.querySelector('#error')?.textContent ?? ''),
        null,
      );
      assert.equal(await page.inputValue('#prompt'), 'a (red:1.2) apple');
    });
  },
);

test(
  'what is dropped on the page is the model: a file, and a folder as diffusers keeps it',
  async t => {
    const temp = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
    t.after(() => rmSync(temp, { recursive: true }));
    writeTiny(join(temp, 'my folder'), 'single-sd1');
    writeSingle(join(temp, 'mine.safetensors'), 'sd1', { format: 'safetensors' });
    writeSingle(join(temp, 'mine.ckpt'), 'sd1', { format: 'zip', dtype: 'f32' });
    const server = await serve({ roots: { '/': `${root}/www` } });
    t.after(() => server.close());
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.addInitScript(setLevel, 'all');
      await page.goto(`${server.url}/index.html`);
      const session = await context.newCDPSession(page);
      /** As the desktop does it. @param {string} file */
      const drop = async file => {
        const data = { items: [], files: [file], dragOperationsMask: 1 };
        for (const type of /** @type {const} */ (['dragEnter', 'dragOver', 'drop']))
          await session.send('Input.dispatchDragEvent', { type, x: 50, y: 50, data });
      };
      const pictures = [];
      for (const name of ['mine.safetensors', 'my folder', 'mine.ckpt']) {
        await drop(join(temp, name));
        await page.waitForFunction(
          name => /** @type {HTMLInputElement} */ (document.getElementById('source')).value === name,
          name,
        );
        assert.match((await page.textContent('#status')) ?? '', /is the model now.*nothing is uploaded/);
        for (const [id, value] of [
          ['prompt', 'a cat'],
          ['width', '16'],
          ['height', '16'],
          ['steps', '2'],
          ['seed', '7'],
        ])
          await page.fill(`#${id}`, value);
        await page.evaluate(() => {
          delete /** @type {any} */ (window).browserDiffusion;
        });
        await page.click('#generate');
        await page.waitForFunction(() => /** @type {any} */ (window).browserDiffusion?.lastResult, null);
        pictures.push(
          await page.evaluate(() => [.../** @type {any} */ (window).browserDiffusion.lastResult.images[0].data]),
        );
      }
      assert.equal(pictures[0].length, 4 * 16 * 16);
      assert.deepEqual(pictures[1], pictures[0], 'the folder and the file are the same model');
      assert.deepEqual(pictures[2], pictures[0]);
      assert.ok(
        server.log.every(r => r.method === 'GET'),
        'nothing is uploaded',
      );
    });
  },
);

test(
  'an ESRGAN enlarges: the picture that is shown by mouse, the second pass by keyboard',
  async t => {
    const server = await serve({ roots: { '/': `${root}/www` } });
    t.after(() => server.close());
    await withBrowser({ adapter: adapters[0] }, async context => {
      const page = await context.newPage();
      await page.addInitScript(setLevel, 'all');
      await page.setViewportSize({ width: 1200, height: 1050 });
      await page.goto(`${server.url}/index.html`);
      for (const [id, value] of [
        ['prompt', 'a red apple'],
        ['steps', '2'],
        ['width', '64'],
        ['height', '64'],
        ['seed', '1'],
      ])
        await page.fill(`#${id}`, value);
      await page.waitForFunction(() => /^Ready/.test(document.getElementById('status')?.textContent ?? ''), null);
      await page.click('#generate');
      await page.waitForFunction(() => /** @type {any} */ (window).browserDiffusion?.lastResult, null);
      await page.click('#bigger summary');
      await page.click('#upscale');
      assert.match(await page.innerText('#error'), /Choose an ESRGAN model/);
      await page.setInputFiles('#upscaler-file', `${root}/tests/reference/data/upscaler/esrgan-old.safetensors`);
      await page.click('#upscale');
      await page.waitForFunction(
        () => /^Enlarged to 256 × 256/.test(document.getElementById('status')?.textContent ?? ''),
        null,
      );
      const size = () =>
        page.evaluate(() => {
          const { width, height } = /** @type {HTMLCanvasElement} */ (document.getElementById('canvas'));
          return [width, height];
        });
      assert.deepEqual(await size(), [256, 256]);
      assert.match(await page.innerText('#caption'), /enlarged to 256 × 256/);
      assert.equal(await page.locator('#gallery button').count(), 2, 'the small one is kept');
      await page.screenshot({ path: `${root}/.tools/screenshots/upscaled.png`, fullPage: true });

      await page.focus('#hires-scale');
      await page.keyboard.press('ArrowDown');
      assert.equal(await page.inputValue('#hires-scale'), '1.5');
      await page.keyboard.press('Tab');
      await page.keyboard.press('Tab');
      await page.keyboard.press('Tab');
      await page.keyboard.press('End');
      assert.equal(await page.inputValue('#hires-upscaler'), 'file');
      await page.evaluate(() => {
        delete /** @type {any} */ (window).browserDiffusion;
      });
      await page.keyboard.press('Control+Enter');
      await page.waitForFunction(() => /** @type {any} */ (window).browserDiffusion?.lastResult, null);
      assert.deepEqual(await size(), [96, 96]);
      await page.focus('#upscale');
      await page.keyboard.press('Space');
      await page.waitForFunction(
        () => /^Enlarged to 384 × 384/.test(document.getElementById('status')?.textContent ?? ''),
        null,
      );
      await page.screenshot({ path: `${root}/.tools/screenshots/upscaled-by-keyboard.png`, fullPage: true });
      await page.setInputFiles('#upscaler-file', { name: 'none.pth', mimeType: '', buffer: Buffer.from('nothing') });
      await page.focus('#upscale');
      await page.keyboard.press('Enter');
      await page.waitForFunction(
        () => /damaged or incomplete/.test(document.getElementById('error')?.textContent ?? ''),
        null,
      );
      assert.deepEqual(await size(), [384, 384], 'the picture is as it was');
    });
  },
);
