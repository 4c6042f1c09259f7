// ./build.sh release: dist/, the site as it is published: www/ in every language, with its scripts and styles as small as
// esbuild makes them, file by file, a quarter of what a visitor would fetch of them.
import { cpSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { render } from './languages.mjs';
import { transformSync } from '../tests/web/node_modules/esbuild/lib/main.js';

/** @type {Record<string, 'js' | 'css'>} */
const loaders = { '.js': 'js', '.css': 'css' };

/** Makes a site's scripts, styles and pages small, where they stand. @param {string} site */
export function minify(site) {
  for (const path of readdirSync(site, { recursive: true, encoding: 'utf8' })) {
    const file = join(site, path);
    // Between lines of HTML any white space is a space; no page has text that keeps it.
    if (extname(path) === '.html') writeFileSync(file, readFileSync(file, 'utf8').replace(/^ +/gm, ''));
    const loader = loaders[extname(path)];
    if (!loader) continue;
    const { code } = transformSync(readFileSync(file, 'utf8'), {
      loader, minify: true, target: 'es2022', charset: 'utf8', legalComments: 'none',
      ...(loader === 'js' ? { format: 'esm' } : {}),
    });
    writeFileSync(file, code);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [www, dist] = ['www', 'dist'].map(name => fileURLToPath(new URL(`../${name}`, import.meta.url)));
  rmSync(dist, { recursive: true, force: true });
  cpSync(www, dist, { recursive: true });
  render(dist);
  minify(dist);
}
