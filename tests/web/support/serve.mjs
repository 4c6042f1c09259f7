// Serves a folder on 127.0.0.1 with Range requests: `node serve.mjs FOLDER [PORT]`, or from tests.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, resolve } from 'node:path';
import { pipeline } from 'node:stream';
import { fileURLToPath } from 'node:url';

/** @type {Record<string, string>} */
const types = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css',
  '.json': 'application/json', '.webmanifest': 'application/manifest+json', '.wasm': 'application/wasm',
  '.webp': 'image/webp', '.png': 'image/png', '.svg': 'image/svg+xml', '.txt': 'text/plain; charset=utf-8',
  '.ts': 'text/plain; charset=utf-8',
};

/**
 * One byte range of a `Range` header. Several ranges, or none that can be read: the whole file, as RFC 9110 allows.
 * @param {string | undefined} header @param {number} size
 * @returns {{ start: number, end: number } | 'whole' | 'unsatisfiable'} end is inclusive
 */
function range(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return 'whole';
  const start = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === '' || match[2] === '' ? size - 1 : Math.min(size - 1, Number(match[2]));
  return start > end ? 'unsatisfiable' : { start, end };
}

/**
 * What lies at a path: `end` is inclusive.
 * @typedef {{ size: number, etag: string, type?: string, read(start: number, end: number): import('node:stream').Readable }} Served
 * @typedef {(path: string) => Served | undefined | Promise<Served | undefined>} Find undefined: nothing
 */

/** @param {string} folder @returns {Find} */
function filesOf(folder) {
  return async path => {
    let file = join(folder, normalize(path));
    if (!file.startsWith(folder)) return undefined;
    let info = await stat(file).catch(() => null);
    if (info?.isDirectory()) info = await stat(file = join(file, 'index.html')).catch(() => null);
    if (!info?.isFile()) return undefined;
    // Weak validators would forbid If-Range; size and time in milliseconds name a file's version well enough here.
    const etag = `"${info.size.toString(16)}-${Math.round(info.mtimeMs).toString(16)}"`;
    return {
      size: info.size,
      etag,
      type: types[extname(file)],
      read: (start, end) => createReadStream(file, { start, end }),
    };
  };
}

/**
 * @param {Find} find
 * @param {Record<string, string>} more headers
 * @param {import('node:http').IncomingMessage} request
 * @param {import('node:http').ServerResponse} response
 */
async function answer(find, more, request, response) {
  if (request.method === 'OPTIONS') { // the preflight of another origin's conditional request
    return void response
      .writeHead(204, { 'access-control-allow-origin': '*', 'access-control-allow-headers': '*' })
      .end();
  }
  const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname);
  const file = await find(path);
  if (!file) return void response.writeHead(404).end(`no ${path}\n`);
  const { size, etag } = file;
  /** @type {Record<string, string | number>} */
  const headers = {
    'content-type': file.type ?? 'application/octet-stream', 'accept-ranges': 'bytes', etag,
    'cache-control': 'no-cache', 'access-control-allow-origin': '*', 'cross-origin-resource-policy': 'cross-origin',
    'access-control-expose-headers': 'accept-ranges, content-length, content-range, etag', ...more,
  };
  if (request.headers['if-none-match'] === etag) return void response.writeHead(304, headers).end();
  const conditional = request.headers['if-range'];
  const part = conditional && conditional !== etag ? 'whole' : range(request.headers.range, size);
  if (part === 'unsatisfiable')
    return void response.writeHead(416, { ...headers, 'content-range': `bytes */${size}` }).end();
  const { start, end } = part === 'whole' ? { start: 0, end: size - 1 } : part;
  if (part !== 'whole') headers['content-range'] = `bytes ${start}-${end}/${size}`;
  headers['content-length'] = end - start + 1;
  response.writeHead(part === 'whole' ? 200 : 206, headers);
  if (request.method === 'HEAD' || end < start) return void response.end();
  pipeline(file.read(start, end), response, () => {}); // a visitor who leaves is no error
}

/**
 * @param {string | Find} folder or what finds its files
 * @param {number} [port] 0: any that is free
 * @param {Record<string, string>} [instead] text to answer with at these paths, whatever the folder has there
 * @param {Record<string, string>} [headers] of the folder's files, beside the usual ones
 * @returns {Promise<{ url: string, close(): void }>} url ends in a slash
 */
export function serve(folder, port = 0, instead = {}, headers = {}) {
  const find = typeof folder === 'string' ? filesOf(resolve(folder)) : folder;
  const server = createServer((request, response) => {
    const text = instead[request.url ?? ''];
    if (text !== undefined) response.writeHead(200, { 'content-type': types[extname(request.url ?? '')] }).end(text);
    else answer(find, headers, request, response).catch(error => { response.destroy(); console.error(error); });
  });
  return new Promise((done, fail) => {
    server.once('error', fail);
    server.listen(port, '127.0.0.1', () => {
      const address = /** @type {import('node:net').AddressInfo} */ (server.address());
      done({
        url: `http://127.0.0.1:${address.port}/`,
        close: () => {
          server.close();
          server.closeAllConnections();
        },
      });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[3] ?? 8080);
  try {
    console.log((await serve(process.argv[2] ?? 'www', port)).url);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EADDRINUSE') throw error;
    console.error(`port ${port} is taken; give another: ./build.sh serve ${port + 1}`);
    process.exitCode = 1;
  }
}
