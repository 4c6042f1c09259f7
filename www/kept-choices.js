/**
 * What the engine chose for this GPU by timing, kept in IndexedDB under the browser's version and the engine's key:
 * "adapter|kernels' variant|hash of the kernels". Kept choices are a convenience: where the database fails, the engine
 * times again or draws as shipped.
 */

const NAME = 'browser-diffusion-tuning';
const STORE = 'choices';

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function withStore(mode, work) {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  const database = await done(opening);
  try {
    const transaction = database.transaction(STORE, mode);
    // A request that succeeded is not kept yet, and is lost with a worker that ends before.
    const complete = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    const [result] = await Promise.all([work(transaction.objectStore(STORE)), complete]);
    return result;
  } finally {
    database.close();
  }
}

/** @returns {Promise<[string, string][]>} key and choices of each, of this very browser */
export async function keptTunings() {
  try {
    return await withStore('readonly', async (store) => {
      const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
      return keys.flatMap((key, i) => {
        const [browser, engineKey] = /** @type {string[]} */ (key);
        return browser === navigator.userAgent ? [/** @type {[string, string]} */ ([engineKey, values[i]])] : [];
      });
    });
  } catch {
    return [];
  }
}

/**
 * Keeps choices, and drops what they make out of date: those of the same adapter for other kernels, and of other
 * versions of the browser.
 * @param {{ key: string, text: string }} tuning
 */
export async function keepTuning({ key, text }) {
  const adapter = (/** @type {string} */ k) => k.slice(0, k.lastIndexOf('|'));
  try {
    await withStore('readwrite', async (store) => {
      for (const old of await done(store.getAllKeys())) {
        const [browser, other] = /** @type {string[]} */ (old);
        const stale = adapter(other) === adapter(key) && other !== key;
        if (browser !== navigator.userAgent || stale) await done(store.delete(old));
      }
      await done(store.put(text, [navigator.userAgent, key]));
    });
  } catch {
    // The next visit times again.
  }
}
