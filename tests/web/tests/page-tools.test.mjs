// The page's tools, by mouse and by keyboard: a picture to start from and the brush, several pictures, the grid, what
// waits. The engine is fake-engine.js, whose result tells the options that reached it. Screenshots: .tools/screenshots.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { asked, drawAgain, goOn, hasResult, shot, status, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** A picture of one colour as the page could be given it. @param {Page} page @param {number} width @param {number} height */
const pictureFile = async (page, width, height) => {
  const bytes = await page.evaluate(async ([w, h]) => {
    const canvas = new OffscreenCanvas(w, h);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
    context.fillStyle = 'rgb(20 120 60)';
    context.fillRect(0, 0, w, h);
    return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
  }, [width, height]);
  return { name: 'meadow.png', mimeType: 'image/png', buffer: Buffer.from(bytes) };
};

test('a picture to start from: whole by mouse, then painted over by mouse and by keyboard', () =>
  withPage({ height: 1400 }, async page => {
    await status(page, /^Ready/);
    await page.click('#start summary');
    await page.setInputFiles('#image', await pictureFile(page, 128, 64));
    await page.waitForSelector('#editor:not([hidden])');
    await page.fill('#strength', '0.6');
    await page.click('#generate');
    await hasResult(page);
    const whole = await asked(page);
    assert.deepEqual(
      [whole.image.width, whole.image.height, whole.strength, whole.maskImage],
      [64, 64, 0.6, undefined],
    );

    await page.locator('#paint').scrollIntoViewIfNeeded();
    const box = /** @type {{ x: number, y: number, width: number, height: number }} */ (
      await page.locator('#paint').boundingBox()
    );
    await page.mouse.move(box.x + box.width * 0.1, box.y + box.height * 0.5);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.9, box.y + box.height * 0.5, { steps: 4 });
    await page.mouse.up();
    await shot(page, 'paint');
    await drawAgain(page);
    const { maskImage } = await asked(page);
    // A line of 0.8 of the width and 0.12 of the height, with round ends.
    assert.ok(Math.abs(maskImage.white - (0.8 * 0.12 + Math.PI * 0.06 ** 2)) < 0.03, String(maskImage.white));

    await page.click('#clear-paint');
    await page.focus('#paint');
    await page.keyboard.press(' ');
    for (let i = 0; i < 4; i++) await page.keyboard.press('Shift+ArrowRight');
    await drawAgain(page, () => page.keyboard.press('Control+Enter'));
    const byKeys = await asked(page);
    // A dot of 0.12 and a line of four half brushes.
    assert.ok(
      Math.abs(byKeys.maskImage.white - (Math.PI * 0.06 ** 2 + 4 * 0.06 * 0.12)) < 0.02,
      String(byKeys.maskImage.white),
    );
    await page.keyboard.press('Backspace');
    await page.click('#remove-image');
    assert.ok(await page.isHidden('#editor'));
    await page.focus('#prompt');
    await drawAgain(page, () => page.keyboard.press('Enter'));
    assert.equal((await asked(page)).image, undefined);
  }),
);

test('the picture that was made is started from; a file that is no picture is refused', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    assert.ok(await page.isDisabled('#redraw'));
    await page.click('#generate');
    await hasResult(page);
    await page.focus('#redraw');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#editor:not([hidden])');
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'paint');
    await page.fill('#strength', '2');
    await page.click('#start summary'); // closed: it opens again where the field is wrong
    await page.click('#generate');
    await page.waitForFunction(() => /Strength/.test(document.getElementById('error')?.textContent ?? ''));
    await page.fill('#strength', '1');
    await page.setInputFiles('#image', { name: 'x.png', mimeType: 'image/png', buffer: Buffer.from('no') });
    await page.waitForFunction(() => /no picture/.test(document.getElementById('error')?.textContent ?? ''));
  }),
);

