/** The models that this browser keeps: how large they are, to use and to delete. */
import { cache } from '../browser-diffusion.js';
import { readKeptName } from './catalogue.js';
import { any, button, details, make, makeButton, say, showError, size } from './ui.js';

/** @typedef {import('./catalogue.js').Kept} Kept */

/**
 * @typedef {object} On
 * @property {(source: string) => import('./catalogue.js').Entry | undefined} offered by the catalogue
 * @property {(source: string, weights: import('./catalogue.js').Weights) => void} use
 * @property {() => void} deleted
 */

export class KeptModels {
  #view = details('cache');
  #list = any('cache-list');
  #persist = button('persist');
  #on;

  /** @param {On} on */
  constructor(on) {
    this.#on = on;
    this.#view.addEventListener('toggle', () => this.show());
    this.#persist.onclick = async () => {
      const agreed = await cache.persist();
      const perhaps = 'The browser did not promise to keep them. It may, once you use this page more often.';
      say(agreed ? 'The browser will keep the models.' : perhaps);
      this.show();
    };
  }

  /** What is kept now, where the list is open. */
  async show() {
    if (!this.#view.open) return;
    try {
      const [models, { usage, quota }, persisted] = await Promise.all([
        cache.list(), cache.estimate(), navigator.storage?.persisted?.() ?? false,
      ]);
      this.#list.replaceChildren(...(models.length > 0 ? models.map((model) => this.#row(model)) : ['None yet.']));
      const used = `${size(usage)} used of ${size(quota)} that the browser allows.`;
      any('cache-usage').textContent = quota > 0 ? used : '';
      this.#persist.hidden = persisted || models.length === 0;
    } catch (error) {
      this.#list.replaceChildren(error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {Kept} model */
  #row({ name, bytes, complete }) {
    const { source, weights } = readKeptName(name);
    const entry = this.#on.offered(source);
    const shown = entry ? `${entry.name}${weights === 'f16' ? '' : ` (${weights})`}` : name;
    const note = complete ? size(bytes) : `${size(bytes)}, not complete yet; loading it goes on from here`;
    const use = makeButton({ textContent: 'Use', ariaLabel: `Use ${shown}` });
    use.onclick = () => {
      this.#on.use(source, weights);
      say(`${shown} is the model now.`);
    };
    const remove = makeButton({ textContent: 'Delete', ariaLabel: `Delete ${shown}` });
    remove.onclick = async () => {
      remove.disabled = true;
      try {
        await cache.delete(name);
        say(`${shown} is deleted.`);
      } catch (error) {
        showError(error);
      }
      await this.show();
      this.#list.querySelector('button')?.focus(); // the button that had it is gone
      this.#on.deleted();
    };
    return make('li', { title: name }, make('span', {}, shown, make('small', {}, note)), use, remove);
  }
}
