// Every op against its f64 reference in the browser, on an adapter without shader-f16 (SwiftShader), where f16
// values are unpacked from words. Natively the same comparisons run with f16 arithmetic: tests/ops.rs.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { withBrowser, root } from './browser.mjs';
import { serve } from './hub.mjs';

test('every op is right without shader-f16', { timeout: 600_000 }, async t => {
  const server = await serve({ roots: { '/': `${root}/tests/web`, '/check/': `${root}/target/ops-check` } });
  t.after(() => server.close());
  await withBrowser({ adapter: 'swiftshader' }, async context => {
    const page = await context.newPage();
    await page.goto(`${server.url}/blank.html`);
    const report = await page.evaluate(async () => {
      const { default: init, checkOps } = await import(/** @type {any} */ ('/check/ops_check.js'));
      await init();
      return JSON.parse(await checkOps(1));
    });
    assert.equal(report.shaderF16, false);
    assert.ok(report.rows.length > 60, `${report.rows.length} comparisons`);
    const worst = Math.max(...report.rows.filter((/** @type {any} */ r) => r.tolerance).map((/** @type {any} */ r) => r.error / r.tolerance));
    t.diagnostic(`${report.rows.length} comparisons, worst at ${worst.toFixed(2)} of its tolerance`);
    assert.deepEqual(report.rows.filter((/** @type {any} */ r) => !r.passed), []);
  });
});
