// <diffusion-picture> by attributes, events, a form and the keyboard, with the fake engine; package.test.mjs draws with the
// real one.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { withBrowser } from '../support/browser.mjs';
import { serve } from '../support/serve.mjs';
import { goOn, site } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** Everything takes long on a busy machine; nothing is judged by it. */
const timeout = 600_000;

/**
 * A page with this in its body, that has the element; `window.heard` lists events as they come.
 * @param {string} html @param {(page: Page) => Promise<void>} work
 */
async function withElement(html, work) {
  const page = `<!doctype html><title>t</title><link rel="icon" href="data:,"><script type="module">
    window.heard = [];
    for (const type of ['loading', 'step', 'picture', 'failed', 'change'])
      document.addEventListener(type, ({ target, detail }) => window.heard.push([type, target.id, detail?.code]), true);
    Object.assign(window, await import('./element.js'), await import('./browser-diffusion.js'));
    window.there = true;
  </script><body>${html}</body>`;
  const server = await serve(site, 0, { '/element.html': page });
  try {
    await withBrowser({}, async context => {
      const opened = await context.newPage();
      await opened.goto(`${server.url}element.html`);
      await opened.waitForFunction(() => 'there' in window);
      await work(opened);
    });
  } finally {
    server.close();
  }
}

/** Waits for an event. @param {Page} page @param {string} type @param {string} [id] */
const heard = (page, type, id = 'a') => page.waitForFunction(
  ([type, id]) => (/** @type {any} */ (window)).heard.some((/** @type {any} */ e) => e[0] === type && e[1] === id),
  [type, id],
);
/** What the picture of an element says that it was drawn with. @param {Page} page */
const options = page => page.evaluate(async () => {
  const { readParameters } = /** @type {any} */ (window);
  const element = /** @type {any} */ (document.querySelector('#a'));
  const { options: { prompt, negativePrompt, seed, numInferenceSteps, guidanceScale, width, height } } =
    await readParameters(element.value);
  return { prompt, negativePrompt, seed, numInferenceSteps, guidanceScale, width, height, name: element.value.name };
});

test('draws what its attributes say, and again where they change', { timeout }, () => withElement(
  '<diffusion-picture id="a" prompt="a red apple" negative-prompt="blue" seed="3" steps="5" guidance="4.5" ' +
    'width="32" height="40"></diffusion-picture>',
  async page => {
    await heard(page, 'change');
    const first = await options(page);
    assert.deepEqual(first, {
      prompt: 'a red apple', negativePrompt: 'blue', seed: 3, numInferenceSteps: 5, guidanceScale: 4.5, width: 32,
      height: 40, name: 'a-red-apple.png',
    });
    const events = await page.evaluate(() =>
      (/** @type {any} */ (window)).heard.map((/** @type {any} */ e) => e[0]));
    assert.equal(events.filter((/** @type {string} */ e) => e === 'step').length, 5);
    assert.deepEqual(events.slice(-2), ['picture', 'change']);
    // Two at once are one drawing, and a drawing that is not wanted any more is stopped.
    await page.evaluate(async () => {
      const element = /** @type {Element} */ (document.querySelector('#a'));
      (/** @type {any} */ (window)).heard.length = 0;
      element.setAttribute('prompt', 'a pear holds at 2');
      await new Promise(done => element.addEventListener('step', done, { once: true }));
      element.setAttribute('prompt', '猫');
      element.setAttribute('seed', '8');
    });
    await heard(page, 'change');
    assert.deepEqual(await options(page), { ...first, prompt: '猫', seed: 8, name: '猫.png' });
    const again = await page.evaluate(() => (/** @type {any} */ (window)).heard);
    assert.equal(again.filter((/** @type {any} */ e) => e[0] === 'picture').length, 1);
    assert.deepEqual(again.filter((/** @type {any} */ e) => e[0] === 'failed'), []);
    assert.equal(await page.locator('#a canvas').getAttribute('aria-label'), '猫');
  },
));

