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

/** How a script names a module. */
const IMPORTED = [/\bfrom '(\.[^']+)'/g, /\bimport '(\.[^']+)'/g];
/** How it names any file. */
const SCRIPT = [...IMPORTED, /\bimport\('(\.[^']+)'\)/g, /new URL\('(\.[^']+)', import\.meta\.url\)/g];
/** How a page names a file that is fetched with it. */
const FETCHED = [/<(?:link(?! rel="(?:modulepreload|alternate)")|script|img)\b[^>]*\b(?:href|src)="([^":#]+)"/g];
/** A module that it fetches before a script asks for it. */
const PRELOADED = [/<link rel="modulepreload" href="([^"]+)"/g];
/** How it names another page. */
const LINKED = [/<a\b[^>]*\bhref="([^":#]+)"/g];

/** What a file names in one of some ways. @param {string} path @param {RegExp[]} patterns @returns {string[]} */
function named(path, patterns) {
  const code = read(path).replace(/\/\*.*?\*\//gs, '').replace(/^\s*\/\/.*$/gm, '');
  const names = patterns.flatMap(pattern => [...code.matchAll(pattern)].map(([, file]) => join(dirname(path), file)));
  // A page that names a folder means the page in it.
  const page = (/** @type {string} */ file) => file.replace(/^\.\/$/, '').replace(/(^|\/)$/, '$1index.html');
  return path.endsWith('.html') ? names.map(page) : names;
}

/**
 * Files and all that they ask for.
 * @param {string[]} start
 * @param {(path: string) => RegExp[]} patterns how a file of that path names others
 */
function closure(start, patterns) {
  const files = new Set(start);
  for (const file of files) {
    // What the build makes is a script and its module.
    if (file === 'pkg/browser_diffusion.js') files.add('pkg/browser_diffusion_bg.wasm');
    else if (/\.(html|js)$/.test(file)) for (const name of named(file, patterns(file))) files.add(name);
  }
  return [...files];
}

/** The page in each language. */
const PAGES = ['index.html', 'zh/index.html'];

/** All pages that work without a network. */
const KEPT = [...PAGES, 'learn.html', 'zh/learn.html', 'help.html', 'zh/help.html'];

/** These pages and all that they ask for. @param {boolean} links the pages that they link to as well */
const asked = links =>
  closure(KEPT, path => (path.endsWith('.js') ? SCRIPT : [...SCRIPT, ...FETCHED, ...(links ? LINKED : [])]));

/** The quoted names of a list in sw.js. @param {string} list */
const listed = list => {
  const found = new RegExp(`const ${list} = \\[([^\\]]*)\\]`).exec(read('sw.js'));
  assert.ok(found, `sw.js has ${list}`);
  return [...found[1].matchAll(/'([^']+)'/g)].map(([, name]) => name);
};

test('the service worker keeps exactly the files that its pages ask for', () => {
  // Of a model it keeps at most what the page shows of it.
  const [model, page] = [true, false].map(is => asked(false).filter(file => file.startsWith('embedded/') === is));
  const shell = page.filter(file => file !== 'sw.js')
    .map(file => file.replace(/^index\.html$/, './').replace(/\/index\.html$/, '/'));
  assert.deepEqual(listed('SHELL').sort(), shell.sort());
  assert.deepEqual(listed('OPTIONAL').sort(), model.filter(file => !file.endsWith('/')).sort());
});

test('the page fetches every module that it imports at once, not one after another, and one language', () => {
  const imported = closure(['app.js'], () => IMPORTED).filter(file => file !== 'app.js');
  for (const [i, language] of ['en', 'zh'].entries())
    assert.deepEqual(named(PAGES[i], PRELOADED).sort(), [...imported, `messages/${language}.js`].sort());
});

/** What other people's pages import, and none of ours. */
const OFFERED = ['element.js'];

test('www/ holds what a visitor\'s browser asks for, the model and the types', () => {
  const files = readdirSync(www, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
    .map(entry => relative(www, join(entry.parentPath, entry.name)))
    .filter(file => !file.startsWith('embedded/') && !file.startsWith('pkg/') && !file.endsWith('.d.ts'));
  const wanted = asked(true).filter(file => !file.startsWith('embedded/') && !file.startsWith('pkg/'));
  assert.deepEqual(files.sort(), [...wanted, ...OFFERED].sort());
});
