/**
 * A list of tags to complete prompts with: the csv of AUTOMATIC1111's tag completion, in lines of name, kind, count and
 * other names. The visitor brings it; it is kept until they forget it.
 */
import { t } from '../messages/index.js';
import { readTags } from './offers.js';
import { PageError } from './page-error.js';
import { attempt, button, input, say } from './ui.js';

/** @typedef {import('./offers.js').Tag} Tag */

const STORE = 'browser-diffusion tags';
/** What it is called there, from every language's page. */
const KEY = '/tags.csv';

export class Tags {
  /** @type {Tag[]} */
  all = [];
  #file = input('tags-file');
  #forget = button('tags-forget');

  constructor() {
    this.#file.addEventListener('change', () => this.#try(() => this.#take()));
    this.#forget.onclick = () => this.#try(async () => {
      await caches.delete(STORE);
      this.all = [];
      this.#file.focus();
      say(t('tags.gone'));
    });
    this.#recall();
  }

  /** @param {() => Promise<void>} work */
  async #try(work) {
    await attempt(work);
    this.#forget.hidden = this.all.length === 0;
  }

  async #take() {
    const [file] = this.#file.files ?? [];
    if (!file) return;
    const text = await file.text();
    this.#file.value = '';
    const tags = readTags(text);
    if (tags.length === 0) throw new PageError('invalid-option', t('tags.none', file.name));
    this.all = tags;
    say(t('tags.read', tags.length));
    // Where there is no room the tags are there until the page is closed.
    await caches.open(STORE).then((store) => store.put(KEY, new Response(text))).catch(() => {});
  }

  /** Those of an earlier visit. */
  async #recall() {
    try {
      const kept = await caches.match(KEY, { cacheName: STORE });
      if (kept) this.all = readTags(await kept.text());
    } catch {
      // Storage may be forbidden, or hold something else.
    }
    this.#forget.hidden = this.all.length === 0;
  }
}
