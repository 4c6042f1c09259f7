/**
 * A file server for the tests that misbehaves on request: static files with Range, ETag and CORS, a Hub's
 * addresses, a log of every request, and faults.
 *
 *   const hub = await serve({ roots: { '/': 'www' }, models: { 'owner/name': 'path/to/folder' } });
 *   hub.fault((r) => r.path.endsWith('.safetensors') && r.count === 2 ? { cutAfter: 1000 } : undefined);
 *   // hub.url + '/owner/name/resolve/main/unet/config.json'
 *   hub.log // [{ method, path, range: [0, 1023], status, sent }]
 *   await hub.close();
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, resolve } from 'node:path';

const MIME = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.ico': 'image/x-icon',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.mjs': 'text/javascript; charset=utf-8',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
  '.webp': 'image/webp',
  '.webmanifest': 'application/manifest+json',
};

/**
 * @typedef {object} Logged
 * @property {string} method
 * @property {string} path       Decoded, without query.
 * @property {[number, number] | null} range  First and last byte asked for.
 * @property {number} count      How many requests this path has had, with this one.
 * @property {number} status     0 while unanswered.
 * @property {number} sent       Bytes of the body sent.
 * @property {import('node:http').IncomingHttpHeaders} headers
 *
 * What is to go wrong with one request. Several may.
 * @typedef {object} Fault
 * @property {number} [status]        Answer with this status and no file.
 * @property {string | number} [retryAfter]  Retry-After of that answer.
 * @property {number} [cutAfter]      Cut the connection after so many bytes of the body.
 * @property {boolean} [ignoreRange]  Answer 200 with the whole file.
 * @property {boolean} [noLength]     No Content-Length (chunked), as when compressed on the way.
 * @property {number} [shift]         Send the range moved by so many bytes, and say so.
 * @property {number} [shorten]       Send so many bytes fewer than asked for, and say so.
 * @property {number} [corrupt]       Flip a bit of the file's byte at this offset.
 * @property {number} [lie]           Name a file's length that is so many bytes longer.
 * @property {string} [redirect]      Answer 302 with this Location.
 * @property {string} [token]         Answer 401 where this access token does not come along.
 * @property {string} [etag]          Another ETag; '' for none.
 * @property {boolean} [hideHeaders]  Expose no header to other origins.
 * @property {number} [delay]         Milliseconds before the answer.
 * @property {Promise<void>} [until]  Answer when this is resolved.
 * @property {number} [rate]          Bytes per second, about.
 *
 * @typedef {object} Options
 * @property {Record<string, string>} [roots]   Address prefix ('/', '/app/') to folder; the longest wins.
 * @property {Record<string, string>} [models]  Hub id to folder: '/owner/name/resolve/<revision>/<path>'.
 * @property {Record<string, Buffer | string>} [files]  Address to content, for small things.
 * @property {Record<string, string>} [headers] Sent with every answer.
 * @property {boolean} [sha256]  Show each file's SHA-256 as X-Linked-ETag, as the Hub does for large files.
 * @property {number} [port]
 */

/** @typedef {{ path: string, size: number, tag: string, body?: Buffer }} Found  a file, or what stands for one */
/** @typedef {Record<string, string | number>} Headers */

/** The folder's file at `path`, if it is within the folder. @param {string} folder @param {string} path */
function inside(folder, path) {
  const file = normalize(join(resolve(folder), path));
  return file.startsWith(resolve(folder)) ? [file.endsWith('/') ? join(file, 'index.html') : file] : [];
}

/** @param {Options} options @returns {(path: string) => Promise<Found | null>} */
function finder({ roots = {}, models = {}, files = {} }) {
  const prefixes = Object.keys(roots).sort((a, b) => b.length - a.length);
  /** @param {string} path */
  function candidates(path) {
    const hub = /^\/([^/]+\/[^/]+)\/resolve\/[^/]+\/(.+)$/.exec(path);
    if (hub && Object.hasOwn(models, hub[1])) return inside(models[hub[1]], hub[2]);
    const prefix = prefixes.find((p) => path.startsWith(p));
    return prefix === undefined ? [] : inside(roots[prefix], path.slice(prefix.length) || './');
  }
  return async (path) => {
    if (path in files) {
      const body = Buffer.from(files[path]);
      return { path, size: body.length, tag: createHash('sha1').update(body).digest('hex'), body };
    }
    for (const file of candidates(path)) {
      const s = await stat(file).catch(() => null);
      if (s?.isFile()) return { path: file, size: s.size, tag: `${s.size.toString(16)}-${s.mtimeMs.toString(16)}` };
    }
    return null;
  };
}

/** @param {Fault} fault @returns {Headers} */
const cors = (fault) => ({
  'Cache-Control': 'no-cache',
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Allow-Headers': 'Range, Authorization',
  ...(fault.hideHeaders ? {} : {
    'Access-Control-Expose-Headers': 'Content-Range, ETag, Accept-Ranges, X-Linked-ETag, Retry-After',
  }),
  'Cross-Origin-Resource-Policy': 'cross-origin',
});

/**
 * What is answered without a file: by a fault, or to a question about other origins.
 * @param {Logged} entry @param {Fault} fault @returns {[number, Headers] | undefined}
 */
function refusal(entry, fault) {
  if (fault.status) return [fault.status, fault.retryAfter === undefined ? {} : { 'Retry-After': fault.retryAfter }];
  if (fault.redirect) return [302, { Location: fault.redirect }];
  if (entry.method === 'OPTIONS') return [204, {}];
  if (fault.token && entry.headers.authorization !== `Bearer ${fault.token}`) return [401, {}];
  return undefined;
}

