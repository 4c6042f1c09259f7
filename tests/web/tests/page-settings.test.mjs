// The settings of a picture on the page, by mouse and by keyboard alone: samplers and what is turned on them, the prompt's
// syntax, LoRAs, words, decoders, and models that are made for few steps. The engine is fake-engine.js, whose result
// tells the options that reached it. Screenshots: .tools/screenshots.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { asked, drawAgain, hasResult, shot, status, typeModel, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */


/** What has the keyboard: its id, or what it says. @param {Page} page */
const focused = page => page.evaluate(() => {
  const element = /** @type {HTMLElement} */ (document.activeElement);
  return (
    element.id ||
    element.dataset.key ||
    element.getAttribute('aria-label') ||
    element.textContent?.trim() ||
    element.tagName
  );
});

/** Tab until something has the keyboard. @param {Page} page @param {string} id @param {string} [key] */
async function tabTo(page, id, key = 'Tab') {
  for (let i = 0; i < 120; i++) {
    if (await focused(page) === id) return;
    await page.keyboard.press(key);
  }
  assert.fail(`the keyboard does not reach ${id}`);
}

/** Replaces what stands in the field that has the keyboard. @param {Page} page @param {string} text */
async function type(page, text) {
  await page.keyboard.press('Control+A');
  await page.keyboard.type(text);
}

/** A .safetensors file without tensors. @param {string} name @param {Record<string, string>} metadata */
function titled(name, metadata, tensors = {}) {
  const header = Buffer.from(JSON.stringify({ __metadata__: metadata, ...tensors }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return { name, mimeType: '', buffer: Buffer.concat([length, header]) };
}

test('the keyboard goes through every control in the order in which they stand', () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    for (const summary of await page.locator('.settings details > summary').all()) await summary.click();
    for (const add of ['add-lora', 'add-embedding', 'add-vae']) await page.click(`#${add}`);
    await page.evaluate(() => {
      /** @type {HTMLElement} */ (document.activeElement).blur();
      scrollTo(0, 0);
    });
    await page.focus('#prompt');
    const want = await page.evaluate(() =>
      [...document.querySelectorAll('.ask, .settings')]
        .flatMap(card => [...card.querySelectorAll('input, select, textarea, button, summary, canvas[tabindex]')])
        .filter(e => /** @type {HTMLElement} */ (e).checkVisibility() && !(/** @type {any} */ (e).disabled))
        .map((e, i) => e.setAttribute('data-place', String(i)) ?? i),
    );
    /** @type {number[]} */
    const met = [];
    for (let i = 0; i < 300; i++) {
      const place = await page.evaluate(() => document.activeElement?.getAttribute('data-place'));
      if (place !== null && place !== undefined && !met.includes(Number(place))) met.push(Number(place));
      if (met.length === want.length) break;
      await page.keyboard.press('Tab');
    }
    assert.deepEqual(met, want);
  }),
);

test('sampler, schedule, guidance rescale, eta, s_churn, layers left out: by mouse', () =>
  withPage({ height: 1500 }, async page => {
    await status(page, /^Ready/);
    assert.match(await page.innerText('#own-scheduler'), /PLMS/);
    await page.click('#sampling summary');
    assert.match(await page.innerText('#sampling-hint'), /^PLMS has nothing more to turn/);
    assert.ok((await page.isHidden('#eta')) && (await page.isHidden('#s-churn')));
    await page.selectOption('#scheduler', 'euler_a_karras');
    assert.ok((await page.isVisible('#eta')) && (await page.isHidden('#s-churn')));
    await page.click('#eta');
    await page.keyboard.type('0.4');
    await page.click('#guidance-rescale', { clickCount: 3 });
    await page.keyboard.type('0.7');
    await page.click('#clip-skip', { clickCount: 3 });
    await page.keyboard.type('1');
    await shot(page, 'sampling');
    await page.click('#generate');
    await hasResult(page);
    const first = await asked(page);
    assert.deepEqual(
      [first.scheduler, first.eta, first.sChurn, first.guidanceRescale, first.clipSkip],
      ['euler_a_karras', 0.4, undefined, 0.7, 1],
    );
    await page.selectOption('#scheduler', 'heun');
    assert.ok((await page.isHidden('#eta')) && (await page.isVisible('#s-churn')));
    await page.click('#s-churn', { clickCount: 3 });
    await page.keyboard.type('10');
    await drawAgain(page);
    const second = await asked(page);
    assert.deepEqual([second.scheduler, second.eta, second.sChurn], ['heun', undefined, 10]);
    await page.fill('#guidance-rescale', '3');
    await page.click('#sampling summary'); // closed: it opens again where the field is wrong
    await page.click('#generate');
    await page.waitForFunction(() => /Guidance rescale/.test(document.getElementById('error')?.textContent ?? ''));
    assert.ok(await page.isVisible('#guidance-rescale'));
  }),
);

