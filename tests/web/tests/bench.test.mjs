// The benchmark page with small counts: it measures, fills its tables and copies them.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { operations } from '../../../www/bench/operations.js';
import { root, withBrowser } from '../support/browser.mjs';
import { serve } from '../support/serve.mjs';

test('bench.html measures operations and a UNet, and copies the table', async t => {
  const server = await serve(join(root, 'www'));
  t.after(() => server.close());
  await withBrowser({}, async context => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = await context.newPage();
    await page.setViewportSize({ width: 1000, height: 1000 });
    await page.goto(`${server.url}bench.html?quick&filter=320&unet=embedded/unet/config.json&side=16&batch=1`);
    await page.click('#start');
    await page.waitForFunction(
      () => /** @type {any} */ (window).benchmark || !document.getElementById('error')?.hidden,
      null,
    );
    assert.equal(await page.locator('#error').isVisible(), false, await page.locator('#error').innerText());
    const report = await page.evaluate(() => /** @type {any} */ (window).benchmark);

    const precisions = report.adapter.shaderF16 ? ['f32', 'f16'] : ['f32'];
    const names = operations.filter(o => o.name.includes('320')).map(o => o.name);
    assert.deepEqual(
      report.rows.map((/** @type {any} */ r) => [r.name, r.precision]),
      precisions.flatMap(p => names.map(name => [name, p])),
    );
    for (const row of report.rows) {
      assert.ok(row.ms > 0 && row.flops > 0 && row.bytes > 0 && row.workgroups > 0, JSON.stringify(row));
      // Nothing is faster than the fastest that was measured.
      assert.ok(row.share > 0 && row.share <= 1, `${row.name}: ${row.share} of the peak`);
    }
    // A matrix multiply of 4096 x 320 x 320 and a bias, an FMA counting two.
    assert.equal(
      report.rows.find((/** @type {any} */ r) => r.name === 'GEMM 4096x320x320').flops,
      2 * 4096 * 320 * 320,
    );
    for (const step of report.steps) {
      assert.ok(step.ms > 0 && step.memory > 0 && step.flops > 0);
      assert.equal(step.counters.created, 0);
      assert.equal(
        step.kernels.reduce((/** @type {number} */ sum, /** @type {any} */ k) => sum + k.dispatches, 0),
        step.counters.dispatches,
      );
      assert.equal(
        step.kernels.reduce((/** @type {number} */ sum, /** @type {any} */ k) => sum + k.flops, 0),
        step.flops,
      );
      for (const kind of ['conv', 'GEMM']) {
        const [kernel] = step.kernels.filter(
          (/** @type {any} */ k) => k.kernel === (kind === 'GEMM' ? 'matmul' : kind),
        );
        const products = step.products.filter((/** @type {any} */ p) => p.name.startsWith(`${kind} `));
        for (const key of ['dispatches', 'flops']) {
          assert.equal(
            products.reduce((/** @type {number} */ sum, /** @type {any} */ p) => sum + p[key], 0),
            kernel[key],
            `${kind}: ${key}`,
          );
        }
        for (const p of products)
          assert.ok(p.ms > 0 && p.loads <= 0.3 && p.registers > 0 && p.bytes > 0, JSON.stringify(p));
      }
    }
    assert.equal(report.steps.length, precisions.length);

    assert.equal(await page.locator('#operations tr').count(), report.rows.length + 1);
    await page.click('#copy');
    await page.waitForFunction(() => document.getElementById('status')?.textContent === 'Copied.');
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(text, new RegExp(`\\| GEMM 4096x320x320 \\| f32 \\|`));
    assert.ok(text.includes(report.date) && text.includes(report.browser));
    mkdirSync(join(root, '.tools/screenshots'), { recursive: true });
    await page.screenshot({ path: join(root, '.tools/screenshots/bench.png'), fullPage: true });
  });
});
