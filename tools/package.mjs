// ./build.sh release, after publish.mjs: packages/, what others build into their sites.
//   browser-diffusion-VERSION.tgz           npm: the module and the element; docs/embedding.md says how it is used
//   browser-diffusion-embedded-VERSION.tgz  npm: the embedded model
//   browser-diffusion-site.zip              dist/, to be unpacked on any static host
// The module is in the package three times, since no one form serves everybody:
//   browser-diffusion.js  its files as the site has them, for import by address: a worker of another origin by a blob
//   bundler.js            one file that names its worker as Vite and webpack look for it
//   inline.js             one file and nothing beside it, worker and wasm too, for what follows no addresses: esbuild
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, openAsBlob, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { buildSync, build } from '../tests/web/node_modules/esbuild/lib/main.js';
import { zip } from '../www/page/zip.js';
import { minify } from './publish.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const NAME = 'browser-diffusion';
const PARTS = join(root, 'tools/package');
const version = /^version = "(.*)"$/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))?.[1] ?? '';
const common = {
  version, license: 'MIT OR Apache-2.0', type: 'module',
};

/** The files that `entry` runs, itself among them. @param {string} entry @param {string[]} [external] @returns {string[]} */
function imported(entry, external = []) {
  const { metafile } = buildSync({
    entryPoints: [entry], bundle: true, write: false, metafile: true, format: 'esm', absWorkingDir: root, external,
  });
  return Object.keys(metafile.inputs);
}

/**
 * Puts other files in the place of some of www/. @param {string} folder with files of the same names
 * @returns {import('../tests/web/node_modules/esbuild/lib/main.js').Plugin}
 */
const replaced = folder => ({
  name: 'replaced',
  setup({ onResolve }) {
    const own = new Set(readdirSync(folder));
    onResolve({ filter: /^\.\/(start-worker|embedded-model)\.js$/ }, ({ path }) => {
      const file = basename(path);
      return { path: own.has(file) ? join(folder, file) : join(PARTS, file) };
    });
  },
});

/** What of the package is named by its address at run time. @type {import('../tests/web/node_modules/esbuild/lib/main.js').Plugin} */
const workerWithWasm = {
  name: 'worker with wasm',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^worker-with-wasm$/ }, () => ({ path: 'worker', namespace: 'packed' }));
    onLoad({ filter: /.*/, namespace: 'packed' }, async () => {
      const wasm = gzipSync(readFileSync(join(root, 'www/pkg/browser_diffusion_bg.wasm')), { level: 9 });
      const script = await bundled('www/worker.js', [{
        name: 'wasm',
        setup(inner) {
          inner.onLoad({ filter: /pkg\/browser_diffusion\.js$/ }, ({ path }) => {
            const address = "new URL('browser_diffusion_bg.wasm', import.meta.url)";
            const [before, after, ...more] = readFileSync(path, 'utf8').split(address);
            if (after === undefined || more.length) throw new Error(`${path} names its wasm in another way than it did`);
            const contents = `import wasmIn from ${JSON.stringify(join(PARTS, 'inline/wasm.js'))};\n` +
              `${before}wasmIn(${JSON.stringify(wasm.toString('base64'))})${after}`;
            return { contents, loader: 'js', resolveDir: dirname(path) };
          });
        },
      }]);
      return { contents: script, loader: 'text' };
    });
  },
};

/**
 * A script and what it imports, in one.
 * @param {string} entry @param {import('../tests/web/node_modules/esbuild/lib/main.js').Plugin[]} plugins
 */
async function bundled(entry, plugins) {
  const { outputFiles: [{ text }] } = await build({
    entryPoints: [join(root, entry)], bundle: true, write: false, format: 'esm', target: 'es2022', minify: true,
    charset: 'utf8', legalComments: 'none', plugins,
  });
  return text;
}

/** @param {string} folder @param {object} json @param {string} readme */
function describe(folder, json, readme) {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(json, null, 2)}\n`);
  writeFileSync(join(folder, 'README.md'), readme);
  for (const file of ['LICENSE-MIT', 'LICENSE-APACHE']) cpSync(join(root, file), join(folder, file));
}

/** The part of a document under a heading. @param {string} file @param {string} heading */
function section(file, heading) {
  const text = readFileSync(join(root, file), 'utf8');
  const found = text.split(/^## /m).find(part => part.startsWith(`${heading}\n`));
  if (!found) throw new Error(`${file} has no "## ${heading}"`);
  return `## ${found.trim()}\n`;
}

/** By conditions that bundlers have by themselves: only webpack has one of its own. @param {string} name @param {(form: string) => string} file */
const entry = (name, file) => ({
  types: `./${name}.d.ts`,
  node: file('unbundled'),
  webpack: file('bundler'),
  production: file('bundler'), // Vite's builds; its server moves scripts away from their workers
  default: file('inline'),
});