test('several pictures of one seed, at once, each kept, shown and saved by itself', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.click('#chance summary');
    await page.uncheck('#own-seeds');
    await page.fill('#count', '3');
    await page.fill('#clip-skip', '1');
    await page.fill('#seed', '5');
    await page.click('#generate');
    await hasResult(page);
    const { numImages, clipSkip } = await asked(page);
    assert.deepEqual([numImages, clipSkip], [3, 1]);
    assert.equal(await page.locator('#gallery button').count(), 3);
    assert.equal(await page.locator('#strip li').count(), 23);
    await page.focus('#scrub');
    await page.keyboard.press('End');
    assert.match(await page.innerText('#caption'), /picture 3 of 3/);
    const [third] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
    assert.equal(third.suggestedFilename(), 'a-red-apple-5-3.png');
    await page.focus('#gallery button >> nth=2');
    await page.keyboard.press('Enter');
    // It is read from the database.
    await page.waitForFunction(() => document.getElementById('caption')?.innerText.includes('picture 1 of 3'));
    await shot(page, 'several');
  }),
);

test(
  'several pictures of a seed each, one after another; when they are stopped, those that are done stay',
  () =>
    withPage({}, async page => {
      await status(page, /^Ready/);
      await page.fill('#count', '3');
      await page.fill('#steps', '3');
      await page.fill('#seed', '5');
      await page.click('#generate');
      await status(page, /^Done in .* Seeds 5 to 7\.$/);
      assert.equal(await page.locator('#gallery button').count(), 3);
      assert.deepEqual([(await asked(page)).numImages, (await asked(page)).seed], [1, 7]);
      const [third] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
      assert.equal(third.suggestedFilename(), 'a-red-apple-7.png');

      // A variation counts its own seed.
      await page.click('#chance summary');
      await page.fill('#variation-seed', '20');
      await page.fill('#seed', '');
      await drawAgain(page);
      await status(page, /^Done in .* Seed \d+\.$/);
      const { seed, variationSeed } = await asked(page);
      assert.equal(variationSeed, 22);
      assert.equal(await page.innerText('#used-seed'), String(seed));

      await page.fill('#variation-seed', '');
      await page.fill('#steps', '40');
      await page.fill('#prompt', 'a red apple that holds at 5');
      const held = () =>
        page.waitForFunction(() => document.getElementById('caption')?.textContent?.startsWith('Step 5 of 40'));
      await drawAgain(page, async () => {
        await page.click('#generate');
        await held();
        await goOn(page);
      });
      await held(); // of the second
      await page.keyboard.press('Escape');
      await status(page, /^Stopped after step \d+\. This is your picture from before\.$/);
      assert.equal(await page.locator('#gallery button').count(), 7, 'the first of the three is kept');
      assert.match(await page.innerText('#caption'), /painted out by the decoder/);
      await page.focus('#scrub');
      await page.keyboard.press('Home');
      assert.match(await page.innerText('#caption'), /^Step 1 of 40/);
    }),
);

test('a grid: every cell is drawn with its values, kept, and the sheet has labels', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.fill('#width', '64');
    await page.fill('#height', '64');
    await page.fill('#prompt', 'a red apple');
    await page.click('#grid summary');
    await page.selectOption('#axis-x', 'steps');
    await page.fill('#values-x', '2-6 (+2)');
    await page.selectOption('#axis-y', 'words');
    await page.fill('#values-y', 'blue, green');
    await page.click('#draw-grid');
    await page.waitForFunction(() =>
      /“blue” is not in the prompt/.test(document.getElementById('error')?.textContent ?? ''),
    );
    await page.fill('#values-y', 'red, green');
    await page.focus('#draw-grid');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() =>
      /a grid of 6 pictures/.test(document.getElementById('caption')?.textContent ?? ''),
    );
    const { prompt, numInferenceSteps } = await asked(page);
    assert.deepEqual([prompt, numInferenceSteps], ['a green apple', 6]);
    assert.equal(await page.locator('#gallery button').count(), 7);
    const [width, height] = await page.evaluate(() => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (document.getElementById('canvas'));
      return [width, height];
    });
    assert.ok(width > 3 * 64 && height > 2 * 64, `${width} x ${height}`);
    await shot(page, 'grid');
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#save')]);
    assert.equal(download.suggestedFilename(), 'grid-a-red-apple.png');
  }),
);

