/**
 * What tests put on the window of the pages that they drive, since a function that runs there sees nothing else of the
 * test.
 */
import type { DiffusionPipeline, GenerateOptions, LoadOptions, cache, detect } from '../../../www/browser-diffusion.js';

/** A load that was tried: its picture's hash, or its error. */
interface Outcome { picture?: string; name?: string; code?: string; message?: string }
/** A chunk in the cache. */
interface Chunk { url: string; at: number; length: number; sha256: string }

declare global {
  interface Window {
    cache: typeof cache;
    /** Of faults.test.mjs. */
    faultsTools: {
      load(source: unknown, options?: unknown): Promise<Outcome>;
      database(version?: number, upgrade?: (db: IDBDatabase) => void): Promise<IDBDatabase>;
      /** All entries of a store. */
      all(store: string): Promise<[any, any][]>;
      held(): Promise<Chunk[]>;
    };
    /** Of kept.test.mjs. */
    keptTools: {
      load(source: string, options?: unknown): Promise<Outcome>;
      chunks(edit?: (key: any, value: any) => any): Promise<[string, number, number][]>;
    };
    /** Of robust.test.mjs. */
    robustTools: {
      DiffusionPipeline: typeof DiffusionPipeline;
      cache: typeof cache;
      detect: typeof detect;
      loaded: Record<string, number>;
      load(name: string, options?: LoadOptions): Promise<DiffusionPipeline>;
      draw(pipeline: DiffusionPipeline, options?: Partial<GenerateOptions>): Promise<string>;
      picture(name: string, options?: LoadOptions): Promise<string>;
      caught(work: () => unknown): Promise<{ code: string; message: string }>;
    };
    /** Of robust.test.mjs: the pipeline that is kept from one call to the next, and what was seen meanwhile. */
    pipeline: DiffusionPipeline;
    fromCache: Set<boolean | undefined>;
    flipped: boolean;
    /** Of catalogue.test.mjs: how often storage was asked to persist, and the quota to report. */
    persisted: number;
    quota: number | undefined;
    /** Of robust.test.mjs, in a worker: bytes of GPU buffers. */
    live: { bytes: number; most: number };
  }
  interface GPUBuffer { gone?: boolean }
}
