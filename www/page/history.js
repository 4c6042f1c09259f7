/**
 * The pictures that were drawn here, of this visit and of those before: a grid to look them up in, to star, to delete
 * and to take along. What is drawn never waits for it: a picture is shown at once and kept when the browser is ready.
 */
import { cache } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { deletePicture, fileOf, keepPicture, listPictures, starPicture, thumbnailsOf } from './pictures.js';
import { thumbnailOf } from './strip.js';
import { any, button, context2d, input, make, makeButton, saveFile, showError, size } from './ui.js';
import { zip } from './zip.js';

/**
 * @typedef {import('./pictures.js').Picture} Picture
 * @typedef {import('./strip.js').Finished} Finished
 *
 * One of the grid.
 * @typedef {object} Item
 * @property {Picture} picture
 * @property {string} [thumbnail] a data: address
 * @property {Finished} [frame] until it is kept
 */

/** So many are shown at first, and so many more each time. */
const PAGE = 24;
/** So many deleted ones, in memory, can be brought back. */
const UNDONE = 20;
/** The longer side of a thumbnail, in pixels. */
const THUMBNAIL = 144;

export class History {
  #view = any('history');
  #list = any('gallery');
  #search = input('history-search');
  #starred = button('history-starred');
  #export = button('history-export');
  #more = button('history-more');
  #note = any('history-note');
  #undo = button('history-undo');
  #star = button('star');
  #delete = button('delete-picture');
  /** Newest first. @type {Item[]} */
  #items = [];
  /** @type {Map<string, HTMLLIElement>} */
  #rows = new Map();
  #most = PAGE;
  /** The one that is shown large. @type {string | undefined} */
  #shown;
  /** What can be brought back, the last one first. @type {import('./pictures.js').Whole[]} */
  #deleted = [];
  /** One piece of work with the database after another. @type {Promise<void>} */
  #work = Promise.resolve();
  /** Tabs tell each other that something changed. */
  #tabs = new BroadcastChannel('browser-diffusion pictures');
  /** What another tab told of is being read. @type {Promise<void> | undefined} */
  #heard;
  #on;

