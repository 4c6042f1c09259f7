// The npm packages and the site as ./build.sh release makes them, in other people's hands: fresh projects of Vite, webpack and
// esbuild install the tarballs, build with nothing set, and draw the picture that the site draws, bit for bit. Each under
// the Content-Security-Policy of docs/embedding.md; what that does not allow, the browser reports, and the test fails.
import { after, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { build as esbuild } from 'esbuild';
import { build as vite, createServer } from 'vite';
import webpack from 'webpack';
import { browsers, root, withBrowser } from '../support/browser.mjs';
import { setLevel } from '../support/level.mjs';
import { serve } from '../support/serve.mjs';

/** @typedef {import('../support/browser.mjs').Name} Name */
/** @typedef {{ value: string, name: string, type: string, events: string[], sent: string }} Drawn */

const packages = join(root, 'packages');
const home = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
after(() => rmSync(home, { recursive: true }));

const guide = readFileSync(join(root, 'docs/embedding.md'), 'utf8');
const policy = (/^ {4}default-src[^]*?(?=\n\n)/m.exec(guide)?.[0] ?? '').replace(/\s+/g, ' ').trim();

/** What a project's page does: the picture by the module, and the same by the element in a form. */
const MAIN = `
import { DiffusionPipeline, readParameters } from 'browser-diffusion';
import { DiffusionPicture } from 'browser-diffusion/element';
import embedded from 'browser-diffusion-embedded';
const hex = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].join();
window.draw = async () => {
  const pipeline = await DiffusionPipeline.fromPretrained(embedded);
  const { images: [image] } = await pipeline.generate({ prompt: 'a red apple', seed: 1, numInferenceSteps: 3 });
  await pipeline.dispose();
  return hex(image.data);
};
window.element = async () => {
  DiffusionPicture.source = embedded;
  const form = document.createElement('form');
  form.innerHTML = '<diffusion-picture name="apple" prompt="a red apple" seed="1" steps="3"></diffusion-picture>';
  const element = form.firstChild;
  const events = [];
  for (const type of ['loading', 'step', 'picture', 'failed']) element.addEventListener(type, () => events.push(type));
  const done = new Promise((resolve, reject) => {
    element.addEventListener('change', resolve);
    element.addEventListener('failed', ({ detail }) => reject(detail));
  });
  document.body.append(form);
  await done;
  const file = new FormData(form).get('apple');
  const bitmap = await createImageBitmap(file);
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
  context.drawImage(bitmap, 0, 0);
  const value = await hex(context.getImageData(0, 0, bitmap.width, bitmap.height).data);
  const { options } = await readParameters(file);
  form.remove();
  return { value, name: file.name, type: file.type, events: [...new Set(events)], sent: options.prompt };
};
`;
const HTML = (/** @type {string} */ script) =>
  `<!doctype html><title>t</title><link rel="icon" href="data:,"><script type="module" src="${script}"></script>\n`;

/** @param {string} name */
function project(name) {
  const folder = join(home, name);
  mkdirSync(join(folder, 'src'), { recursive: true });
  const tarballs = readdirSync(packages).filter(file => file.endsWith('.tgz')).map(file => join(packages, file));
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', '--silent', ...tarballs], { cwd: folder });
  writeFileSync(join(folder, 'src/main.js'), MAIN);
  return folder;
}

/** What docs/embedding.md has people do where nothing follows addresses. @param {string} folder @param {string} to */
const copyModel = (folder, to) => {
  const model = join(folder, 'node_modules/browser-diffusion-embedded/embedded');
  cpSync(model, join(folder, to, 'embedded'), { recursive: true });
};

/** Builds; gives the folder that is the site. @type {Record<string, (folder: string) => Promise<string>>} */
const bundlers = {
  vite: async folder => {
    writeFileSync(join(folder, 'index.html'), HTML('/src/main.js'));
    await vite({ root: folder, configFile: false, logLevel: 'warn' });
    return join(folder, 'dist');
  },
  webpack: async folder => {
    // The directory that webpack's command would run in.
    const where = { context: folder, output: { path: join(folder, 'dist') } };
    await new Promise((done, fail) => {
      webpack({ ...where, entry: './src/main.js', mode: 'production', performance: false }, (error, stats) => {
        if (error || stats?.hasErrors() || stats?.hasWarnings()) fail(error ?? new Error(stats?.toString()));
        else done(undefined);
      });
    });
    writeFileSync(join(folder, 'dist/index.html'), HTML('main.js'));
    return join(folder, 'dist');
  },
  esbuild: async folder => {
    const { warnings } = await esbuild({
      absWorkingDir: folder, entryPoints: ['src/main.js'], bundle: true, minify: true, outdir: 'dist',
    });
    assert.deepEqual(warnings, []);
    writeFileSync(join(folder, 'dist/index.html'), HTML('main.js'));
    copyModel(folder, 'dist');
    return join(folder, 'dist');
  },
};

/** @param {string} folder without the embedded model's @returns {string} */
function sizes(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && !/safetensors|embedded/.test(join(entry.parentPath, entry.name)))
    .map(entry => join(entry.parentPath, entry.name));
  return files.map(path => {
    const { length } = gzipSync(readFileSync(path));
    return `${path.slice(folder.length + 1)} ${statSync(path).size} (${length} gzipped)`;
  }).join(', ');
}

