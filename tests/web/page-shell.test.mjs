// What the service worker keeps is what the page asks for: no file is missing without a network, and none is kept for
// nothing. (That the page then opens and draws is catalogue.test.mjs's and robust.test.mjs's.)
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from './browser.mjs';

/** @param {string} path */
const read = path => readFileSync(join(root, 'www', path), 'utf8');

/** The files that a script names in its imports and in `new URL(..., import.meta.url)`. @param {string} path */
function named(path) {
  const code = read(path).replace(/\/\*.*?\*\//gs, '').replace(/^\s*\/\/.*$/gm, '');
  const names = [/\bfrom '(\.[^']+)'/g, /\bimport '(\.[^']+)'/g, /\bimport\('(\.[^']+)'\)/g, /new URL\('(\.[^']+)', import\.meta\.url\)/g];
  return names.flatMap(name => [...code.matchAll(name)].map(([, file]) => join(dirname(path), file)));
}

/** The quoted names of a list in sw.js. @param {string} list */
const listed = list => {
  const found = new RegExp(`const ${list} = \\[([^\\]]*)\\]`).exec(read('sw.js'));
  assert.ok(found, `sw.js has ${list}`);
  return [...found[1].matchAll(/'([^']+)'/g)].map(([, name]) => name);
};

test('the service worker keeps exactly the files that the page asks for', () => {
  const linked = [...read('index.html').matchAll(/<(?:link|script|img)\b[^>]*\b(?:href|src)="([^":]+)"/g)].map(([, file]) => file);
  const asked = new Set(linked);
  for (const file of asked) {
    // What the build makes is the one module and its code.
    if (file === 'pkg/browser_diffusion.js') asked.add('pkg/browser_diffusion_bg.wasm');
    else if (file.endsWith('.js')) for (const name of named(file)) asked.add(name);
  }
  // The service worker keeps all but itself, and of a model at most what the page shows of it.
  const model = [...asked].filter(file => file.startsWith('embedded/'));
  const shell = [...asked].filter(file => file !== 'sw.js' && !model.includes(file));
  assert.deepEqual(listed('SHELL').sort(), ['./', ...shell].sort());
  assert.deepEqual(listed('OPTIONAL').sort(), model.filter(file => !file.endsWith('/')).sort());
});
