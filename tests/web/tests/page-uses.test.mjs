// What can be done with a picture that was drawn, each by mouse, by keyboard alone, and on a narrow screen: the settings,
// the seed, the link, where to start from, the mask, a ControlNet, a star, deleting, undo, search and zip. The engine is
// fake-engine.js, whose result tells the options that reached it. Screenshots: .tools/screenshots/uses-*.png.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { asked, drawAgain, hasResult, sheetFor, shot, status, withPage } from '../support/site.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** @param {Page} page @param {string} id @param {RegExp} pattern */
const says = (page, id, pattern) =>
  page.waitForFunction(
    ([id, source]) => new RegExp(source).test(document.getElementById(id)?.textContent ?? ''),
    [id, pattern.source],
  );

/** @type {{ hand: string, width: number, scheme: 'light' | 'dark', press: (page: Page, target: string) => Promise<void> }[]} */
const visitors = [
  { hand: 'mouse', width: 1280, scheme: 'light', press: (page, target) => page.click(target) },
  {
    hand: 'keyboard', width: 360, scheme: 'dark',
    async press(page, target) {
      for (let i = 0; i < 200; i++) {
        if (await page.evaluate(target => document.activeElement?.matches(target), target)) break;
        await page.keyboard.press('Tab');
      }
      await page.keyboard.press('Enter');
    },
  },
  {
    hand: 'mouse', width: 360, scheme: 'light',
    async press(page, target) {
      await sheetFor(page, target);
      await page.click(target);
    },
  },
];

for (const { hand, width, scheme, press } of visitors) {
  test(`what a picture can be used for, by ${hand} at ${width} px`, () =>
    withPage({ width }, async page => {
      await page.emulateMedia({ colorScheme: scheme });
      await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
      await status(page, /^Ready/);
      assert.ok(await page.isHidden('#use-settings'), 'nothing is there to be used');
      const draw = async (/** @type {Record<string, string>} */ values) => {
        for (const [id, value] of Object.entries(values)) {
          await sheetFor(page, `#${id}`);
          await page.fill(`#${id}`, value);
        }
        await drawAgain(page, () => page.keyboard.press('Control+Enter'));
        await status(page, /^Done/);
      };
      await draw({ prompt: 'a red apple', seed: '5', steps: '4', width: '64', height: '48', guidance: '6' });
      await draw({ prompt: 'a blue cat', seed: '9', steps: '2', width: '16', height: '16', guidance: '1' });
      assert.equal(await page.locator('#gallery button').count(), 2);

      await press(page, '#gallery li:nth-child(2) button');
      await says(page, 'caption', /^a red apple/);
      assert.equal(await page.inputValue('#seed'), '9', 'to look at it changes nothing');
      await press(page, '#use-seed');
      await status(page, /^Seed 5 draws/);
      assert.deepEqual([await page.inputValue('#seed'), await page.inputValue('#prompt')], ['5', 'a blue cat']);
      await press(page, '#use-settings');
      await status(page, /^The settings of the picture are back/);
      await drawAgain(page, () => page.keyboard.press('Control+Enter'));
      const again = await asked(page);
      assert.deepEqual(
        [again.prompt, again.seed, again.numInferenceSteps, again.width, again.height, again.guidanceScale],
        ['a red apple', 5, 4, 64, 48, 6],
      );
      await press(page, '#copy-link');
      await status(page, /^The link is copied/);
      const link = await page.evaluate(() => navigator.clipboard.readText());
      assert.match(link, /#p=a\+red\+apple&seed=5&steps=4&guidance=6&width=64&height=48&scheduler=pndm$/);

      await press(page, '#use-mask');
      await says(page, 'error', /A mask needs a picture to change/);
      await press(page, '#redraw');
      await page.waitForSelector('#editor:not([hidden])');
      await press(page, '#use-mask');
      await status(page, /^Where the picture is bright/);
      await press(page, '#use-control');
      await page.waitForFunction(() => document.activeElement?.id.startsWith('ControlNet-source'));
      await page.keyboard.type('some/control');
      await drawAgain(page, () => page.keyboard.press('Control+Enter'));
      const { image, maskImage, controlnets } = await asked(page);
      assert.deepEqual([image.width, image.height], [64, 48]);
      // The fake's picture is as bright as chance: half of it is above the middle.
      assert.ok(maskImage.white > 0.3 && maskImage.white < 0.7, String(maskImage.white));
      assert.deepEqual([controlnets[0].source, controlnets[0].image.width], ['some/control', 64]);
      await press(page, '#use-enlarge');
      await says(page, 'error', /Choose an ESRGAN model/);

      await sheetFor(page, '#history-search');
      await page.fill('#history-search', 'blue CAT');
      await says(page, 'history-usage', /^1 picture,/);
      await press(page, '#gallery button');
      await says(page, 'caption', /^a blue cat/);
      await press(page, '#star');
      await page.waitForSelector('#gallery .starred');
      await page.fill('#history-search', '');
      await press(page, '#history-starred');
      await says(page, 'history-usage', /^1 picture,/);
      await page.evaluate(() => scrollTo(0, 0));
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await shot(page, `uses-${hand}-${width}-${scheme}`);
      const [download] = await Promise.all([page.waitForEvent('download'), press(page, '#history-export')]);
      assert.equal(download.suggestedFilename(), 'pictures.zip');
      await press(page, '#delete-picture');
      await says(page, 'history-note', /^“a blue cat” is deleted/);
      await page.waitForFunction(() => document.activeElement?.id === 'history-undo');
      await page.keyboard.press('Enter');
      await says(page, 'history-note', /^“a blue cat” is back/);
      await page.waitForSelector('#gallery .starred');

      // The link, opened by somebody else.
      const other = await page.context().newPage();
      await other.goto(link);
      await status(other, /^Ready/);
      const values = ['prompt', 'seed', 'steps', 'guidance', 'width', 'height'].map(id => other.inputValue(`#${id}`));
      assert.deepEqual(await Promise.all(values), ['a red apple', '5', '4', '6', '64', '48']);
      await other.click('#generate');
      await hasResult(other);
      assert.equal((await asked(other)).prompt, 'a red apple');
    }));
}