test('a grid that is stopped keeps what was drawn', () => withPage({}, async page => {
  await status(page, /^Ready/);
  await page.click('#grid summary');
  await page.selectOption('#axis-x', 'steps');
  await page.fill('#values-x', '2, 900');
  await page.fill('#prompt', 'a red apple that holds at 3');
  await page.click('#draw-grid');
  await page.waitForFunction(() => document.getElementById('caption')?.textContent?.startsWith('Step 3 of 900'));
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => /a grid of 1 pictures/.test(document.getElementById('caption')?.textContent ?? ''));
  await status(page, /^Stopped/);
}));

test('what waits is listed, can be taken out, and is drawn in its turn', () => withPage({}, async page => {
  await status(page, /^Ready/);
  assert.ok(await page.isHidden('#enqueue'));
  await page.fill('#steps', '60');
  await page.fill('#prompt', 'first holds at 1');
  await page.click('#generate');
  await page.fill('#steps', '2');
  for (const words of ['second', 'third']) {
    await page.fill('#prompt', words);
    await page.click('#enqueue');
  }
  assert.deepEqual(
    await page
      .locator('#queue li')
      .allInnerTexts()
      .then(texts => texts.map(t => t.split(/\s/)[0])),
    ['second', 'third'],
  );
  await shot(page, 'waiting');
  await page.focus('#queue button >> nth=0');
  await page.keyboard.press('Enter');
  await goOn(page);
  await page.waitForFunction(() =>
    /^third/.test(/** @type {any} */ (window).browserDiffusion?.lastResult.parameters ?? ''),
  );
  await status(page, /^Done/);
  assert.ok(await page.isHidden('#queue'));
  assert.equal(await page.locator('#gallery button').count(), 2, 'first and third');
}));

test(
  'LoRAs, words and the noise: rows by mouse and by keyboard, files from disk; the prompt as it is read',
  () =>
    withPage({ height: 1400 }, async page => {
      await status(page, /^Ready/);
      await page.click('#additions summary');
      await page.click('#add-lora');
      await page.keyboard.type('https://example.org/style.safetensors');
      await page.fill('#loras li:nth-child(1) [data-key=scale]', '0.6');
      await page.focus('#add-lora');
      await page.keyboard.press('Enter');
      await page.setInputFiles('#loras li:nth-child(2) input[type=file]', {
        name: 'mine.safetensors',
        mimeType: '',
        buffer: Buffer.from('x'),
      });
      await page.click('#add-embedding');
      await page.fill('#embeddings [data-key=token]', 'thing');
      await page.fill('#embeddings [data-key=source]', 'https://example.org/thing.pt');
      await page.click('#add-embedding'); // an empty row asks for nothing
      await page.click('#chance summary');
      await page.fill('#variation-seed', '12');
      await page.fill('#variation-strength', '0.25');
      await page.selectOption('#rng', 'torch-cuda');
      await page.click('#reading summary');
      await page.fill('#prompt', 'a (red apple <lora:style:0.7>');
      await page.waitForFunction(() => document.querySelectorAll('#tokens span').length === 4);
      assert.equal(await page.locator('#tokens .heavy').innerText(), '(red');
      await shot(page, 'additions');
      await page.click('#generate');
      await hasResult(page);
      const { loras, embeddings, variationSeed, variationStrength, rng } = await asked(page);
      // What <lora:style:0.7> calls the first, the engine reads.
      assert.deepEqual(
        loras.map((/** @type {any} */ l) => [l.source, l.name, l.scale, Boolean(l.files)]),
        [
          ['https://example.org/style.safetensors', 'style', 0.6, false],
          ['mine.safetensors', 'mine', 1, true],
        ],
      );
      assert.deepEqual(
        embeddings.map((/** @type {any} */ e) => [e.token, e.source]),
        [['thing', 'https://example.org/thing.pt']],
      );
      assert.deepEqual([variationSeed, variationStrength, rng], [12, 0.25, 'torch-cuda']);
      await page.click('#loras li:nth-child(1) button');
      await page.fill('#prompt', '宇航员骑马');
      await page.waitForSelector('#half-read:not([hidden])');
      assert.ok(await page.isHidden('#read-as') && await page.isHidden('#foreign'));
      await page.fill('#prompt', '一只 红苹果');
      await page.waitForSelector('#read-as:not([hidden])');
      assert.equal(await page.textContent('#read-as-words'), 'a red apple');
      await page.waitForSelector('#half-read', { state: 'hidden' });
      await drawAgain(page);
      assert.equal((await asked(page)).prompt, 'a red apple');
      assert.equal((await asked(page)).loras.length, 1);
    }),
);

