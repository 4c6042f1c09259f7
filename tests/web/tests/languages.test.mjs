// Every page in every language: nothing is left in English on a Chinese page, nothing lacks, nothing scrolls sideways, and
// axe-core finds nothing in either theme. Chinese prompts, Chinese signs, a Chinese keyboard. The engine is
// fake-engine.js.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readCatalogue, render, translated } from '../../../tools/languages.mjs';
import { ChineseReader, halfWidth, writeChinese } from '../../../www/page/chinese.js';
import { root, withBrowser } from '../support/browser.mjs';
import { openAll, overflows, texts, violations } from '../support/languages.mjs';
import { serve } from '../support/serve.mjs';
import { asked, goTo, hasResult, shot, site, status, withPage, www } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** Names, units and signs that are the same in Chinese. @type {RegExp[]} */
const SAME = [
  /styles\.csv|animal\.txt|__animal__|Stability AI|IP-Adapter|T2I-Adapter|ControlNet-LLLite|ViT-(H|bigG)|, Plus/g,
  /browser-diffusion|Stable Diffusion( (XL|Turbo|\d(\.\d)?))*|AUTOMATIC1111|A1111|ComfyUI|diffusers|Hugging Face/g,
  /WebGPU|JavaScript|Chrome|Edge|Safari|Firefox|NVIDIA|torch|DeepCache|ESRGAN|ControlNet|LoRA|UNet|VAE|Embedding/g,
  /\b(CLIP( skip)?|CFG|CPU|SDXL|SD|PNG|JPEG|WebP|URL|AI|GB|MB|kB|Ctrl|Shift|Esc|zip|canny|branch|eta|s_churn)\b/g,
  /\.(safetensors|ckpt|pth|csv)\b|owner\/model(@revision)?|<lora:file:0\.8>|\{prompt\}|[\w-]+\/[\w.-]+/g,
  /\b(embedded|scribble|softedge|csv|X\/Y\/Z|TFLOP\/s|GB\/s|FLOP|FMA|GEMM|conv|norm|attention|ms|f16|f32)\b/g,
];
/** Of models and samplers: what they are called. */
const NAMES = JSON.parse(readFileSync(join(www, 'models.json'), 'utf8')).models
  .flatMap((/** @type {any} */ { name, licence }) => [name, licence]);

/** What is English of a text. @param {string} text @param {string[]} names that are the same in both */
function english(text, names) {
  let left = text;
  for (const name of [...NAMES, ...names]) left = left.replaceAll(name, '');
  for (const pattern of SAME) left = left.replace(pattern, '');
  return /[a-z]{2,}/i.test(left) ? left : '';
}

/** Every text of a page that is English. @param {Page} page @param {string[]} [names] */
async function leftInEnglish(page, names = []) {
  const samplers = await page.evaluate(() =>
    [...document.querySelectorAll('#scheduler option, #scheduler optgroup')].map(option =>
      option instanceof HTMLOptionElement ? option.text : option.getAttribute('label') ?? ''));
  const known = [...names, ...samplers.filter(name => /^[\x20-\x7e·]+$/.test(name))]
    .sort((a, b) => b.length - a.length);
  return (await texts(page)).filter(text => english(text, known));
}

/**
 * At every width: nothing scrolls sideways; a picture of each.
 * @param {Page} page
 * @param {string} name
 * @param {(what: string, found: string[]) => void} note
 */
async function narrowing(page, name, note) {
  for (const width of [320, 390, 1200]) {
    await page.setViewportSize({ width, height: 800 });
    const over = await overflows(page);
    if (over > 0) note(`${name}, ${width} px`, [`${over} px too wide`]);
    await shot(page, `${name}-${width}`);
  }
}