/**
 * @template T
 * @param {string} url
 * @param {(page: import('playwright-core').Page) => Promise<T>} work
 * @param {Name} [browser]
 */
const visit = (url, work, browser) => withBrowser({ browser }, async context => {
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForFunction(() => 'draw' in window);
  return work(page);
});

const draw = (/** @type {import('playwright-core').Page} */ page) =>
  page.evaluate(() => /** @type {any} */ (window).draw());

test('the packages', async t => {
  t.diagnostic(readdirSync(packages).map(file => `${file} ${statSync(join(packages, file)).size}`).join(', '));
  assert.match(policy, /script-src 'self' 'wasm-unsafe-eval'.* base-uri 'none'/, 'the guide has a policy');
  const [site, blank] = [await serve(join(root, 'dist')), { '/blank.html': '<!doctype html>' }];
  const theirs = await serve(join(root, 'tests/web/support'), 0, blank);
  after(() => [site, theirs].forEach(server => server.close()));

  /** What the site's own module draws. */
  const drawnBySite = (/** @type {Name} */ browser) => withBrowser({ browser }, async context => {
    const page = await context.newPage();
    await page.goto(`${theirs.url}blank.html`);
    return page.evaluate(async address => {
      const { DiffusionPipeline } = await import(`${address}browser-diffusion.js`);
      const pipeline = await DiffusionPipeline.fromPretrained('embedded');
      const { images: [image] } = await pipeline.generate({ prompt: 'a red apple', seed: 1, numInferenceSteps: 3 });
      return [...new Uint8Array(await crypto.subtle.digest('SHA-256', image.data))].join();
    }, site.url);
  });
  const right = await drawnBySite('chromium');

  for (const [name, build] of Object.entries(bundlers)) {
    await t.test(`${name}: installs, builds with nothing set, and draws under the policy`, async () => {
      const folder = project(name);
      const built = await build(folder);
      t.diagnostic(`${name}: ${sizes(built)}`);
      const its = name === 'esbuild' ? policy.replace("worker-src 'self'", 'worker-src blob:') : policy;
      const server = await serve(built, 0, {}, { 'content-security-policy': its });
      try {
        assert.equal(await visit(server.url, draw), right);
        // Another browser has another arithmetic.
        if (name === 'vite' && browsers.includes('firefox'))
          assert.equal(await visit(server.url, draw, 'firefox'), await drawnBySite('firefox'));
        if (name === 'webpack') return;
        const drawn = /** @type {Drawn} */ (
          await visit(server.url, page => page.evaluate(() => /** @type {any} */ (window).element()))
        );
        assert.deepEqual(drawn, {
          value: right, name: 'a-red-apple.png', type: 'image/png', events: ['loading', 'step', 'picture'],
          sent: 'a red apple',
        });
      } finally {
        server.close();
      }
    });
  }

  await t.test('vite serves it while a project is developed', async () => {
    const folder = join(home, 'vite');
    copyModel(folder, 'public');
    const server = await createServer({ root: folder, configFile: false, logLevel: 'warn', server: { port: 0 } });
    try {
      await server.listen();
      assert.equal(await visit(/** @type {string} */ (server.resolvedUrls?.local[0]), draw), right);
    } finally {
      await server.close();
    }
  });

  await t.test('unbundled, from another origin, by an import map', async () => {
    const cdn = await serve(join(home, 'webpack/node_modules'));
    const main = MAIN.replace("'browser-diffusion/element'", `'${cdn.url}browser-diffusion/element.js'`)
      .replace("'browser-diffusion'", `'${cdn.url}browser-diffusion/browser-diffusion.js'`)
      .replace("'browser-diffusion-embedded'", `'${cdn.url}browser-diffusion-embedded/index.js'`);
    const origin = cdn.url.slice(0, -1);
    const its = policy.replace("worker-src 'self'", `worker-src blob: ${origin}`)
      .replace("'wasm-unsafe-eval'", `'wasm-unsafe-eval' ${origin}`)
      .replace("connect-src 'self'", `connect-src ${origin}`);
    const folder = join(home, 'plain');
    mkdirSync(folder);
    writeFileSync(join(folder, 'index.html'), HTML('main.js'));
    writeFileSync(join(folder, 'main.js'), main);
    const server = await serve(folder, 0, {}, { 'content-security-policy': its });
    try {
      assert.equal(await visit(server.url, draw), right);
    } finally {
      [server, cdn].forEach(each => each.close());
    }
  });
});

