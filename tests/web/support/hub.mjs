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

/**
 * @param {Options} options
 * @returns {Promise<{ url: string, log: Logged[],
 *   fault(f: ((r: Logged) => Fault | undefined) | null): void, close(): Promise<void> }>}
 */
export async function serve({ roots = {}, models = {}, files = {}, headers = {}, sha256 = false, port = 0 } = {}) {
  /** @type {Logged[]} */
  const log = [];
  /** @type {((r: Logged) => Fault | undefined) | null} */
  let faults = null;
  const prefixes = Object.keys(roots).sort((a, b) => b.length - a.length);
  const hashes = new Map();

  /** @param {string} path */
  async function find(path) {
    if (path in files) {
      const body = Buffer.from(files[path]);
      return { path, size: body.length, tag: createHash('sha1').update(body).digest('hex'), body };
    }
    for (const file of candidates(path)) {
      const s = await stat(file).catch(() => null);
      if (s?.isFile()) return { path: file, size: s.size, tag: `${s.size.toString(16)}-${s.mtimeMs.toString(16)}` };
    }
    return null;
  }

  /** @param {string} path */
  function candidates(path) {
    const inside = (/** @type {string} */ root, /** @type {string} */ rest) => {
      const file = normalize(join(resolve(root), rest));
      return file.startsWith(resolve(root)) ? [file.endsWith('/') ? join(file, 'index.html') : file] : [];
    };
    const hub = /^\/([^/]+\/[^/]+)\/resolve\/[^/]+\/(.+)$/.exec(path);
    if (hub && Object.hasOwn(models, hub[1])) return inside(models[hub[1]], hub[2]);
    const prefix = prefixes.find((p) => path.startsWith(p));
    return prefix === undefined ? [] : inside(roots[prefix], path.slice(prefix.length) || './');
  }

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
    const send = (/** @type {number} */ status, /** @type {Record<string, string | number>} */ more = {}) => {
      entry.status = status;
      const cors = {
        'Access-Control-Allow-Origin': '*',
        'Access-Control-Allow-Headers': 'Range, Authorization',
        ...(fault.hideHeaders ? {} : {
          'Access-Control-Expose-Headers': 'Content-Range, ETag, Accept-Ranges, X-Linked-ETag, Retry-After',
        }),
        'Cross-Origin-Resource-Policy': 'cross-origin',
      };
      res.writeHead(status, { 'Cache-Control': 'no-cache', ...cors, ...more, ...headers });
    };
    if (fault.delay) await new Promise((done) => setTimeout(done, fault.delay));
    if (fault.status) {
      send(fault.status, fault.retryAfter === undefined ? {} : { 'Retry-After': fault.retryAfter });
      return void res.end();
    }
    if (fault.redirect) {
      send(302, { Location: fault.redirect });
      return void res.end();
    }
    if (entry.method === 'OPTIONS') return void (send(204), res.end());
    if (fault.token && req.headers.authorization !== `Bearer ${fault.token}`) return void (send(401), res.end());
    const file = await find(path);
    if (!file) return void (send(404), res.end());
    const etag = fault.etag ?? `"${file.tag}"`;
    /** @type {Record<string, string | number>} */
    const more = {
      'Content-Type':
        MIME[/** @type {keyof typeof MIME} */ (extname(path.endsWith('/') ? 'index.html' : file.path))] ??
        'application/octet-stream',
      'Accept-Ranges': 'bytes',
      ...(etag && { ETag: etag }),
    };
    if (sha256) {
      if (!hashes.has(file.path)) {
        hashes.set(file.path, createHash('sha256').update(file.body ?? (await readFile(file.path))).digest('hex'));
      }
      more['X-Linked-ETag'] = `"${hashes.get(file.path)}"`;
    }
    let [begin, end] = [0, file.size];
    let status = 200;
    if (entry.range && !fault.ignoreRange) {
      if (entry.range[0] >= file.size) {
        send(416, { ...more, 'Content-Range': `bytes */${file.size}` });
        return void res.end();
      }
      [begin, end] = [entry.range[0], Math.min(entry.range[1] + 1, file.size)];
      begin += fault.shift ?? 0;
      end += (fault.shift ?? 0) - (fault.shorten ?? 0);
      status = 206;
      more['Content-Range'] = `bytes ${begin}-${end - 1}/${file.size + (fault.lie ?? 0)}`;
    }
    if (!fault.noLength) more['Content-Length'] = end - begin;
    send(status, more);
    if (entry.method === 'HEAD' || end <= begin) return void res.end();

    const body = file.body
      ? [file.body.subarray(begin, end)]
      : createReadStream(file.path, { start: begin, end: end - 1 });
    try {
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
    } catch {
      res.destroy();
    }
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', () => done(undefined)));
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