test('what is under the paint, extending, and the second pass: by mouse and by keyboard', () =>
  withPage({ height: 1400 }, async page => {
    await status(page, /^Ready/);
    await page.click('#bigger summary');
    await page.selectOption('#hires-scale', '2');
    await page.selectOption('#hires-upscaler', 'file');
    await page.click('#generate');
    await page.waitForFunction(() => /ESRGAN/.test(document.getElementById('error')?.textContent ?? ''));
    await page.selectOption('#hires-upscaler', 'latent-bicubic');
    await page.focus('#hires-strength');
    await page.keyboard.press('Control+A');
    await page.keyboard.type('0.55');
    await shot(page, 'bigger');
    await page.keyboard.press('Control+Enter');
    await hasResult(page);
    assert.deepEqual((await asked(page)).hires, { scale: 2, strength: 0.55, upscaler: 'latent-bicubic' });

    await page.focus('#start summary');
    await page.keyboard.press('Enter');
    await page.setInputFiles('#image', await pictureFile(page, 64, 64));
    await page.waitForSelector('#editor:not([hidden])');
    await page.focus('#paint');
    await page.keyboard.press(' ');
    await page.fill('#mask-blur', '4');
    await page.selectOption('#masked-content', 'fill');
    await page.selectOption('#inpaint-area', 'masked');
    await shot(page, 'under-the-paint');
    await drawAgain(page);
    const painted = await asked(page);
    assert.deepEqual(
      [painted.maskBlur, painted.maskedContent, painted.inpaintArea, painted.hires],
      [4, 'fill', 'masked', undefined],
    );
    assert.ok(painted.maskImage.white > 0);

    await page.fill('#extend-right', '32');
    await shot(page, 'extend');
    await drawAgain(page);
    const extended = await asked(page);
    assert.deepEqual(extended.outpaint, { left: 0, right: 32, top: 0, bottom: 0 });
    assert.equal(extended.maskImage, undefined);
  }),
);