test('by the keyboard, when it is asked', { timeout }, () => withElement(
  '<diffusion-picture id="a" manual prompt="x holds at 2" steps="3"><span slot="draw">画</span>' +
    '<span slot="stop">停</span><output slot="progress">wait</output></diffusion-picture>',
  async page => {
    assert.deepEqual(await page.evaluate(() => (/** @type {any} */ (window)).heard), []);
    assert.equal(page.workers().length, 0, 'nothing is fetched unasked');
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'a');
    await page.keyboard.press('Enter');
    await heard(page, 'step');
    await page.getByRole('button', { name: '停', exact: true }).waitFor();
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.querySelector('#a')?.ariaBusy === 'false');
    assert.equal(await page.evaluate(() => (/** @type {any} */ (document.querySelector('#a'))).value), null);
    await page.getByRole('button', { name: '画', exact: true }).waitFor();
    await page.evaluate(() => { (/** @type {any} */ (window)).heard.length = 0; });
    await page.keyboard.press('Space');
    await page.waitForFunction(() =>
      (/** @type {any} */ (window)).heard.filter((/** @type {any} */ e) => e[0] === 'step').length === 2);
    await goOn(page);
    await heard(page, 'picture');
  },
));

test('a field of a form: sent, required, reset, disabled', { timeout }, () => withElement(
  '<form id="f"><fieldset id="s"><diffusion-picture id="a" manual required name="apple" prompt="x" steps="1">' +
    '</diffusion-picture></fieldset></form>',
  async page => {
    const seen = await page.evaluate(async () => {
      const form = /** @type {HTMLFormElement} */ (document.querySelector('#f'));
      const element = /** @type {any} */ (document.querySelector('#a'));
      const sent = () => {
        const file = new FormData(form).get('apple');
        return file instanceof File ? [file.name, file.type, file === element.value || file.size] : file;
      };
      const [before, none] = [form.checkValidity(), sent()];
      const file = await element.draw();
      const [after, one, size] = [form.checkValidity(), sent(), file.size];
      form.reset();
      const reset = [form.checkValidity(), sent()];
      /** @type {HTMLFieldSetElement} */ (document.querySelector('#s')).disabled = true;
      return { before, none, after, one, size, reset, disabled: await element.draw(), form: element.form === form };
    });
    const { one, size, ...rest } = seen;
    assert.deepEqual(one?.slice(0, 2), ['x.png', 'image/png']);
    assert.ok(one?.[2] === true || one?.[2] === size);
    assert.deepEqual(rest, {
      before: false, none: null, after: true, reset: [false, null], disabled: null, form: true,
    });
    assert.equal(await page.locator('#a').getByRole('button').isDisabled(), true);
  },
));

test('elements share a model, let go of it, and say what went wrong', { timeout }, () => withElement(
  '<diffusion-picture id="a" prompt="x" steps="1"></diffusion-picture>' +
    '<diffusion-picture id="b" prompt="y" steps="1"></diffusion-picture>' +
    '<diffusion-picture id="c" prompt="z" steps="1" source="missing/model"></diffusion-picture>',
  async page => {
    await heard(page, 'picture', 'a');
    await heard(page, 'picture', 'b');
    await heard(page, 'failed', 'c');
    const failed = await page.evaluate(() =>
      (/** @type {any} */ (window)).heard.find((/** @type {any} */ e) => e[0] === 'failed'));
    assert.deepEqual(failed, ['failed', 'c', 'network']);
    assert.match(await page.locator('#c').getByRole('status').innerText(), /missing\/model/);
    const workers = async (/** @type {number} */ count) => {
      while (page.workers().length !== count) await page.waitForTimeout(20);
    };
    await workers(1);
    // What is moved keeps its picture and its model; what is taken away lets go.
    await page.evaluate(() => document.body.append(/** @type {Element} */ (document.querySelector('#a'))));
    await page.evaluate(() => document.querySelector('#b')?.remove());
    await page.evaluate(() => /** @type {any} */ (document.querySelector('#a')).draw());
    assert.equal(page.workers().length, 1);
    await page.evaluate(() => document.querySelector('#a')?.remove());
    await workers(0);
  },
));