test('the same by keyboard alone', () => withPage({ height: 1500 }, async page => {
  await status(page, /^Ready/);
  await page.focus('#prompt');
  await type(page, 'a pear');
  await tabTo(page, 'scheduler');
  await page.keyboard.type('Euler a'); // the first of that group
  assert.equal(await page.inputValue('#scheduler'), 'euler_a');
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.inputValue('#scheduler'), 'euler_a_karras');
  await tabTo(page, 'preview');
  await page.keyboard.type('small');
  await tabTo(page, 'clip-skip');
  await page.keyboard.press('ArrowUp');
  await tabTo(page, 'Fine control of the sampler');
  await page.keyboard.press('Enter');
  await tabTo(page, 'guidance-rescale');
  await type(page, '0.5');
  await tabTo(page, 'eta');
  await page.keyboard.type('0.25');
  await shot(page, 'sampling-by-keyboard');
  await page.keyboard.press('Control+Enter');
  await hasResult(page);
  const { prompt, scheduler, preview, clipSkip, guidanceRescale, eta } = await asked(page);
  assert.deepEqual([prompt, scheduler, clipSkip, guidanceRescale, eta], ['a pear', 'euler_a_karras', 1, 0.5, 0.25]);
  assert.equal(preview, 'full', 'the embedded model has no smaller decoder');
}));

test('the steps in which guidance acts: by mouse, by keyboard, and back from the picture', () =>
  withPage({ height: 1500 }, async page => {
    const ends = () => Promise.all(['start', 'end'].map(end => page.inputValue(`#guidance-${end}`)));
    await status(page, /^Ready/);
    await page.click('#generate');
    await hasResult(page);
    assert.equal((await asked(page)).guidanceInterval, undefined, 'all of them, which is not said');
    await page.click('#sampling summary');
    await page.click('#guidance-start', { clickCount: 3 });
    await page.keyboard.type('0.25');
    await drawAgain(page);
    assert.deepEqual((await asked(page)).guidanceInterval, [0.25, 1]);
    await tabTo(page, 'guidance-end');
    await type(page, '0.8');
    await shot(page, 'guidance-interval');
    await drawAgain(page, () => page.keyboard.press('Control+Enter'));
    assert.deepEqual((await asked(page)).guidanceInterval, [0.25, 0.8]);

    const dropDrawn = () => page.evaluate(async () => {
      const [image] = /** @type {any} */ (window).browserDiffusion.lastResult.images;
      const data = new DataTransfer();
      data.items.add(new File([await image.toBlob()], 'drawn.png', { type: 'image/png' }));
      window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
    });
    await page.fill('#guidance-start', '0');
    await page.fill('#guidance-end', '0.5');
    await dropDrawn();
    await status(page, /settings of drawn\.png are back/);
    assert.deepEqual(await ends(), ['0.25', '0.8']);
    await page.fill('#guidance-start', '0');
    await page.fill('#guidance-end', '1');
    await drawAgain(page);
    assert.equal((await asked(page)).guidanceInterval, undefined);
    await page.fill('#guidance-end', '0.5');
    await dropDrawn();
    await page.waitForFunction(
      () => /** @type {HTMLInputElement} */ (document.getElementById('guidance-end')).value === '1',
    );

    await page.fill('#guidance-start', '0.9');
    await page.fill('#guidance-end', '0.1');
    await page.click('#generate');
    await page.waitForFunction(() =>
      /guidanceInterval must be/.test(document.getElementById('error')?.textContent ?? ''),
    );
  }),
);