test('a catalogue says what lacks, what is left over and what has other tags', t => {
  const folder = mkdtempSync(join(tmpdir(), 'languages-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'languages/zh'), { recursive: true });
  const page = '<html lang="en"><link rel="modulepreload" href="messages/en.js">' +
    '<p title="Tip">Some\n <b>bold</b> words</p>' +
    '<a hreflang="en" lang="en" href="./" aria-current="true">E</a><a hreflang="zh-Hans" href="zh/">Z</a>' +
    '<img src="a.svg" alt=""><code>not this</code><p translate="no">nor <b>this</b></p><p>left <input title="In"> </p>';
  writeFileSync(join(folder, 'index.html'), page);
  const made = (/** @type {string} */ catalogue) => {
    writeFileSync(join(folder, 'languages/zh/index.txt'), catalogue);
    render(folder, join(folder, 'languages'));
    return readFileSync(join(folder, 'zh/index.html'), 'utf8');
  };
  const links = '<a hreflang="en" lang="en" href="./" aria-current="true">E</a>' +
    '<a hreflang="zh-Hans" href="zh/">Z</a>';
  const whole = `Tip\n= 提示\n\nSome <b>bold</b> words\n= 一些<b>粗</b>字\n\n${links}\n= =\n\nleft\n= 左\n\nIn\n= 入\n`;
  assert.equal(
    made(whole),
    '<html lang="zh-Hans"><link rel="modulepreload" href="../messages/zh.js"><p title="提示">一些<b>粗</b>字</p>' +
    '<a hreflang="en" lang="en" href="../">E</a><a hreflang="zh-Hans" href="../zh/" aria-current="true">Z</a>' +
    '<img src="../a.svg" alt=""><code>not this</code><p translate="no">nor <b>this</b></p><p>左 <input title="入"> </p>',
  );
  assert.throws(() => made(whole.replace('left\n= 左\n', '')), /zh\/index.html lacks: left/);
  assert.throws(() => made(`${whole}\nOld\n= 旧\n`), /zh\/index.html does not have: Old/);
  assert.throws(() => made(whole.replace('<b>粗</b>', '粗')), /other tags than: Some <b>bold<\/b> words/);
  assert.throws(() => readCatalogue('a\nb\n= c'), /no translation below "a"/);
  assert.throws(() => readCatalogue('a\n= b\na\n= c'), /twice: a/);
  assert.equal(translated('<math><mi>x</mi></math><p>a<math><mi>x</mi></math></p>', text => `[${text}]`),
    '<math><mi>x</mi></math><p>[a<math><mi>x</mi></math>]</p>');
});

test('what is offered in Chinese is read as the English that is offered', () => {
  const lexicon = JSON.parse(readFileSync(join(www, 'lexicon-zh.json'), 'utf8'));
  const reader = new ChineseReader(lexicon), { thing, onGround, inScene } = writeChinese(lexicon);
  const concepts = JSON.parse(readFileSync(join(www, 'embedded/concepts.json'), 'utf8'));
  for (const noun of concepts) {
    assert.match(reader.english(thing(noun)) ?? '', new RegExp(`^(an? )?${noun}$`), thing(noun));
    for (const colour of Object.keys(lexicon.colours)) {
      assert.match(reader.english(thing(noun, colour)) ?? '', new RegExp(`^(an? )?${colour} ${noun}$`));
      assert.match(reader.english(onGround(noun, colour)) ?? '', new RegExp(`${noun} on an? ${colour} background$`));
    }
    for (const scene of Object.keys(lexicon.scenes))
      assert.match(reader.english(inScene(noun, scene)) ?? '', new RegExp(`${noun} ${scene}$`), inScene(noun, scene));
  }
});

test('full-width signs are read sign for sign', () => {
  assert.equal(halfWidth('（猫：1.3），［狗］｜＜lora：a：1＞。'), '(猫:1.3),[狗]|<lora:a:1>。');
});

for (const language of ['', 'zh/']) {
  test(`${language || 'en/'}: the page with every drawer open, a picture and an error`, async t => {
    /** @type {string[]} */
    const wrong = [];
    const note = (/** @type {string} */ what, /** @type {string[]} */ found) =>
      wrong.push(...found.map(one => `${what}: ${one}`));
    await withPage({ hash: language, width: 1200 }, async page => {
      const zh = language !== '';
      await status(page, zh ? /^准备就绪/ : /^Ready/);
      await page.waitForSelector('#suggestions button');
      if (zh) note('at first', await leftInEnglish(page, ['a red apple']));
      for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
        await page.emulateMedia({ colorScheme });
        note(`axe, ${colorScheme}, at first`, await violations(page));
      }
      await page.fill('#prompt', zh ? '一个红色的苹果' : 'a red apple');
      await page.click('#generate');
      await hasResult(page);
      await status(page, zh ? /^完成，用时/ : /^Done in/);
      await page.click('#star');
      await openAll(page);
      await goTo(page, 'models');
      await page.waitForSelector('#cache-list button');
      await page.waitForSelector('#models-list dd');
      for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
        await page.emulateMedia({ colorScheme });
        note(`axe, ${colorScheme}, models`, await violations(page));
        await narrowing(page, `models-${zh ? 'zh' : 'en'}-${colorScheme}`, note);
      }
      await page.setViewportSize({ width: 1200, height: 900 });
      if (zh) note('models', await leftInEnglish(page, ['a red apple', 'a-red-apple']));
      await goTo(page, 'draw');
      await page.selectOption('#catalogue', { index: 1 });
      await page.waitForSelector('#cost dd');
      await page.selectOption('#scheduler', 'euler');
      await page.evaluate(() => {
        for (const select of document.querySelectorAll('#controls select')) {
          const choice = /** @type {HTMLSelectElement} */ (select);
          choice.value = [...choice.options].at(-1)?.value ?? '';
          choice.dispatchEvent(new Event('change', { bubbles: true }));
        }
      });
      await page.selectOption('#catalogue', 'embedded');
      await page.fill('#prompt', 'fails with network');
      await page.click('#generate');
      await page.waitForSelector('#error:not([hidden])');
      await page.evaluate(() => document.querySelector('#error details')?.setAttribute('open', ''));
      await page.selectOption('#catalogue', { index: 1 });
      await page.waitForSelector('#cost dd');
      if (zh) note('all open', await leftInEnglish(page, ['a red apple', 'fails with network', 'a-red-apple']));
      for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
        await page.emulateMedia({ colorScheme });
        note(`axe, ${colorScheme}, all open`, await violations(page));
        await narrowing(page, `language-${zh ? 'zh' : 'en'}-${colorScheme}`, note);
      }
    });
    t.diagnostic(`${wrong.length} found`);
    assert.deepEqual(wrong, []);
  });

  test(`${language || 'en/'}: without WebGPU`, async () => {
    /** @type {string[]} */
    const wrong = [];
    const note = (/** @type {string} */ what, /** @type {string[]} */ found) =>
      wrong.push(...found.map(one => `${what}: ${one}`));
    const before = () => Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined });
    await withPage({ hash: language, before }, async page => {
      await page.waitForSelector('#no-webgpu:not([hidden])');
      for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
        await page.emulateMedia({ colorScheme });
        note(`axe, ${colorScheme}`, await violations(page));
        await narrowing(page, `no-webgpu-${language ? 'zh' : 'en'}-${colorScheme}`, note);
      }
      if (language) note('without WebGPU', await leftInEnglish(page, ['a red apple']));
      await goTo(page, 'models');
      await page.waitForSelector('#models-list .cannot');
      note('axe, models', await violations(page));
    });
    assert.deepEqual(wrong, []);
  });

  test(`${language || 'en/'}: the page of help`, async () => {
    /** @type {string[]} */
    const wrong = [];
    const note = (/** @type {string} */ what, /** @type {string[]} */ found) =>
      wrong.push(...found.map(one => `${what}: ${one}`));
    await withPage({ hash: `${language}help.html#slow` }, async page => {
      assert.equal(await page.evaluate(() => document.querySelector('#slow[open]') !== null), true, 'it is asked for');
      await openAll(page);
      if (language) note('help', await leftInEnglish(page, ['XL', 'LCM', 'Turbo', 'Lightning', 'Carlini', 'arXiv',
        'MIT', 'Apache', 'FLUX', 'Linux', 'Vulkan', 'Mac', 'Enter', 'Space', 'Backspace', '.pt', 'word:1.3']));
      for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
        await page.emulateMedia({ colorScheme });
        note(`axe, ${colorScheme}`, await violations(page));
        await narrowing(page, `help-${language ? 'zh' : 'en'}-${colorScheme}`, note);
      }
    });
    assert.deepEqual(wrong, []);
  });

  test(`${language || 'en/'}: the bench page`, async () => {
    const engine = 'export default async () => {}; export class Bench {}';
    const server = await serve(site, 0, { '/pkg/browser_diffusion.js': engine });
    /** @type {string[]} */
    const wrong = [];
    try {
      await withBrowser({}, async context => {
        const page = await context.newPage();
        await page.goto(`${server.url}${language}bench.html`);
        await page.evaluate(() => { for (const id of ['results', 'step', 'products'])
          document.getElementById(id)?.removeAttribute('hidden'); });
        if (language) wrong.push(...await leftInEnglish(page));
        for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
          await page.emulateMedia({ colorScheme });
          wrong.push(...await violations(page));
        }
        for (const width of [320, 360, 1200]) {
          await page.setViewportSize({ width, height: 800 });
          if (await overflows(page) > 0) wrong.push(`too wide at ${width} px`);
        }
        await page.click('#start');
        await page.waitForSelector('#error:not([hidden])');
        if (language) wrong.push(...await leftInEnglish(page));
      });
    } finally {
      server.close();
    }
    assert.deepEqual(wrong, []);
  });
}

