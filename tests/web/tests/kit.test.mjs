// The kit for a GPU (./build.sh kit), at a test's sizes on this machine's software driver: from an empty folder, with nothing
// in its environment. Left out there, since it takes minutes or hours of a software driver: networks at full size (the small
// one of their form is compared with torch), the other ways of recording (tests/ops has them), real sizes of everything timed.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from '../support/browser.mjs';

/** @typedef {{ title: string, columns: string[], details: boolean, rows: (string | number | null)[][] }} Table */
/** @typedef {{ status: string, ended: boolean, failed: boolean, tables: Table[] }} Part */

const PARTS = ['adapter', 'ops', 'step', 'tiles', 'operations', 'probes', 'parity', 'compile', 'compile-threads'];

test('the kit does all its parts from an empty folder in an empty environment', t => {
  const folder = mkdtempSync(join(tmpdir(), 'kit-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [kit, empty] = ['kit', 'empty'].map(name => join(folder, name));
  execFileSync('./build.sh', ['kit', kit], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  const size = readdirSync(kit).reduce((sum, file) => sum + statSync(join(kit, file)).size, 0);
  assert.ok(size <= 12 << 20, `${size} bytes`);

  mkdirSync(empty);
  const env = { PATH: '/usr/bin:/bin' };
  const run = spawnSync(join(kit, 'run.sh'), ['--small'], { cwd: empty, env, encoding: 'utf8' });
  assert.equal(run.status, 0, run.stdout + run.stderr);
  const read = (/** @type {string} */ file) => readFileSync(join(empty, 'kit-results', file), 'utf8');
  const all = JSON.parse(read('kit.json')), text = read('kit.md');
  for (const name of PARTS) {
    const part = /** @type {Part} */ (all[name]);
    assert.deepEqual([name, part.status, part.ended, part.failed], [name, 'done', true, false]);
    for (const table of part.tables) {
      assert.ok(table.rows.length > 0, `${name}: ${table.title}`);
      for (const row of table.rows) assert.equal(row.length, table.columns.length, `${name}: ${table.title}: ${row}`);
      assert.equal(text.includes(`\n${table.title}\n`), !table.details, table.title);
    }
  }
  assert.match(text, /^# \S.*, \S.*, \d{4}-\d\d-\d\d \d\d:\d\d UTC\n/);
  // Every row of these is a comparison: none failed, and the errors are numbers.
  for (const row of all.ops.tables[0].rows) assert.ok(row[2] > 20 && row[3] > 10 && row[4] === 0, String(row));
  for (const row of all.parity.tables[0].rows) assert.ok(row[3] > 0 && row[3] <= row[4], String(row));
  t.diagnostic(`${(size / 2 ** 20).toFixed(1)} MiB`);
});