/** @param {string} path @param {Found} file @param {string} etag @returns {Headers} */
const described = (path, file, etag) => ({
  'Content-Type':
    MIME[/** @type {keyof typeof MIME} */ (extname(path.endsWith('/') ? 'index.html' : file.path))] ??
    'application/octet-stream',
  'Accept-Ranges': 'bytes',
  ...(etag && { ETag: etag }),
});

/**
 * Which bytes are sent, under which status.
 * @param {Logged} entry @param {Fault} fault @param {number} size of the file
 * @returns {{ status: number, begin: number, end: number, headers: Headers }}
 */
function portion(entry, fault, size) {
  if (!entry.range || fault.ignoreRange) return { status: 200, begin: 0, end: size, headers: {} };
  const [first, last] = entry.range;
  if (first >= size) return { status: 416, begin: 0, end: 0, headers: { 'Content-Range': `bytes */${size}` } };
  const begin = first + (fault.shift ?? 0);
  const end = Math.min(last + 1, size) + (fault.shift ?? 0) - (fault.shorten ?? 0);
  const range = `bytes ${begin}-${end - 1}/${size + (fault.lie ?? 0)}`;
  return { status: 206, begin, end, headers: { 'Content-Range': range } };
}

/**
 * Sends the bytes `begin`..`end` of a file, as the fault has it.
 * @param {import('node:http').ServerResponse} res @param {Logged} entry @param {Fault} fault @param {Found} file
 * @param {number} begin @param {number} end
 */
async function pour(res, entry, fault, file, begin, end) {
  const body = file.body
    ? [file.body.subarray(begin, end)]
    : createReadStream(file.path, { start: begin, end: end - 1 });
  for await (let part of body) {
    const at = begin + entry.sent;
    if (fault.corrupt !== undefined && fault.corrupt >= at && fault.corrupt < at + part.length) {
      part = Buffer.from(part);
      part[fault.corrupt - at] ^= 1;
    }
    const left = (fault.cutAfter ?? Infinity) - entry.sent;
    const cut = part.length >= left;
    if (cut) part = part.subarray(0, left);
    entry.sent += part.length;
    res.write(part);
    if (cut) {
      // Let the bytes out before the socket goes.
      await new Promise((done) => setTimeout(done, 20));
      return void res.destroy();
    }
    const { rate } = fault;
    if (rate) await new Promise((done) => setTimeout(done, (part.length / rate) * 1000));
    if (res.writableNeedDrain && !res.destroyed) {
      // A client that goes away never drains.
      await new Promise((done) => {
        const go = () => (res.off('drain', go).off('close', go), done(undefined));
        res.on('drain', go).on('close', go);
      });
    }
    if (res.destroyed) return;
  }
  res.end();
}

/**
 * @param {Options} options
 * @returns {Promise<{ url: string, log: Logged[],
 *   fault(f: ((r: Logged) => Fault | undefined) | null): void, close(): Promise<void> }>}
 */
export async function serve(options = {}) {
  /** @type {Logged[]} */
  const log = [];
  /** @type {((r: Logged) => Fault | undefined) | null} */
  let faults = null;
  const find = finder(options);
  /** SHA-256 by path. @type {Map<string, string>} */
  const hashes = new Map();
  /** @param {Found} file */
  const hash = async (file) => {
    const known = hashes.get(file.path);
    if (known) return known;
    const hashed = createHash('sha256').update(file.body ?? (await readFile(file.path))).digest('hex');
    hashes.set(file.path, hashed);
    return hashed;
  };

  const server = createServer(async (req, res) => {
    const path = decodeURIComponent(new URL(req.url ?? '/', 'http://localhost').pathname);
    const asked = /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? '');
    /** @type {Logged} */
    const entry = {
      method: req.method ?? 'GET',
      path,
      range: asked && [Number(asked[1]), asked[2] === '' ? Infinity : Number(asked[2])],
      count: 1 + log.filter((r) => r.path === path).length,
      status: 0,
      sent: 0,
      headers: req.headers,
    };
    log.push(entry);
    const fault = faults?.(entry) ?? {};
    const send = (/** @type {number} */ status, /** @type {Headers} */ more = {}) => {
      entry.status = status;
      res.writeHead(status, { ...cors(fault), ...more, ...options.headers });
    };
    if (fault.delay) await new Promise((done) => setTimeout(done, fault.delay));
    await fault.until;
    const refused = refusal(entry, fault);
    if (refused) return void (send(...refused), res.end());
    const file = await find(path);
    if (!file) return void (send(404), res.end());
    const more = described(path, file, fault.etag ?? `"${file.tag}"`);
    if (options.sha256) more['X-Linked-ETag'] = `"${await hash(file)}"`;
    const { status, begin, end, headers } = portion(entry, fault, file.size);
    if (status !== 416 && !fault.noLength) more['Content-Length'] = end - begin;
    send(status, { ...more, ...headers });
    if (entry.method === 'HEAD' || end <= begin) return void res.end();
    await pour(res, entry, fault, file, begin, end).catch(() => res.destroy());
  });
  await new Promise((done) => server.listen(options.port ?? 0, '127.0.0.1', () => done(undefined)));
  const address = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${address.port}`,
    log,
    fault(f) {
      faults = f;
    },
    close() {
      server.closeAllConnections();
      return new Promise((done) => server.close(() => done(undefined)));
    },
  };
}