test(
  'ControlNets: a picture and its edges by mouse, a scribble by mouse and by keyboard, the picture to start from',
  () =>
    withPage({ height: 1400 }, async page => {
      await status(page, /^Ready/);
      await page.click('#guiding summary');
      await page.click('#add-control');
      await page.keyboard.type('https://example.org/canny');
      const [first, second, third] = [1, 2, 3].map(n => page.locator(`#controls > li:nth-child(${n})`));
      await page.click('#generate');
      await page.waitForFunction(() =>
        /ControlNet 1 is shown no picture/.test(document.getElementById('error')?.textContent ?? ''),
      );
      await first.locator('[data-key=image]').setInputFiles(await pictureFile(page, 128, 96));
      assert.ok(await first.locator('[data-key=low]').isHidden());
      // All that it sees is white there, of the fake engine.
      await first.locator('[data-key=preprocess]').selectOption('softedge');
      assert.ok(await first.locator('[data-key=low]').isHidden());
      await first.getByRole('button', { name: 'Show what it sees' }).click();
      await first.locator('.seen:not([hidden])').waitFor();
      const line = await first.locator('.seen').evaluate(canvas =>
        /** @type {HTMLCanvasElement} */ (canvas).getContext('2d')?.getImageData(1, 0, 1, 1).data[0]);
      assert.equal(line, 255);
      await first.locator('[data-key=preprocess]').selectOption('canny');
      await first.locator('[data-key=low]').fill('40');
      await first.locator('[data-key=scale]').fill('0.7');
      await first.locator('[data-key=end]').fill('0.8');
      await first.getByRole('button', { name: 'Show what it sees' }).click();
      await first.locator('.seen:not([hidden])').waitFor();
      // The fake engine's edges are every second column.
      const shown = await first.locator('.seen').evaluate(canvas => {
        const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
        const { data } = /** @type {CanvasRenderingContext2D} */ (
          /** @type {HTMLCanvasElement} */ (canvas).getContext('2d')
        ).getImageData(0, 0, width, height);
        return { width, height, columns: [data[0], data[4], data[8]] };
      });
      assert.deepEqual(shown, { width: 64, height: 64, columns: [255, 0, 255] });
      await shot(page, 'controlnet-edges');

      await page.focus('#add-control');
      await page.keyboard.press('Enter');
      await second
        .locator('input[type=file]')
        .first()
        .setInputFiles({ name: 'scribble.safetensors', mimeType: '', buffer: Buffer.from('x') });
      await second.locator('[data-key=from]').selectOption('scribble');
      assert.ok(
        (await second.locator('[data-key=image]').isHidden()) &&
          (await second.locator('[data-key=preprocess]').isHidden()),
      );
      const pad = second.locator('.scribble canvas');
      await pad.scrollIntoViewIfNeeded();
      const box = /** @type {{ x: number, y: number, width: number, height: number }} */ (await pad.boundingBox());
      await page.mouse.move(box.x + box.width * 0.2, box.y + box.height * 0.25);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.8, box.y + box.height * 0.25, { steps: 4 });
      await page.mouse.up();
      await page.selectOption('#guess-mode', 'guess');
      await shot(page, 'controlnet-scribble');
      await page.click('#generate');
      await hasResult(page);
      const { controlnets, guessMode } = await asked(page);
      assert.equal(guessMode, true);
      const [edges, scribble] = controlnets;
      assert.deepEqual(
        [edges.source, edges.preprocess, edges.low, edges.high, edges.scale, edges.start, edges.end],
        ['https://example.org/canny', 'canny', 40, 200, 0.7, 0, 0.8],
      );
      assert.deepEqual([edges.image.width, edges.image.height], [128, 96]);
      assert.deepEqual(
        [scribble.source, Boolean(scribble.files), scribble.preprocess, scribble.image.width],
        ['scribble.safetensors', true, undefined, 64],
      );
      // A line of 0.6 of the width, 0.03 of it thick.
      const byMouse = scribble.image.white;
      assert.ok(Math.abs(byMouse - 0.6 * 0.03) < 0.01, String(byMouse));

      await pad.focus();
      await page.keyboard.press('Backspace');
      for (let i = 0; i < 20; i++) await page.keyboard.press('Shift+ArrowDown');
      await shot(page, 'controlnet-keyboard');
      await drawAgain(page, () => page.keyboard.press('Control+Enter'));
      const byKeys = (await asked(page)).controlnets[1].image.white;
      assert.ok(byKeys > byMouse + 0.005, `${byKeys} after ${byMouse}`);

      await second.getByRole('button', { name: 'Remove' }).focus();
      await page.keyboard.press('Enter');
      await page.focus('#add-control');
      await page.keyboard.press('Enter');
      await second.locator('[data-key=source]').fill('owner/depth');
      await second.locator('[data-key=from]').selectOption('start');
      await page.keyboard.press('Control+Enter');
      await page.waitForFunction(() =>
        /ControlNet 2 is shown no picture yet. Choose one under/.test(
          document.getElementById('error')?.textContent ?? '',
        ),
      );
      await page.click('#start summary');
      await page.setInputFiles('#image', await pictureFile(page, 80, 64));
      await page.waitForSelector('#editor:not([hidden])');
      await drawAgain(page);
      const both = await asked(page);
      assert.deepEqual(
        [both.controlnets.length, both.controlnets[1].source, both.controlnets[1].image.width, both.image.width],
        [2, 'owner/depth', 80, 64],
      );
      assert.equal(await third.count(), 0);
    }),
);