test('how strictly InstructPix2Pix keeps its picture: a field of such a model, and back from a picture', () =>
  withPage({ height: 1500 }, async page => {
    await status(page, /^Ready/);
    assert.ok(await page.isHidden('#image-guidance'));
    await typeModel(page, 'owner/pix2pix');
    await page.click('#generate');
    await page.waitForFunction(() => /edits a picture/.test(document.getElementById('error')?.textContent ?? ''));
    assert.ok(await page.isVisible('#image-guidance'));
    const png = await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(64, 64);
      canvas.getContext('2d')?.fillRect(0, 0, 32, 64);
      return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
    });
    await page.setInputFiles('#image', { name: 'a.png', mimeType: 'image/png', buffer: Buffer.from(png) });
    await drawAgain(page);
    const first = await asked(page);
    assert.deepEqual([first.imageGuidanceScale, first.strength], [1.5, 1]);
    await page.focus('#image-guidance');
    await type(page, '2.1');
    await shot(page, 'image-guidance');
    await drawAgain(page, () => page.keyboard.press('Control+Enter'));
    assert.equal((await asked(page)).imageGuidanceScale, 2.1);
    await page.fill('#image-guidance', '3');
    await page.evaluate(async () => {
      const [image] = /** @type {any} */ (window).browserDiffusion.lastResult.images;
      const data = new DataTransfer();
      data.items.add(new File([await image.toBlob()], 'drawn.png', { type: 'image/png' }));
      window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
    });
    await page.waitForFunction(
      () => /** @type {HTMLInputElement} */ (document.getElementById('image-guidance')).value === '2.1',
    );
    await typeModel(page, 'owner/other');
    await drawAgain(page);
    const other = await asked(page);
    assert.deepEqual([other.imageGuidanceScale, other.strength], [undefined, 0.75]);
    assert.ok(await page.isHidden('#image-guidance'));
  }),
);

test("the prompt's syntax and how it is read: by mouse and by keyboard", () =>
  withPage({}, async page => {
    await status(page, /^Ready/);
    await page.focus('#prompt');
    await type(page, 'a (red:1.3) [blue:green:0.5] apple AND a pear BREAK \\(round\\)');
    await tabTo(page, 'How the model reads it');
    await page.keyboard.press(' ');
    await page.waitForFunction(() => document.querySelectorAll('#tokens span').length > 5);
    await shot(page, 'prompt-syntax');
    await page.keyboard.press('Control+Enter');
    await hasResult(page);
    const { prompt, promptSyntax } = await asked(page);
    assert.deepEqual(
      [prompt, promptSyntax],
      ['a (red:1.3) [blue:green:0.5] apple AND a pear BREAK \\(round\\)', 'a1111'],
    );
    await page.click('#reading summary');
    assert.ok(await page.isHidden('#tokens'));
  }),
);