test('the zh page draws by Chinese words, and reads what a Chinese keyboard types; no other does', async () => {
  const prompts = { '一个红色的苹果': 'a red apple', '（猫：1.3），［狗］': '(猫:1.3),[狗]' };
  await withPage({ hash: 'zh/' }, async page => {
    await status(page, /^准备就绪/);
    assert.equal(await page.inputValue('#prompt'), '一个红色的苹果');
    for (const [typed, read] of Object.entries(prompts)) {
      await page.fill('#prompt', typed);
      await page.click('#generate');
      await page.waitForFunction(
        prompt => (/** @type {any} */ (window)).browserDiffusion?.lastResult.options.prompt === prompt, read);
      await status(page, /^完成/);
      assert.ok((await page.innerText('#caption')).startsWith(typed), 'its title is what was typed');
    }
    assert.equal(await page.inputValue('#prompt'), '（猫：1.3），［狗］', 'what was typed stays');
    await page.goto(page.url().replace('zh/', ''));
    await status(page, /^Ready/);
    await page.fill('#prompt', '（猫：1.3），［狗］');
    await page.click('#generate');
    await hasResult(page);
    assert.equal((await asked(page)).prompt, '（猫：1.3），［狗］');
  });
});

test('Enter that ends a word of a Chinese keyboard draws nothing', () =>
  withPage({ hash: 'zh/' }, async page => {
    await status(page, /^准备就绪/);
    const enter = (/** @type {any} */ how) => page.evaluate((/** @type {any} */ how) => {
      const key = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...how });
      document.getElementById('prompt')?.dispatchEvent(key);
      return key.defaultPrevented;
    }, how);
    assert.equal(await enter({ isComposing: true }), false);
    assert.equal(await enter({ keyCode: 229 }), false, 'in Safari the word has ended by then');
    assert.ok(await page.isEnabled('#generate'));
    assert.equal(await enter({}), true);
    await hasResult(page);
  }));

