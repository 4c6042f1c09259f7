// What a visitor downloads before the first picture stays small: the site as it is published (./build.sh release).
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root } from '../support/browser.mjs';

const MiB = 1024 * 1024;
const dist = join(root, 'dist');
/** @param {string} path */
const gzipped = path => gzipSync(readFileSync(path), { level: 9 }).length;

test('the wasm module is at most 1 MiB gzipped', t => {
  const bytes = gzipped(join(dist, 'pkg/browser_diffusion_bg.wasm'));
  t.diagnostic(`${bytes} bytes`);
  assert.ok(bytes <= MiB, `${bytes} bytes`);
});

test('the page without the embedded model is at most 1.3 MiB gzipped', t => {
  const files = readdirSync(dist, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile()).map(entry => join(entry.parentPath ?? entry.path, entry.name))
    .filter(path => !path.startsWith(join(dist, 'embedded')) && !path.endsWith('.d.ts'));
  const bytes = files.reduce((sum, path) => sum + gzipped(path), 0);
  t.diagnostic(`${bytes} bytes in ${files.length} files`);
  assert.ok(files.some(path => path.endsWith('index.html')), 'there is a page');
  assert.ok(bytes <= 1.3 * MiB, `${bytes} bytes`);
});
