/** Starts the worker out of this very script, for bundlers that follow no addresses, such as esbuild. */
import code from 'worker-with-wasm';

export const WORKER = 'a blob: address';

export function startWorker() {
  const script = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  return { worker: new Worker(script, { type: 'module', name: 'browser-diffusion' }), script };
}