test('LoRAs, words and another decoder by keyboard alone, the decoder by mouse too', () =>
  withPage({ height: 1400 }, async page => {
    await status(page, /^Ready/);
    await page.focus('#prompt');
    await tabTo(page, 'LoRA, own words, another decoder');
    await page.keyboard.press('Enter');
    await tabTo(page, 'add-lora');
    await page.keyboard.press('Enter');
    await page.keyboard.type('https://example.org/style.safetensors');
    await tabTo(page, 'LoRA-scale-1');
    await type(page, '0.6');
    await tabTo(page, 'add-embedding');
    await page.keyboard.press(' ');
    await page.keyboard.type('thing');
    await tabTo(page, 'word-source-1');
    await page.keyboard.type('https://example.org/thing.pt');
    await tabTo(page, 'add-vae');
    await page.keyboard.press(' ');
    await page.keyboard.type('stabilityai/sd-vae-ft-mse');
    await shot(page, 'additions-by-keyboard');
    await page.keyboard.press('Control+Enter');
    await hasResult(page);
    const { loras, embeddings } = await asked(page);
    assert.deepEqual(
      loras.map((/** @type {any} */ l) => [l.source, l.scale]),
      [['https://example.org/style.safetensors', 0.6]],
    );
    assert.deepEqual(
      embeddings.map((/** @type {any} */ e) => [e.token, e.source]),
      [['thing', 'https://example.org/thing.pt']],
    );
    const loaded = () =>
      page.evaluate(() => JSON.parse(/** @type {any} */ (window).browserDiffusion.pipeline.model.name).vae);
    assert.equal((await loaded()).source, 'stabilityai/sd-vae-ft-mse');

    await tabTo(page, 'Remove decoder 1');
    await page.keyboard.press('Enter');
    await drawAgain(page);
    assert.equal(await loaded(), undefined, "the model's own again");
    await page.click('#add-vae');
    assert.ok(await page.isHidden('#add-vae'), 'one is enough');
    await page.setInputFiles('#vaes input[type=file]', {
      name: 'vae.safetensors',
      mimeType: '',
      buffer: Buffer.from('x'),
    });
    await drawAgain(page);
    assert.deepEqual((await loaded()).files.length, 1);
    await page.click('#vaes button');
    await page.click('#loras button');
    await page.click('#embeddings button');
    await drawAgain(page);
    const bare = await asked(page);
    assert.deepEqual([bare.loras, bare.embeddings, await loaded()], [[], [], undefined]);
    await page.click('#add-lora');
    await page.keyboard.type('https://example.org/loras/other.safetensors');
    await drawAgain(page);
    await status(
      page,
      /Of other\.safetensors 2 tensors belong to no weight of this model: lora_unet_a, lora_unet_b\.$/,
    );
  }),
);

test('models and LoRAs for few steps set steps, guidance and sampler, say so, and can be told off', () =>
  withPage({ height: 1200 }, async page => {
    await status(page, /^Ready/);
    const fields = () =>
      page.evaluate(() =>
        ['steps', 'guidance', 'scheduler'].map(
          id => /** @type {HTMLInputElement} */ (document.getElementById(id)).value,
        ),
      );
    assert.ok(await page.isHidden('#recipe'));
    await page.fill('#steps', '25');
    await typeModel(page, 'someone/sdxl-turbo');
    assert.deepEqual(await fields(), ['1', '0', 'euler_a_sgm_uniform']);
    const recipe =
      'sdxl-turbo is a Turbo model, by its name. ' +
      'Set for it: 1 step, guidance 0 (off), sampler Euler a · SGM Uniform.';
    assert.ok((await page.innerText('#recipe-text')).startsWith(recipe));
    await shot(page, 'recipe-turbo');
    await page.click('#generate');
    await hasResult(page);
    const { numInferenceSteps, guidanceScale, scheduler } = await asked(page);
    assert.deepEqual([numInferenceSteps, guidanceScale, scheduler], [1, 0, 'euler_a_sgm_uniform']);
    await typeModel(page, 'stabilityai/sd-turbo');
    assert.deepEqual(await fields(), ['2', '1', 'euler_a'], 'the catalogue says what its models want');
    await typeModel(page, 'embedded');
    assert.deepEqual(await fields(), ['25', '3', ''], 'what stood there before');
    assert.ok(await page.isHidden('#recipe'));

    // A LoRA, by its address, by keyboard; told off, it is not set again.
    await page.focus('#catalogue');
    await tabTo(page, 'LoRA, own words, another decoder');
    await page.keyboard.press('Enter');
    await tabTo(page, 'add-lora');
    await page.keyboard.press('Enter');
    await page.keyboard.type('https://example.org/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors');
    assert.deepEqual(await fields(), ['4', '1', 'lcm']);
    assert.match(await page.innerText('#recipe-text'), /^lcm-lora-sdv1-5 is an LCM LoRA/);
    await shot(page, 'recipe-lcm');
    await tabTo(page, 'recipe-undo', 'Shift+Tab');
    await page.keyboard.press('Enter');
    assert.deepEqual([await fields(), await focused(page)], [['25', '3', ''], 'steps']);
    await page.keyboard.press('Control+Enter');
    await page.waitForFunction(
      () => /** @type {any} */ (window).browserDiffusion.lastResult.options.numInferenceSteps === 25,
    );
    await page.click('#loras button');

    // A file whose name says nothing, and whose title does; what the visitor changes meanwhile stays.
    await page.click('#add-lora');
    await page.setInputFiles(
      '#loras input[type=file]',
      titled('pytorch_lora_weights.safetensors', { ss_output_name: 'my_LCM_v2' }),
    );
    await page.waitForFunction(() => /** @type {HTMLInputElement} */ (document.getElementById('steps')).value === '4');
    await page.fill('#steps', '6');
    await page.click('#loras button');
    assert.deepEqual(await fields(), ['6', '3', '']);
    await page.click('#add-lora');
    await page.setInputFiles('#loras input[type=file]', titled('calcmap.safetensors', { ss_output_name: 'lcmx' }));
    await page.waitForTimeout(200);
    assert.deepEqual(await fields(), ['6', '3', ''], 'letters within a word are no name');

    // A checkpoint from disk whose name says nothing, by the tensor that only such a model has.
    await page.click('#loras button');
    const key = 'model.diffusion_model.time_embed.cond_proj.weight';
    await page.setInputFiles('#files', titled('dream.safetensors', {}, { [key]: {} }));
    await page.waitForFunction(() =>
      /** @type {HTMLInputElement} */ (document.getElementById('guidance')).value === '8.5');
    assert.match(await page.innerText('#recipe-text'), /^dream\.safetensors is an LCM model, by its tensors/);

    // A pipeline that says so itself: its own steps and guidance.
    await typeModel(page, 'someone/consistent');
    await drawAgain(page);
    assert.deepEqual(await fields(), ['4', '8.5', 'lcm']);
    assert.match(await page.innerText('#recipe-text'), /^consistent is an LCM model, by its pipeline/);
    assert.deepEqual([(await asked(page)).numInferenceSteps, (await asked(page)).guidanceScale], [4, 8.5]);
  }),
);

