// A drawing is not lost by looking something up: while there is one, other pages open beside this one, and the browser asks
// whoever leaves all the same. When there is none nothing is asked, and a page that was left comes back as it was.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { goOn, hasResult, shot, status, withPage } from '../support/site.mjs';
import { overflows, violations } from '../support/languages.mjs';

/** @typedef {import('playwright-core').Page} Page */

/** @param {Page} page */
async function hold(page) {
  await status(page, /^Ready/);
  await page.fill('#prompt', 'a cat holds at 2');
  await page.click('#generate');
  await page.waitForFunction(() => document.querySelectorAll('#strip li').length >= 2);
}

/** Leaves, and whether the browser asked: who is asked stays. @param {Page} page @param {() => Promise<unknown>} leave */
async function asks(page, leave) {
  const asked = page.waitForEvent('dialog');
  leave().catch(() => {}); // it stays
  const dialog = await asked;
  await dialog.dismiss();
  return dialog.type();
}

test('while it draws, Understand and Help open beside; the drawing is finished', () =>
  withPage({ width: 320 }, async page => {
    await hold(page);
    assert.equal(await overflows(page), 0);
    assert.deepEqual(await violations(page), []);
    await shot(page, 'stay');
    assert.match(await page.getAttribute('.places a[href="help.html"]', 'title') ?? '', /another tab/);
    for (const [how, place] of [['click', 'learn.html'], ['keyboard', 'help.html']]) {
      const beside = page.context().waitForEvent('page');
      const link = page.locator(`.places a[href="${place}"]`);
      if (how === 'click') await link.click();
      else await link.press('Enter');
      const other = await beside;
      await other.waitForSelector('main');
      assert.ok(other.url().endsWith(place), other.url());
      await other.close();
    }
    // To the models and back is within this page, as ever.
    assert.equal(await page.getAttribute('.places a[href="#models"]', 'target'), null);
    await page.click('.places a[href="#models"]');
    await page.click('.places a[href="#draw"]');
    await goOn(page);
    await hasResult(page);
    await status(page, /^Done/);
    assert.equal(await page.locator('a[target]').count(), 0, 'from here on they open in this tab again');
  }));

test('while it draws the browser asks before the page is reloaded or left; who stays has the picture', () =>
  withPage({}, async (page, _, { url }) => {
    await hold(page);
    assert.equal(await asks(page, () => page.reload()), 'beforeunload');
    assert.equal(await asks(page, () => page.goto(`${url}bench.html`)), 'beforeunload');
    await goOn(page);
    await hasResult(page);
    await status(page, /^Done/);
    // Nothing is asked now: a dialog that nobody answers would hold this for ever.
    page.on('dialog', dialog => assert.fail(dialog.type()));
    await page.reload();
    await status(page, /^Ready/);
    await page.click('.places a[href="learn.html"]');
    await page.waitForURL(/learn\.html$/);
  }));

test('who goes to the help after a drawing, and back, finds the page as it was left', () =>
  withPage({ keepsPages: true }, async (page, _, { url }) => {
    // What drives the browser does not follow a page that comes back: another one is told.
    const watcher = await page.context().newPage();
    await watcher.goto(`${url}help.html`);
    await status(page, /^Ready/);
    await page.click('#generate');
    await hasResult(page);
    await status(page, /^Done/);
    await page.evaluate(() => {
      addEventListener('pageshow', ({ persisted }) => localStorage.setItem('back', String(persisted)));
    });
    await page.click('.places a[href="help.html"]');
    await page.waitForURL(/help\.html$/);
    await page.evaluate(() => { setTimeout(() => history.back()); });
    await watcher.waitForFunction(() => localStorage.getItem('back'));
    assert.equal(await watcher.evaluate(() => localStorage.getItem('back')), 'true');
  }));