  /** @param {{ show: (frame: Finished) => void, drawing: () => boolean }} on show: large */
  constructor(on) {
    this.#on = on;
    this.#search.addEventListener('input', () => this.#show());
    this.#starred.onclick = () => {
      const pressed = this.#starred.getAttribute('aria-pressed') !== 'true';
      this.#starred.setAttribute('aria-pressed', String(pressed));
      this.#show();
    };
    this.#more.onclick = () => {
      this.#most += PAGE;
      this.#show();
      this.#list.querySelectorAll('button')[this.#most - PAGE]?.focus();
    };
    this.#export.onclick = () => this.#pack().catch(showError);
    this.#star.onclick = () => this.#toggleStar().catch(showError);
    this.#delete.onclick = () => this.#remove().catch(showError);
    this.#undo.onclick = () => this.#bringBack().catch(showError);
    this.#tabs.onmessage = () => {
      this.#heard ??= this.load().finally(() => { this.#heard = undefined; });
    };
  }

  /** Reads what is kept. */
  async load() {
    try {
      const pictures = await listPictures();
      const before = new Map(this.#items.map((item) => [item.picture.id, item]));
      const kept = pictures.map((picture) => ({ ...before.get(picture.id), picture, frame: undefined }));
      const ids = new Set(pictures.map(({ id }) => id));
      const waiting = this.#items.filter(({ picture, frame }) => frame && !ids.has(picture.id));
      this.#items = [...waiting, ...kept].sort((a, b) => b.picture.time - a.picture.time);
    } catch {
      if (this.#items.some(({ frame }) => frame)) this.#say(t('history.notKept'));
    }
    this.#show();
  }

  /** The newest, if there is any. */
  async newest() {
    const [item] = this.#items;
    return item && this.#frameOf(item);
  }

  /** A picture that is finished now. @param {Finished} frame */
  add(frame) {
    const { id, title, detail, name, parameters = '', image: { width, height } } = frame;
    const time = Math.max(Date.now(), (this.#items[0]?.picture.time ?? 0) + 1);
    const picture = { id, time, title, detail, name, parameters, width, height, bytes: 0, starred: false };
    const item = { picture, frame, thumbnail: thumbnailOf(frame, THUMBNAIL).toDataURL('image/webp', 0.8) };
    this.#items.unshift(item);
    this.#show();
    // A browser encodes when it is idle: many pictures at once, not one after another.
    const file = frame.file();
    file.catch(() => {}); // is said where it is waited for
    this.#work = this.#work.then(() => this.#keep(item, file));
  }

  /** The picture that is shown large has changed. @param {Finished} [frame] */
  shown(frame) {
    this.#shown = frame?.id;
    this.#arrange();
  }

  // ----------------------------------------------------------------------------------------- what is kept

  /** Never throws. @param {Item} item @param {Promise<Blob>} encoded */
  async #keep(item, encoded) {
    const { picture, thumbnail = '' } = item;
    try {
      const file = await encoded;
      picture.bytes = file.size;
      this.#dropped(await keepPicture({ picture, thumbnail, file }));
      item.frame = undefined;
      this.#tabs.postMessage('kept');
    } catch (error) {
      const { name, gone = [] } = /** @type {{ name: string, gone?: Picture[] }} */ (error);
      this.#dropped(gone);
      this.#say(name === 'QuotaExceededError' ? t('history.noRoom') : t('history.notKept'));
    }
    this.#show();
  }

  /** @param {Picture[]} gone */
  #dropped(gone) {
    if (gone.length === 0) return;
    const ids = new Set(gone.map(({ id }) => id));
    this.#items = this.#items.filter(({ picture }) => !ids.has(picture.id));
    this.#say(t('history.dropped', gone.length));
  }

  async #toggleStar() {
    const item = this.#items.find(({ picture }) => picture.id === this.#shown);
    if (!item) return;
    item.picture.starred = !item.picture.starred;
    this.#show();
    if (item.picture.starred) cache.persist(); // what is starred is not to be cleared when space runs short
    await this.#work; // it may be about to be kept
    if (item.frame) return; // it could not be
    await starPicture(item.picture.id, item.picture.starred);
    this.#tabs.postMessage('starred');
  }

  async #remove() {
    const item = this.#items.find(({ picture }) => picture.id === this.#shown);
    if (!item) return;
    await this.#work; // it may be about to be kept
    const { picture, frame, thumbnail = '' } = item;
    const file = await frame?.file();
    const whole = await deletePicture(picture.id).catch(() => undefined) ?? (file && { picture, thumbnail, file });
    this.#items = this.#items.filter((other) => other !== item);
    if (whole) this.#deleted = [...this.#deleted, whole].slice(-UNDONE);
    this.#say(t('history.deleted', picture.title));
    this.#show();
    this.#undo.hidden = !whole;
    this.#undo.focus();
    this.#tabs.postMessage('deleted');
  }

  async #bringBack() {
    const whole = this.#deleted.pop();
    if (!whole) return;
    try {
      this.#dropped(await keepPicture(whole));
    } catch (error) {
      this.#deleted.push(whole);
      throw error;
    }
    this.#tabs.postMessage('back');
    await this.load();
    this.#say(t('history.back', whole.picture.title));
    this.#undo.hidden = this.#deleted.length === 0;
    this.#rows.get(whole.picture.id)?.querySelector('button')?.focus();
  }

  // -------------------------------------------------------------------------------------------- the grid

  /** What the search leaves. */
  get #found() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const starred = this.#starred.getAttribute('aria-pressed') === 'true';
    return this.#items.filter(({ picture }) => {
      const text = `${picture.title} ${picture.detail} ${picture.parameters}`.toLowerCase();
      return (picture.starred || !starred) && words.every((word) => text.includes(word));
    });
  }

  #show() {
    this.#view.hidden = this.#items.length === 0 && this.#deleted.length === 0;
    const found = this.#found;
    const focused = document.activeElement;
    const seen = found.slice(0, this.#most);
    this.#list.replaceChildren(...seen.map((item) => this.#row(item)));
    if (focused instanceof HTMLElement && this.#list.contains(focused)) focused.focus();
    for (const id of [...this.#rows.keys()]) {
      if (!this.#items.some(({ picture }) => picture.id === id)) this.#rows.delete(id);
    }
    const starred = this.#starred.getAttribute('aria-pressed') === 'true';
    const nothing = t(starred ? 'history.nothingStarred' : 'history.nothing');
    if (found.length === 0 && this.#items.length > 0) this.#list.replaceChildren(make('li', {}, nothing));
    this.#more.hidden = found.length <= this.#most;
    this.#export.disabled = found.length === 0;
    this.#arrange();
    this.#fillThumbnails(seen);
    this.#showUsage(found);
  }

  /** @param {Item} item */
  #row(item) {
    const { picture, thumbnail } = item;
    let row = this.#rows.get(picture.id);
    if (!row) {
      const open = makeButton({ title: picture.title }, make('img', { alt: '', decoding: 'async' }));
      row = make('li', {}, open);
      this.#rows.set(picture.id, row);
      open.onclick = () => {
        if (!this.#on.drawing()) this.#open(picture.id).catch(showError);
      };
    }
    const [open, image] = [row.querySelector('button'), row.querySelector('img')];
    const { title, detail, starred } = picture;
    open?.setAttribute('aria-label', t(starred ? 'history.showStarred' : 'history.show', title, detail));
    if (image && thumbnail && !image.src) image.src = thumbnail;
    row.classList.toggle('starred', picture.starred);
    return row;
  }

  /** @param {Item[]} seen */
  async #fillThumbnails(seen) {
    const without = seen.filter(({ thumbnail }) => !thumbnail);
    if (without.length === 0) return;
    const thumbnails = await thumbnailsOf(without.map(({ picture }) => picture.id)).catch(() => []);
    for (const [i, item] of without.entries()) {
      item.thumbnail = thumbnails[i];
      if (item.thumbnail) this.#row(item);
    }
  }

  /** @param {Item[]} found */
  async #showUsage(found) {
    const { usage, quota } = await cache.estimate();
    const bytes = found.reduce((sum, { picture }) => sum + picture.bytes, 0);
    const used = quota > 0 ? t('history.usage', size(usage), size(quota)) : '';
    any('history-usage').textContent = `${t('history.count', found.length, size(bytes))}${used}`;
  }

  /** The buttons for the picture that is shown large. */
  #arrange() {
    const picture = this.#items.find((item) => item.picture.id === this.#shown)?.picture;
    this.#star.disabled = this.#delete.disabled = !picture;
    this.#star.textContent = t(picture?.starred ? 'history.starred' : 'history.star');
    this.#star.setAttribute('aria-pressed', String(picture?.starred ?? false));
    for (const [id, row] of this.#rows) {
      if (id === this.#shown) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }

  /** @param {string} id */
  async #open(id) {
    const item = this.#items.find(({ picture }) => picture.id === id);
    const frame = item && await this.#frameOf(item);
    if (frame) {
      if (!this.#on.drawing()) this.#on.show(frame);
      return;
    }
    this.#items = this.#items.filter((other) => other !== item);
    this.#say(t('history.gone'));
    this.#show();
  }

  /** @param {Item} item @returns {Promise<Finished | undefined>} */
  async #frameOf({ picture, frame }) {
    if (frame) return frame;
    const { id, title, detail, name, parameters, width, height } = picture;
    const file = await fileOf(id).catch(() => undefined);
    if (!file) return undefined;
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: 'none' });
    const context = context2d(make('canvas', { width, height }));
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const image = context.getImageData(0, 0, width, height);
    return { id, image, file: async () => file, name, parameters, title, detail };
  }

  // ----------------------------------------------------------------------------------------- taken along

  async #pack() {
    this.#say(t('history.packing'));
    const found = this.#found;
    let count = 0;
    const archive = await zip((async function* files() {
      /** @type {Map<string, number>} */
      const names = new Map();
      for (const { picture: { id, name, time }, frame } of found) {
        const file = await (frame ? frame.file() : fileOf(id));
        if (!file) continue; // deleted meanwhile
        const again = (names.get(name) ?? 0) + 1;
        names.set(name, again);
        count++;
        yield { name: `${name}${again > 1 ? ` (${again})` : ''}.png`, time, file };
      }
    })());
    if (archive) saveFile(archive, t('history.archive'));
    this.#say(archive ? t('history.packed', count) : t('history.tooLarge'));
  }

  /** @param {string} text */
  #say(text) {
    this.#note.textContent = text;
    this.#undo.hidden = true;
  }
}