/** @param {string} to */
async function modulePackage(to) {
  const scripts = new Set([...imported('www/element.js'), ...imported('www/worker.js')]);
  for (const path of scripts) cpSync(join(root, path), join(to, path.replace('www/', '')), { recursive: true });
  cpSync(join(PARTS, 'embedded-model.js'), join(to, 'embedded-model.js'));
  minify(to);
  const types = ['browser-diffusion.d.ts', 'ip-adapter.d.ts', 'parts.d.ts', 'element.d.ts'];
  for (const file of [...types, 'pkg/browser_diffusion_bg.wasm'])
    cpSync(join(root, 'www', file), join(to, file));
  for (const file of ['vocab.json', 'merges.txt'])
    cpSync(join(root, 'www/embedded/tokenizer', file), join(to, 'tokenizer', file));
  writeFileSync(join(to, 'bundler.js'), await bundled('www/browser-diffusion.js', [replaced(join(PARTS, 'bundler'))]));
  const inline = await bundled('www/browser-diffusion.js', [replaced(join(PARTS, 'inline')), workerWithWasm]);
  if (/\bimport\.meta\b/.test(inline)) throw new Error('inline.js names a file beside it');
  writeFileSync(join(to, 'inline.js'), inline);
  const element = readFileSync(join(to, 'element.js'), 'utf8');
  for (const form of ['bundler', 'inline'])
    writeFileSync(join(to, `element-${form}.js`), element.replaceAll('./browser-diffusion.js', `./${form}.js`));
  const unbundled = { unbundled: './browser-diffusion.js', bundler: './bundler.js', inline: './inline.js' };
  describe(to, {
    name: NAME,
    description: "Stable Diffusion in a browser tab, on the visitor's own GPU",
    keywords: ['stable-diffusion', 'webgpu', 'wasm', 'text-to-image'],
    ...common,
    types: './browser-diffusion.d.ts',
    main: './browser-diffusion.js',
    exports: {
      '.': entry('browser-diffusion', form => unbundled[/** @type {keyof typeof unbundled} */ (form)]),
      './element': entry('element', form => `./element${form === 'unbundled' ? '' : `-${form}`}.js`),
      './inline': { types: './browser-diffusion.d.ts', default: './inline.js' },
      './package.json': './package.json',
    },
    sideEffects: ['./element*.js', './worker.js'],
    files: ['*.js', '*.d.ts', 'metadata', 'pkg', 'tokenizer', 'LICENSE-*'],
  }, `# ${NAME}\n\n${readFileSync(join(root, 'docs/embedding.md'), 'utf8').replace(/^# .*\n+/, '')}\n` +
    section('README.md', 'Licences'));
}

/** @param {string} to */
function modelPackage(to) {
  cpSync(join(root, 'www/embedded'), join(to, 'embedded'), { recursive: true });
  const paths = readdirSync(join(to, 'embedded'), { recursive: true, encoding: 'utf8' })
    .filter(path => statSync(join(to, 'embedded', path)).isFile())
    .sort();
  const rows = paths.map(path => {
    const small = statSync(join(to, 'embedded', path)).size < 4096;
    const data = () => `data:application/json,${encodeURIComponent(readFileSync(join(to, 'embedded', path), 'utf8'))}`;
    const value = small ? JSON.stringify(data()) : `new URL(${JSON.stringify(`./embedded/${path}`)}, import.meta.url).href`;
    return `    ${JSON.stringify(path)}: ${value},\n`;
  });
  const head = '/** The embedded model, as fromPretrained of browser-diffusion takes it. */\nexport default {\n' +
    `  version: ${JSON.stringify(version)},\n`;
  writeFileSync(join(to, 'index.js'), `${head}  embedded: {\n${rows.join('')}  },\n};\n`);
  // Where nothing follows addresses, the folder has to be put beside the page.
  writeFileSync(join(to, 'beside.js'), `${head}  embedded: 'embedded/',\n};\n`);
  writeFileSync(join(to, 'index.d.ts'),
    'declare const model: { version: string; embedded: string | Record<string, string> };\nexport default model;\n');
  describe(to, {
    name: `${NAME}-embedded`,
    description: 'The small model of browser-diffusion',
    ...common,
    types: './index.d.ts',
    main: './index.js',
    exports: {
      '.': {
        types: './index.d.ts', node: './index.js', webpack: './index.js', production: './index.js', default: './beside.js',
      },
      './embedded/*': './embedded/*',
      './package.json': './package.json',
    },
    sideEffects: false,
    files: ['*.js', '*.d.ts', 'embedded', 'LICENSE-*'],
  }, `# ${NAME}-embedded\n\n${section('docs/embedding.md', 'The embedded model')}\n` +
    section('training/README.md', 'Data and licences'));
}

/** @param {string} folder @param {string} file */
async function zipped(folder, file) {
  async function* files() {
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
      const path = join(folder, name);
      if (statSync(path).isFile()) yield { name, time: statSync(path).mtimeMs, file: await openAsBlob(path) };
    }
  }
  const archive = await zip(files());
  if (!archive) throw new Error(`${folder} is too large for a zip archive`);
  writeFileSync(file, Buffer.from(await archive.arrayBuffer()));
}

const out = join(root, 'packages');
rmSync(out, { recursive: true, force: true });
const staged = join(root, 'target/packages');
rmSync(staged, { recursive: true, force: true });
for (const [name, make] of /** @type {const} */ ([[NAME, modulePackage], [`${NAME}-embedded`, modelPackage]])) {
  const folder = join(staged, name);
  mkdirSync(folder, { recursive: true });
  mkdirSync(out, { recursive: true });
  await make(folder);
  execFileSync('npm', ['pack', '--silent', '--pack-destination', out], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}
await zipped(join(root, 'dist'), join(out, `${NAME}-site.zip`));
for (const file of readdirSync(out)) console.error(`${file}: ${statSync(join(out, file)).size} bytes`);
