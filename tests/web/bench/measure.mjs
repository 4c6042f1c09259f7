// What a bench sees of the engine from outside it: WebGPU's buffers, wasm memory, JS heaps, processes.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/browser.mjs';
import { serve } from '../support/serve.mjs';

const MiB = 1024 * 1024;

/**
 * Runs in the worker before the engine: counts what the engine asks of WebGPU, and keeps its wasm memory. While `idle`, nothing is
 * dispatched, and each buffer is cleared when it is made, so that the driver must find memory for all of it.
 * @returns {void}
 */
export function probe() {
  const seen = { wasm: 0, binding: 0, buffer: 0, gpu: 0, gpuPeak: 0, idle: false };
  /** @type {WebAssembly.Memory | undefined} */
  let memory;
  for (const name of /** @type {const} */ (['instantiate', 'instantiateStreaming'])) {
    const original = /** @type {any} */ (WebAssembly)[name];
    /** @type {any} */ (WebAssembly)[name] = async (/** @type {any[]} */ ...args) => {
      const made = await original.apply(WebAssembly, args);
      memory = (made.instance ?? made).exports.memory;
      return made;
    };
  }
  const { createBuffer, createBindGroup } = GPUDevice.prototype;
  const { destroy } = GPUBuffer.prototype;
  const alive = new WeakSet();
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    alive.add(buffer);
    seen.buffer = Math.max(seen.buffer, descriptor.size);
    seen.gpuPeak = Math.max(seen.gpuPeak, seen.gpu += descriptor.size);
    if (seen.idle) {
      const encoder = this.createCommandEncoder();
      encoder.clearBuffer(buffer);
      this.queue.submit([encoder.finish()]);
    }
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    if (alive.delete(this)) seen.gpu -= this.size;
    return destroy.call(this);
  };
  GPUDevice.prototype.createBindGroup = function (descriptor) {
    for (const { resource } of descriptor.entries) {
      const { buffer, offset = 0, size = buffer.size - offset } = /** @type {GPUBufferBinding} */ (resource);
      seen.binding = Math.max(seen.binding, size);
    }
    return createBindGroup.call(this, descriptor);
  };
  const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function (x, y, z) {
    if (!seen.idle) dispatchWorkgroups.call(this, x, y, z);
  };
  // Wasm memory never shrinks, so its size now is its peak.
  /** @type {any} */ (self).probe = (/** @type {object} */ change) => ({ ...Object.assign(seen, change), wasm: memory?.buffer.byteLength ?? 0 });
}

/**
 * V8's own count for the page and for each worker: JS heap and array buffers, with what waits to be collected; wasm's
 * memory is not in it.
 * @param {import('playwright-core').BrowserContext} context
 * @param {import('playwright-core').Page} page
 */
export async function heapReader(context, page) {
  const session = await context.newCDPSession(page);
  /** @type {Map<string, (usage: any) => void>} */
  const waiting = new Map();
  /** @type {string[]} */
  const workers = [];
  session.on('Target.attachedToTarget', ({ sessionId }) => workers.push(sessionId));
  session.on('Target.receivedMessageFromTarget', ({ sessionId, message }) => {
    const { id, result } = JSON.parse(message);
    if (id === 1) waiting.get(sessionId)?.(result);
  });
  session.on('Target.detachedFromTarget', ({ sessionId }) => {
    workers.splice(workers.indexOf(sessionId), 1);
    waiting.get(sessionId)?.(null);
  });
  await session.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  const total = (/** @type {any} */ usage) =>
    usage ? usage.usedSize + usage.embedderHeapUsedSize + usage.backingStorageSize : 0;
  return async () => {
    const asked = workers.map(sessionId => new Promise(done => {
      waiting.set(sessionId, done);
      session
        .send('Target.sendMessageToTarget', { sessionId, message: '{"id":1,"method":"Runtime.getHeapUsage"}' })
        .catch(() => done(null));
    }));
    const usages = [await session.send('Runtime.getHeapUsage'), ...await Promise.all(asked)];
    return usages.reduce((sum, usage) => sum + total(usage), 0);
  };
}

/** Resident memory of a process, now and at its peak, in bytes. @param {number} id */
function resident(id) {
  const status = readFileSync(`/proc/${id}/status`, 'utf8');
  const bytes = (/** @type {string} */ field) =>
    1024 * Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0);
  return { rss: bytes('VmRSS'), peak: bytes('VmHWM') };
}

/** @param {import('playwright-core').BrowserContext} context @returns {Promise<{ type: string, id: number }[]>} */
async function processes(context) {
  const session = await /** @type {import('playwright-core').Browser} */ (context.browser()).newBrowserCDPSession();
  return (await session.send('SystemInfo.getProcessInfo')).processInfo;
}

/** @param {import('playwright-core').BrowserContext} context @returns {Promise<Record<string, number>>} peak resident MiB by process type */
export async function residentPeaks(context) {
  /** @type {Record<string, number>} */
  const peaks = {};
  for (const { type, id } of await processes(context))
    peaks[type] = Math.max(peaks[type] ?? 0, Math.round(resident(id).peak / MiB));
  return peaks;
}

/**
 * Reads the resident memory of the browser's one process of a type.
 * @param {import('playwright-core').BrowserContext} context @param {string} type
 */
export async function processMemory(context, type) {
  const found = (await processes(context)).find(process => process.type === type);
  if (!found) throw new Error(`the browser has no ${type} process`);
  return () => resident(found.id);
}

/** The page's folder with a /blank.html that has nothing but a field for a folder, and {@link probe} before the worker. */
export function pageWithProbe() {
  return serve(join(root, 'www'), 0, {
    '/blank.html':
      '<!doctype html><title>bench</title><link rel="icon" href="data:,"><input type="file" webkitdirectory>',
    '/worker.js': `(${probe})();\n${readFileSync(join(root, 'www/worker.js'), 'utf8')}`,
  });
}
