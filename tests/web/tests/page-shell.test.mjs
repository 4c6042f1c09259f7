// What is deployed is what a visitor's browser asks for, and what the service worker keeps of it is what the page
// itself asks for: no file is missing without a network, and none lies there for nothing. (That the page then opens
// and draws is shown by catalogue.test.mjs and robust.test.mjs.)
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const www = fileURLToPath(new URL('../../../www', import.meta.url));
/** @param {string} path */
const read = path => readFileSync(join(www, path), 'utf8');

/** How a script names a file: in its imports, and in `new URL(..., import.meta.url)`. */
const SCRIPT = [
  /\bfrom '(\.[^']+)'/g, /\bimport '(\.[^']+)'/g, /\bimport\('(\.[^']+)'\)/g,
  /new URL\('(\.[^']+)', import\.meta\.url\)/g,
];
/** How a page names a file that is fetched with it. */
const FETCHED = [/<(?:link|script|img)\b[^>]*\b(?:href|src)="([^":#]+)"/g];
/** How it names another page. */
const LINKED = [/<a\b[^>]*\bhref="([^":#]+)"/g];

/** What a file names. @param {string} path @param {boolean} links other pages too @returns {string[]} */
function named(path, links) {
  // What the build makes is a script and its module.
  if (path === 'pkg/browser_diffusion.js') return ['pkg/browser_diffusion_bg.wasm'];
  if (!/\.(html|js)$/.test(path)) return [];
  const code = read(path).replace(/\/\*.*?\*\//gs, '').replace(/^\s*\/\/.*$/gm, '');
  const patterns = path.endsWith('.js') ? SCRIPT : [...SCRIPT, ...FETCHED, ...(links ? LINKED : [])];
  const names = patterns.flatMap(pattern => [...code.matchAll(pattern)].map(([, file]) => join(dirname(path), file)));
  return names.map(file => (file === './' ? 'index.html' : file));
}

/** A page and all that it asks for. @param {boolean} links the pages that it links to as well */
function asked(links) {
  const files = new Set(['index.html']);
  for (const file of files) for (const name of named(file, links)) files.add(name);
  return [...files];
}

/** The quoted names of a list in sw.js. @param {string} list */
const listed = list => {
  const found = new RegExp(`const ${list} = \\[([^\\]]*)\\]`).exec(read('sw.js'));
  assert.ok(found, `sw.js has ${list}`);
  return [...found[1].matchAll(/'([^']+)'/g)].map(([, name]) => name);
};

test('the service worker keeps exactly the files that the page asks for', () => {
  // Of a model it keeps at most what the page shows of it.
  const [model, page] = [true, false].map(is => asked(false).filter(file => file.startsWith('embedded/') === is));
  const shell = page.filter(file => file !== 'sw.js').map(file => (file === 'index.html' ? './' : file));
  assert.deepEqual(listed('SHELL').sort(), shell.sort());
  assert.deepEqual(listed('OPTIONAL').sort(), model.filter(file => !file.endsWith('/')).sort());
});

test('www/ holds what a visitor\'s browser asks for, the model and the types', () => {
  const files = readdirSync(www, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
    .map(entry => relative(www, join(entry.parentPath, entry.name)))
    .filter(file => !file.startsWith('embedded/') && !file.startsWith('pkg/') && !file.endsWith('.d.ts'));
  const wanted = asked(true).filter(file => !file.startsWith('embedded/') && !file.startsWith('pkg/'));
  assert.deepEqual(files.sort(), wanted.sort());
});
