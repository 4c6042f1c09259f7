/**
 * The pictures that were drawn here, kept in a database of their own until they are deleted. What is known of a picture,
 * its thumbnail and its file are written in one transaction: after a crash all of it is there, or nothing. The database
 * is opened for each piece of work and closed again, so that another tab, or the visitor, can delete it at any time.
 */
import { t } from '../messages/index.js';

const NAME = 'browser-diffusion-pictures';
const STORES = /** @type {const} */ (['pictures', 'thumbnails', 'files']);
/**
 * How often room is made for one picture before it is given up. Once is not enough: Chromium reckons with the room of some
 * while ago, lets more be written than there is, and says so only later; then all of that has to go.
 */
const TRIES = 10;

/**
 * What is known of a picture.
 * @typedef {object} Picture
 * @property {string} id
 * @property {number} time when it was finished, in milliseconds
 * @property {string} title
 * @property {string} detail
 * @property {string} name of its file, without the ending
 * @property {string} parameters the text in its file, which tells how it was made; may be empty
 * @property {number} width
 * @property {number} height
 * @property {number} bytes
 * @property {boolean} starred
 */

/** All of it. @typedef {{ picture: Picture, thumbnail: string, file: Blob }} Whole thumbnail: a data: address */

/** @typedef {Record<typeof STORES[number], IDBObjectStore>} Stores */

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

function open() {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => {
    for (const store of STORES) opening.result.createObjectStore(store);
  };
  return done(opening);
}

/**
 * Does work in one transaction, which is over when this returns: what it wrote survives the browser's end.
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(stores: Stores) => Promise<T>} work waits for nothing but the stores
 * @returns {Promise<T>}
 */
async function within(mode, work) {
  const database = await open();
  try {
    const transaction = database.transaction(STORES, mode);
    const over = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error ?? new Error(t('history.aborted')));
    });
    const stores = Object.fromEntries(STORES.map((name) => [name, transaction.objectStore(name)]));
    const [result] = await Promise.all([work(/** @type {Stores} */ (stores)), over]).catch(async (error) => {
      if (transaction.error) throw transaction.error; // why it was stopped, where a request only says that it was
      throw error;
    });
    return result;
  } finally {
    database.close();
  }
}

/** Newest first. @returns {Promise<Picture[]>} */
export async function listPictures() {
  const all = await within('readonly', ({ pictures }) => done(pictures.getAll()));
  return all.sort((a, b) => b.time - a.time);
}

/** @param {string[]} ids @returns {Promise<(string | undefined)[]>} */
export const thumbnailsOf = (ids) =>
  within('readonly', ({ thumbnails }) => Promise.all(ids.map((id) => done(thumbnails.get(id)))));

/** @param {string} id @returns {Promise<Blob | undefined>} nothing where it was deleted meanwhile */
export const fileOf = (id) => within('readonly', ({ files }) => done(files.get(id)));

/** @param {string} id @param {boolean} starred */
export const starPicture = (id, starred) => within('readwrite', async ({ pictures }) => {
  const picture = await done(pictures.get(id));
  if (picture) await done(pictures.put({ ...picture, starred }, id));
});

/** @param {Whole} whole */
const put = ({ picture, thumbnail, file }) => within('readwrite', async ({ pictures, thumbnails, files }) => {
  const { id } = picture;
  await Promise.all([
    done(pictures.put(picture, id)), done(thumbnails.put(thumbnail, id)), done(files.put(file, id)),
  ]);
});

/** @param {Stores} stores @param {string} id */
const erase = (stores, id) => Promise.all(STORES.map((name) => done(stores[name].delete(id))));

/**
 * Keeps a picture. Where the browser has no room left, the oldest without a star go first.
 * @param {Whole} whole
 * @returns {Promise<Picture[]>} those that went
 * @throws where there is no room even so, or no database
 */
export async function keepPicture(whole) {
  /** @type {Picture[]} */
  const gone = [];
  for (let tries = 0; ; tries++) {
    /** @type {any} */
    const full = await put(whole).then(() => undefined, (error) => error);
    if (!full) return gone;
    const short = full instanceof DOMException && full.name === 'QuotaExceededError' && tries < TRIES;
    const made = short ? await makeRoom(2 * whole.file.size) : [];
    if (made.length === 0) throw Object.assign(full, { gone });
    gone.push(...made);
  }
}

/** @param {number} bytes @returns {Promise<Picture[]>} what was deleted */
const makeRoom = (bytes) => within('readwrite', async (stores) => {
  /** @type {Picture[]} */
  const all = await done(stores.pictures.getAll());
  /** @type {Picture[]} */
  const gone = [];
  let room = 0;
  for (const picture of all.filter(({ starred }) => !starred).sort((a, b) => a.time - b.time)) {
    if (room >= bytes) break;
    await erase(stores, picture.id);
    room += picture.bytes;
    gone.push(picture);
  }
  return gone;
});

/**
 * @param {string} id
 * @returns {Promise<Whole | undefined>} what was there, its file in memory: `keepPicture` brings it back
 */
export async function deletePicture(id) {
  const file = await fileOf(id);
  const bytes = await file?.arrayBuffer(); // a file that is deleted cannot be read any more
  const [picture, thumbnail] = await within('readwrite', async (stores) => {
    const was = await Promise.all([done(stores.pictures.get(id)), done(stores.thumbnails.get(id))]);
    await erase(stores, id);
    return was;
  });
  return picture && bytes && { picture, thumbnail, file: new Blob([bytes], { type: 'image/png' }) };
}