test('every error code is said in Chinese, with what to do, and the English folded below', () =>
  withPage({ hash: 'zh/' }, async page => {
    await status(page, /^准备就绪/);
    const types = readFileSync(join(root, 'www/browser-diffusion.d.ts'), 'utf8');
    const [, list = ''] = /type DiffusionErrorCode =([^;]*);/.exec(types) ?? [];
    const codes = [...list.matchAll(/'([\w-]+)'/g)].map(([, code]) => code);
    assert.equal(codes.length, 10);
    for (const code of codes) {
      await page.fill('#prompt', `fails with ${code}`);
      await page.click('#generate');
      if (code === 'aborted') {
        await status(page, /^已停止/);
        continue;
      }
      await page.waitForFunction(
        code => document.querySelector('#error details')?.textContent?.includes(`the English of ${code}.`), code);
      const error = page.locator('#error');
      assert.match(await error.locator('b').innerText(), /^\p{Script=Han}+/u, code);
      assert.ok(await error.locator('details p').isHidden(), 'folded');
      assert.match((await error.innerText()).replace(/.*\n/, ''), /\p{Script=Han}{4}/u, `${code}: what to do`);
      await status(page, /^这次没有生成新图片/);
    }
    // What the server answered says more. The engine's English tells it: it still does.
    const engine = readFileSync(join(root, 'src/store/web/http.rs'), 'utf8');
    for (const [told, said, source] of /** @type {[string, RegExp, RegExp][]} */ ([
      [' (HTTP 401)', /访问令牌无效/, /\(HTTP \{status\}\)/],
      [' (HTTP 403)', /不对你开放/, /\(HTTP 403\)/],
      [': HTTP 503', /服务器暂时出错/, /answered with HTTP \{status\}/],
      [': there is no connection', /连不上服务器/, /there is no connection/],
    ])) {
      assert.match(engine, source);
      await page.fill('#prompt', `fails with network${told}`);
      await page.click('#generate');
      await page.waitForFunction(
        told => document.querySelector('#error details')?.textContent?.includes(`network${told}.`), told);
      assert.match(await page.innerText('#error'), said);
    }
    // Names and numbers that it tells are in the Chinese; each sentence is one of the engine's.
    for (const [told, said, file, source] of /** @type {[string, RegExp, string, string][]} */ ([
      ['out-of-memory: This needs a buffer of 300 MiB, and this GPU binds at most 128 MiB', /300 MiB.*128 MiB/,
        'gpu/plan.rs', 'needs a buffer of {} MiB, and this GPU binds at most {} MiB'],
      ['invalid-option: strength = 0.01 leaves none of 20 steps', /0\.01 在 20 步里/,
        'pipeline/settle.rs', 'strength = {strength} leaves {what} of {steps} steps'],
      ['invalid-option: clipSkip = 12: the text encoder has 12 layers', /跳过了 12 层/,
        'pipeline/settle.rs', 'clipSkip = {clip_skip}: the text encoder has {} layers'],
      ['invalid-option: deepCache: branch = 9, but this model has the branches 0 to 3', /branch 为 9.*0 到 3/,
        'pipeline/settle.rs', 'branch = {branch}, but this model has the branches 0 to {}'],
      ['invalid-option: width = 65: choose a multiple of 8, such as 64', /65 像素.*8 的倍数，例如 64/,
        'pipeline/settle.rs', '{name} = {pixels}: choose a multiple of {unit}, such as {near}'],
      ['invalid-option: This is an inpainting model', /局部重绘模型/, 'pipeline/settle.rs', 'This is an inpainting model'],
      ['invalid-option: maskImage is black', /蒙版是空的/, 'pipeline/repaint.rs', 'maskImage is black'],
      ['invalid-option: loras has none for ink in the prompt', /写了 ink/,
        'pipeline/settle.rs', 'loras has none for {} in the prompt'],
      ['unsupported-model: pose is a ControlNet for another kind of model', /pose 是为另一种模型/,
        'pipeline/controlnet.rs', '{name} is a ControlNet for another kind of model'],
      ['unsupported-model: my.pt is an embedding 1280 wide, for another kind of model', /my\.pt 是为另一种/,
        'pipeline/embedding.rs', '{key} is an embedding {width} wide, for another kind of model'],
      ['unsupported-model: none of the 12 tensors of a.pt belongs to a weight of this model', /a\.pt 与当前/,
        'pipeline/lora.rs', 'none of the {} tensors of {key} belongs to a weight of this model'],
      ['bad-checkpoint: a.safetensors is truncated', /a\.safetensors 不完整/, 'store/web/local.rs', '{path} is truncated'],
      ['bad-checkpoint: unet of x lacks 3 of 686 tensors, such as conv_in.weight', /686 个张量中少了 3 个，例如 conv_in/,
        'pipeline/weights.rs', 'lacks {} of {} tensors, such as {first}'],
      ['unsupported-model: x is a "FluxPipeline". This engine runs', /x 是 FluxPipeline/,
        'pipeline/load.rs', '{} is a {class:?}. This engine runs'],
    ])) {
      assert.ok(readFileSync(join(root, 'src', file), 'utf8').includes(source), source);
      const [, code, words] = /^([\w-]+): (.*)$/.exec(told) ?? [];
      await page.fill('#prompt', `fails with ${code}: ${words}`);
      await page.click('#generate');
      await page.waitForFunction(
        words => document.querySelector('#error details')?.textContent?.includes(words), words);
      assert.match(await page.innerText('#error'), said);
    }
    await page.fill('#prompt', 'a');
    await page.fill('#width', '65');
    await page.click('#generate');
    await page.waitForFunction(() => document.getElementById('error')?.textContent === '参数有误宽度：须从 8 起，每次增减 8。');
  }));

