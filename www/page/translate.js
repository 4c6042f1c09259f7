/**
 * Chinese words for a model that learnt from English captions, where the browser has a translator of its own: it is offered,
 * used when asked for, and what comes of it stands in the prompt, to be read and changed before anything is drawn.
 */
import { t } from '../messages/index.js';
import { isChinese, translated } from './chinese.js';
import { EMBEDDED } from './model.js';
import { asTyped } from './read-as.js';
import { any, button, element, select } from './ui.js';

/** @typedef {{ prompt: string, negative: string }} Words */

/**
 * https://www.w3.org/TR/translation/ as far as it is used here.
 * @typedef {object} BrowserTranslator
 * @property {(languages: Languages) => Promise<Availability>} availability
 * @property {(options: Languages & { monitor: (monitor: EventTarget) => void }) =>
 *   Promise<{ translate(text: string): Promise<string>, destroy(): void }>} create
 * @typedef {'unavailable' | 'downloadable' | 'downloading' | 'available'} Availability
 * @typedef {{ sourceLanguage: string, targetLanguage: string }} Languages
 */

const LANGUAGES = { sourceLanguage: 'zh', targetLanguage: 'en' };

/** Known by its name before it is loaded; the tokens say it of every other one. */
const READS_CHINESE = /taiyi|太乙/i;

export class Translation {
  #panel = any('translate');
  #text = any('translate-text');
  #go = button('translate-go');
  #back = button('translate-back');
  #prompt = element('prompt', HTMLTextAreaElement);
  #words;
  /** Asked once. @type {ReturnType<BrowserTranslator['availability']> | undefined} */
  #available;
  #showing = 0;
  #busy = false;
  /** As it was typed, and what it was translated to. @type {{ typed: Words, english: Words } | undefined} */
  #last;

  /** @param {{ read: () => Words, set: (words: Words) => void }} words of the form */
  constructor(words) {
    this.#words = words;
    this.#go.onclick = () => this.#translate();
    this.#back.onclick = () => {
      if (this.#last) words.set(this.#last.typed);
      this.#prompt.focus();
    };
    // Another prompt that was put here is not what came of the translation.
    this.#prompt.addEventListener('input', ({ isTrusted }) => {
      if (!isTrusted && words.read().prompt !== this.#last?.english.prompt) this.#last = undefined;
    });
  }

  /** @returns {BrowserTranslator | undefined} */
  get #api() {
    return /** @type {any} */ (globalThis).Translator;
  }

  /** Offers it, where it would help. @param {string} source the model's @param {boolean} known it was seen to read Chinese */
  async show(source, known) {
    const mine = ++this.#showing;
    const { prompt, negative } = this.#words.read();
    const chinese = isChinese(prompt + negative);
    const wanted = chinese && source !== EMBEDDED && !known && !READS_CHINESE.test(source);
    const can = wanted ? await this.#can() : 'unavailable';
    if (mine !== this.#showing || this.#busy) return;
    const last = chinese ? undefined : this.#last;
    this.#panel.hidden = can === 'unavailable' && !last;
    this.#go.hidden = !chinese;
    this.#back.hidden = chinese;
    const [typed] = last ? [last.typed.prompt, last.typed.negative].filter(isChinese) : [];
    if (typed) this.#text.textContent = t('translate.done', typed);
    else this.#text.textContent = t(can === 'available' ? 'translate.offer' : 'translate.fetches');
  }

  async #can() {
    try {
      this.#available ??= this.#api?.availability(LANGUAGES);
      return await this.#available ?? 'unavailable';
    } catch {
      return 'unavailable'; // as where a site forbids it
    }
  }

  async #translate() {
    const typed = this.#words.read();
    const api = this.#api;
    if (this.#busy || !api) return;
    this.#busy = true;
    this.#text.textContent = t('translate.working');
    try {
      const translator = await api.create({
        ...LANGUAGES,
        monitor: (monitor) => monitor.addEventListener('downloadprogress', (event) => {
          const { loaded } = /** @type {ProgressEvent} */ (event);
          this.#text.textContent = t('translate.fetching', Math.round(loaded * 100));
        }),
      });
      this.#available = Promise.resolve('available');
      const syntax = select('prompt-syntax').value;
      /** @param {string} words */
      const english = (words) => translated(asTyped(words, syntax), (text) => translator.translate(text));
      const now = { prompt: await english(typed.prompt), negative: await english(typed.negative) };
      translator.destroy();
      const { prompt, negative } = this.#words.read();
      this.#busy = false;
      // Whoever has typed on meanwhile is asked again.
      if (prompt !== typed.prompt || negative !== typed.negative) this.#words.set({ prompt, negative });
      else {
        this.#last = { typed, english: now };
        this.#words.set(now);
        this.#prompt.focus();
      }
    } catch {
      this.#busy = false;
      this.#text.textContent = t('translate.failed');
    }
  }
}
