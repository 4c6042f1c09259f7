// Every op against its f64 reference in the browser: on SwiftShader, which has no shader-f16 and subgroups of 4, and on
// lavapipe (shader-f16, subgroups of 8). Without subgroups, where a kernel takes seconds to compile, every branch of the
// shaders: on SwiftShader again, and in Firefox on lavapipe, which has shader-f16. Natively: tests/ops/main.rs.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { adapters, browsers, withBrowser, root } from '../support/browser.mjs';
import { serve } from '../support/hub.mjs';

/** @typedef {import('../support/browser.mjs').Name} Name */
/** @type {{ browser: Name, adapter: string, subgroup: number, shaderF16: boolean }[]} */
const ways = [
  { browser: 'chromium', adapter: 'swiftshader', subgroup: 4, shaderF16: false },
  { browser: 'chromium', adapter: 'swiftshader', subgroup: 0, shaderF16: false },
];
if (adapters.includes('lavapipe'))
  ways.push({ browser: 'chromium', adapter: 'lavapipe', subgroup: 8, shaderF16: true });
if (browsers.includes('firefox'))
  ways.push({ browser: 'firefox', adapter: 'lavapipe', subgroup: 0, shaderF16: true });

for (const { browser, adapter, subgroup, shaderF16 } of ways)
  test(`every op is right in ${browser} on ${adapter}, subgroups of ${subgroup}`, async t => {
    const server = await serve({ roots: { '/': `${root}/tests/web/support`, '/check/': `${root}/target/ops-check` } });
    t.after(() => server.close());
    await withBrowser({ browser, adapter }, async context => {
      const page = await context.newPage();
      await page.goto(`${server.url}/blank.html`);
      const report = await page.evaluate(async without => {
        const { default: init, checkOps } = await import(/** @type {any} */ ('/check/ops_check.js'));
        await init();
        return JSON.parse(await checkOps(without));
      }, subgroup === 0);
      assert.deepEqual([report.shaderF16, report.subgroup], [shaderF16, subgroup]);
      assert.ok(report.rows.length > (subgroup > 0 ? 60 : 50), `${report.rows.length} comparisons`);
      const worst = Math.max(
        ...report.rows
          .filter((/** @type {any} */ r) => r.tolerance)
          .map((/** @type {any} */ r) => r.error / r.tolerance),
      );
      t.diagnostic(`${report.rows.length} comparisons, worst at ${worst.toFixed(2)} of its tolerance`);
      assert.deepEqual(
        report.rows.filter((/** @type {any} */ r) => !r.passed),
        [],
      );
    });
  });