test('one line offers the language that the browser prefers, and whoever has chosen is not asked again', () =>
  withPage({
    hash: '#p=a+cat&seed=7',
    before: () => Object.defineProperty(Navigator.prototype, 'languages', { get: () => ['zh-CN', 'en'] }),
  }, async page => {
    const offer = page.locator('.offer a');
    assert.equal(await offer.innerText(), '本页有中文版');
    await offer.click();
    await status(page, /^准备就绪/);
    assert.match(page.url(), /\/zh\/#p=a\+cat&seed=7$/);
    assert.equal(await page.inputValue('#prompt'), 'a cat');
    assert.equal(await offer.count(), 0);
    await page.click('.languages a[lang=en]');
    await status(page, /^Ready/);
    assert.match(page.url(), /\d\/#p=a\+cat&seed=7$/);
    assert.equal(await offer.count(), 0);
  }));

test('a screen reader is told of every quarter of a drawing, not of every step', () =>
  withPage({ hash: 'zh/' }, async page => {
    await status(page, /^准备就绪/);
    await page.evaluate(() => {
      const said = /** @type {string[]} */ ([]);
      for (const live of document.querySelectorAll('[role=status], [role=alert], [aria-live]'))
        new MutationObserver(() => said.push(live.textContent ?? '')).observe(live, { childList: true });
      Object.assign(window, { said });
    });
    await page.fill('#steps', '37');
    await page.click('#generate');
    await status(page, /^完成/);
    const said = await page.evaluate(() => /** @type {string[]} */ (/** @type {any} */ (window).said));
    assert.deepEqual(said.filter(text => /%/.test(text)), ['已完成 25%', '已完成 50%', '已完成 75%']);
    assert.ok(said.length < 15, said.join('\n'));
  }));

test('after one visit the zh page opens and draws without a network, by either of its addresses', () =>
  withPage({ hash: 'zh/' }, async (page, _, server) => {
    await status(page, /^准备就绪/);
    await page.evaluate(async () => {
      await navigator.serviceWorker.ready;
      if (!navigator.serviceWorker.controller)
        await new Promise(done => { navigator.serviceWorker.oncontrollerchange = done; });
    });
    server.close();
    for (const address of ['zh/', 'zh/index.html']) {
      await page.goto(`${server.url}${address}`);
      await status(page, /^准备就绪/);
    }
    await page.click('#generate');
    await hasResult(page);
    await page.goto(server.url);
    await status(page, /^Ready/);
  }));