test('a dropped picture brings its LoRAs and ControlNets back, and says which files it needs', () =>
  withPage({ height: 1600 }, async page => {
    const drop = (/** @type {string} */ text) => page.evaluate(async text => {
      const { GeneratedImage } = await import(new URL('/picture.js', location.href).href);
      const file = await new GeneratedImage(8, 8, new Uint8ClampedArray(256).fill(255), text).toBlob();
      const data = new DataTransfer();
      data.items.add(new File([file], 'theirs.png', { type: 'image/png' }));
      window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
    }, text);
    /** What stands in the fields of a list's rows. @param {string} list */
    const rows = list => page.locator(`#${list} > li`).evaluateAll(all => all.map(row => Object.fromEntries(
      [.../** @type {NodeListOf<HTMLInputElement>} */ (row.querySelectorAll('[data-key]:not([type=file])'))]
        .map(field => [field.dataset.key, field.value]),
    )));
    const text = 'a cat <lora:style:0.65> <lora:mine:0.4>\nSteps: 6, Sampler: LCM, CFG scale: 1.5, Seed: 7, ' +
      'Size: 64x64, ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, ' +
      'Threshold A: 75, Threshold B: 150, Guidance Start: 0.25, Guidance End: 0.5, ' +
      'Control Mode: ControlNet is more important", ControlNet 1: "Module: depth_midas, Model: my_depth [0123abcd], ' +
      'Weight: 1, Guidance Start: 0, Guidance End: 1, Control Mode: Balanced, Union Control Type: depth", ' +
      'ControlNet 2: "Module: ip-adapter_clip_g, Model: ip-adapter_sdxl [d8b46eaf], Weight: 0.7", ' +
      'Lora hashes: "style: aaebf6360f7d, mine: a95a0f4bdcb9", Version: v1.9.4';
    await status(page, /^Ready/);
    await page.click('#additions summary');
    await page.click('#add-lora');
    const lora = (/** @type {string} */ name) => ({ name, mimeType: '', buffer: Buffer.from('x') });
    await page.setInputFiles('#loras input[type=file]', lora('mine.safetensors'));
    await page.click('#add-lora');
    await page.keyboard.type('https://example.org/lcm-lora-sdv1-5/other.safetensors');
    await drop(text);
    await status(page, new RegExp('theirs.png are back.* It needs style, my_depth: the rows .* ask for the files. ' +
      'What its ControlNets were shown is not in it.* that its IP-Adapters saw are not in it'));
    assert.deepEqual(await rows('loras'), [
      { source: '', scale: '0.65' }, { source: 'mine.safetensors', scale: '0.4' },
    ], 'what stood there is taken by its name, and what the picture was drawn without is gone');
    const [edges, depth] = await rows('controls');
    assert.deepEqual(edges, {
      source: 'lllyasviel/control_v11p_sd15_canny', from: 'file', preprocess: 'canny', low: '75', high: '150',
      mode: '', scale: '0.8', start: '0.25', end: '0.5',
    });
    assert.deepEqual([depth.source, depth.preprocess, depth.mode, depth.scale], ['', 'none', 'depth', '1']);
    const [likeness] = await rows('likenesses');
    assert.equal(likeness.scale, '0.7');
    assert.match(likeness.source, /h94\/IP-Adapter\/.*\/ip-adapter_sdxl\.safetensors$/);
    assert.match(likeness.imageEncoder, /sdxl_models\/image_encoder$/, 'the encoder that it was made with');
    assert.equal(await page.inputValue('#guess-mode'), 'guess');
    assert.equal(await page.inputValue('#steps'), '6', 'the settings of the picture, not of the LoRA that is gone');
    assert.ok(await page.isVisible('#controls [data-key=low] >> nth=0'));
    assert.match(await page.innerText('#loras .asks'), /drawn with “style”/);
    assert.match(await page.innerText('#controls .remark'), /“depth_midas”/);
    await shot(page, 'needs');

    // By mouse a file, by keyboard an address: nothing is asked any more, and it is drawn with them.
    await page.setInputFiles('#loras li:nth-child(1) input[type=file]', lora('style.safetensors'));
    await page.focus('#controls li:nth-child(2) [data-key=source]');
    await page.keyboard.type('owner/my_depth');
    await page.keyboard.press('Tab');
    assert.equal(await page.locator('.asks').count(), 0);
    const buffer = await page.locator('canvas').first().screenshot();
    const shown = { name: 'shown.png', mimeType: 'image/png', buffer };
    for (const row of [1, 2]) await page.setInputFiles(`#controls li:nth-child(${row}) [data-key=image]`, shown);
    await page.click('#generate');
    await page.waitForFunction(() =>
      /IP-Adapter 1 sees no picture yet/.test(document.getElementById('error')?.textContent ?? ''));
    await page.setInputFiles('#likenesses [data-key=images]', [shown, { ...shown, name: 'too.png' }]);
    await page.click('#generate');
    await hasResult(page);
    const { loras, controlnets, ipAdapters, guessMode } = await asked(page);
    assert.deepEqual(
      ipAdapters.map((/** @type {any} */ a) => [a.source, a.imageEncoder.source, a.images.length, a.scale]),
      [[likeness.source, likeness.imageEncoder, 2, 0.7]],
    );
    assert.deepEqual(
      loras.map((/** @type {any} */ l) => [l.name, l.scale, Boolean(l.files)]),
      [['style', 0.65, true], ['mine', 0.4, true]],
    );
    assert.deepEqual(
      controlnets.map((/** @type {any} */ c) => [c.source, c.preprocess, c.low, c.scale, c.start, c.end]),
      [
        ['lllyasviel/control_v11p_sd15_canny', 'canny', 75, 0.8, 0.25, 0.5],
        ['owner/my_depth', undefined, undefined, 1, 0, 1],
      ],
    );
    assert.equal(guessMode, true);

    // What was drawn here is told again: the rows stay as they are, and one without LoRAs takes them away.
    const drawn = await page.evaluate(() => /** @type {any} */ (window).browserDiffusion.lastResult.parameters);
    const every = () => Promise.all(['loras', 'controls', 'likenesses'].map(rows));
    const before = await every();
    await page.fill('#loras li:nth-child(1) [data-key=scale]', '2');
    await drop(drawn);
    await status(page, /^The settings of theirs\.png are back\.(?!.*It needs)/);
    assert.deepEqual(await every(), before);
    await drop('a dog\nSteps: 5, Sampler: Euler, CFG scale: 3');
    await page.waitForFunction(() => /** @type {any} */ (document.getElementById('steps')).value === '5');
    assert.deepEqual(await every(), [[], [], []]);
  }),
);
