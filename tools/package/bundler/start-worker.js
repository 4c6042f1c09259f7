/** Starts the worker, in the words by which Vite, webpack and others find its files. */
export const WORKER = 'the files of this site';

export const startWorker = () => ({
  worker: new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'browser-diffusion' }),
});
