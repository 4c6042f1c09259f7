/**
 * The service worker: keeps the page itself, so that it opens without a network. (Weights are kept by the
 * engine, in IndexedDB.)
 *
 * The files of the page are one set: a script of today with the WebAssembly of yesterday would break. So
 * the set is fetched, stored and replaced as a whole, under the hash of its contents. Each opening of the
 * page asks the server for news first; where no answer comes in time, the set that is there serves.
 */
const SHELL = [
  './', 'zh/', 'style.css', 'icon.svg', 'manifest.webmanifest', 'manifest-zh.webmanifest',
  'models.json', 'lexicon-zh.json',
  'example/example.json', 'example/steps.webp',
  'messages/index.js', 'messages/en.js', 'messages/zh.js',
  'help.html', 'zh/help.html', 'help.js', 'inside.js', 'inside-blocks.js', 'inside.css',
  'app.js', 'page/additions.js', 'page/catalogue.js', 'page/chinese.js', 'page/clear.js', 'page/compare.js',
  'page/completion.js', 'page/controls.js', 'page/cost.js', 'page/download.js', 'page/drawing.js', 'page/editor.js',
  'page/enlarge.js', 'page/example.js', 'page/few-steps.js', 'page/files.js', 'page/frame.js', 'page/grid.js',
  'page/history.js', 'page/how.js', 'page/kept.js', 'page/languages.js', 'page/latents.js', 'page/levels.js',
  'page/likeness.js', 'page/looking.js', 'page/model.js', 'page/network.js', 'page/offers.js', 'page/page-error.js',
  'page/parts.js', 'page/pasted.js', 'page/pictures.js', 'page/places.js', 'page/presets.js', 'page/prompts.js',
  'page/queue.js', 'page/read-as.js', 'page/recipes.js', 'page/settings.js', 'page/share.js', 'page/sheet.js',
  'page/shop.js', 'page/start.js', 'page/stay.js', 'page/stored.js', 'page/strip.js', 'page/styles-csv.js',
  'page/styles.js', 'page/suggestions.js', 'page/tags.js', 'page/tokens.js', 'page/told.js', 'page/translate.js',
  'page/translation-offer.js', 'page/tuning.js', 'page/ui.js', 'page/uses.js', 'page/variants.js', 'page/view.js',
  'page/wake.js', 'page/weigh.js', 'page/wildcard-lists.js', 'page/wildcards.js', 'page/word-maps.js', 'page/work.js',
  'page/zip.js',
  'learn.html', 'zh/learn.html', 'learn.css', 'learn.js', 'messages/learn/en.js', 'messages/learn/zh.js',
  'learn/chance.js', 'learn/doodle.js', 'learn/draw.js', 'learn/glossary.js', 'learn/guess.js', 'learn/painter.js',
  'learn/panel.js', 'learn/plane.js', 'learn/practice.js', 'learn/quiz.js', 'learn/say.js', 'learn/sketches.js',
  'learn/spoil.js', 'learn/station.js', 'learn/steps.js', 'learn/subject.js', 'learn/train.js', 'learn/uses.js',
  'learn/words.js',
  'browser-diffusion.js', 'errors.js', 'engine.js', 'options.js', 'sources.js', 'picture.js', 'metadata.js', 'names.js',
  'metadata/accepted.js', 'metadata/comfy.js', 'metadata/containers.js', 'metadata/formats.js',
  'metadata/needs.js', 'metadata/schedulers.js', 'metadata/text.js', 'metadata/values.js', 'metadata/writing.js',
  'samplers.js', 'train.js', 'worker.js', 'start-worker.js', 'embedded-model.js', 'addresses.js', 'kept-choices.js',
  'pkg/browser_diffusion.js', 'pkg/browser_diffusion_bg.wasm',
];
/** Kept where it is there: a page may go without the embedded model. */
const OPTIONAL = ['embedded/concepts.json'];
const PREFIX = 'shell-';
const PATIENCE_MS = 3000;

// A service worker's own types are another library than the page's, which the rest is checked with.
const worker = /** @type {any} */ (self);
/** @param {string} path */
const address = (path) => new URL(path, worker.registration.scope).href;
const page = address('./');
/** A folder's page has two addresses. @param {string} href */
const named = (href) => href.replace(/\/index\.html$/, '/');
const known = new Set([...SHELL, ...OPTIONAL].map(address));

worker.addEventListener('install', (/** @type {any} */ event) => {
  event.waitUntil(refresh().then(() => worker.skipWaiting()));
});

worker.addEventListener('activate', (/** @type {any} */ event) => {
  event.waitUntil(worker.clients.claim());
});

worker.addEventListener('fetch', (/** @type {any} */ event) => {
  /** @type {Request} */
  const request = event.request;
  const url = new URL(request.url);
  url.search = url.hash = '';
  const href = named(url.href);
  if (request.method !== 'GET' || !known.has(href)) return;
  if (request.mode !== 'navigate') {
    event.respondWith(kept(href).then((file) => file ?? fetch(request)));
    return;
  }
  const news = refresh().catch(() => {}); // no network, or half of a set: the one that is there stays
  event.waitUntil(news);
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  event.respondWith(Promise.race([news, patience]).then(() => kept(href)).then((file) => file ?? fetch(request)));
});

/**
 * The newest set that is whole: the page itself is put in last.
 * @returns {Promise<string | undefined>} the cache's name
 */
async function newest() {
  for (const name of (await caches.keys()).filter((each) => each.startsWith(PREFIX)).sort().reverse()) {
    if (await caches.match(page, { cacheName: name })) return name;
  }
  return undefined;
}

/** @param {string} href */
async function kept(href) {
  const name = await newest();
  return name && caches.match(href, { cacheName: name });
}

/** Fetches the set, and puts it in place of the one before if anything in it changed. */
async function refresh() {
  const files = await Promise.all([...known].map(async (href) => {
    const response = await fetch(href, { cache: 'no-cache' });
    if (response.ok) return [{ href, response, body: await response.clone().arrayBuffer() }];
    if (OPTIONAL.map(address).includes(href)) return [];
    throw new Error(`${href}: ${response.status}`);
  }));
  const present = files.flat();
  const hashes = await Promise.all(present.map(({ body }) => crypto.subtle.digest('SHA-256', body)));
  const whole = await crypto.subtle.digest('SHA-256', await new Blob(hashes).arrayBuffer());
  const id = [...new Uint8Array(whole, 0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  if ((await newest())?.endsWith(id)) return;
  // Names sort by time. Two refreshes at once may store the same set twice; the older goes with the next.
  const name = `${PREFIX}${String(Date.now()).padStart(15, '0')}-${id}`;
  const set = await caches.open(name);
  const isPage = (/** @type {{ href: string }} */ file) => file.href === page;
  await Promise.all(present.filter((file) => !isPage(file)).map(({ href, response }) => set.put(href, response)));
  for (const { href, response } of present.filter(isPage)) await set.put(href, response);
  for (const old of await caches.keys()) {
    if (old.startsWith(PREFIX) && old < name) await caches.delete(old);
  }
}