test('the site itself works under the policy', async () => {
  const server = await serve(join(root, 'dist'), 0, {}, { 'content-security-policy': policy });
  try {
    await withBrowser({}, async context => {
      const page = await context.newPage();
      await page.addInitScript(setLevel, 'all');
      await page.goto(server.url);
      await page.fill('#prompt', 'a red apple');
      await page.fill('#steps', '2');
      await page.click('#generate');
      await page.waitForFunction(() => 'browserDiffusion' in window);
    });
  } finally {
    server.close();
  }
});

test('an import in Node starts nothing; what is missing is told', async () => {
  const folder = join(home, 'vite');
  const script = `
    import { DiffusionPipeline, detect, readParameters } from 'browser-diffusion';
    import { DiffusionPicture } from 'browser-diffusion/element';
    import embedded from 'browser-diffusion-embedded';
    import { existsSync } from 'node:fs';
    const { options } = await readParameters('a cat\\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 64x64');
    const code = await DiffusionPipeline.fromPretrained(embedded).catch((error) => error.code);
    const name = await DiffusionPipeline.fromPretrained('embedded').catch((error) => error.message);
    const files = Object.values(embedded.embedded).filter((url) => url.startsWith('file:'));
    console.log(JSON.stringify({
      steps: options.numInferenceSteps, webgpu: (await detect()).webgpu, code, name, element: typeof DiffusionPicture,
      files: files.length, there: files.every((url) => existsSync(new URL(url))),
    }));`;
  writeFileSync(join(folder, 'node.mjs'), script);
  const seen = JSON.parse(execFileSync(process.execPath, ['node.mjs'], { cwd: folder, encoding: 'utf8' }));
  assert.match(seen.name, /browser-diffusion-embedded/);
  assert.deepEqual({ ...seen, name: '' }, {
    steps: 7, webgpu: false, code: 'webgpu-unavailable', name: '', element: 'function', files: 7, there: true,
  });
});

test('its types are found, and are right', async () => {
  const folder = join(home, 'vite');
  writeFileSync(join(folder, 'typed.ts'), `
    import { DiffusionPipeline, type GenerateResult } from 'browser-diffusion';
    import { DiffusionPicture } from 'browser-diffusion/element';
    import embedded from 'browser-diffusion-embedded';
    const pipeline = await DiffusionPipeline.fromPretrained(embedded);
    const result: GenerateResult = await pipeline.generate({ prompt: 'a', seed: 1 });
    const element: DiffusionPicture = document.createElement('diffusion-picture');
    element.addEventListener('step', ({ detail }) => { const n: number = detail.step; console.log(n, result); });
    // @ts-expect-error no such option
    await pipeline.generate({ prompt: 'a', sed: 1 });
  `);
  const tsc = join(root, 'tests/web/node_modules/.bin/tsc');
  for (const [module, resolution] of [['esnext', 'bundler'], ['nodenext', 'nodenext']])
    execFileSync(tsc, [
      '--noEmit', '--strict', '--target', 'es2022', '--types', '', '--module', module, '--moduleResolution', resolution,
      join(folder, 'typed.ts'),
    ], { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'] });
});
