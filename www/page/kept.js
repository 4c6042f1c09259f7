/** The models that this browser keeps: how large they are, to use and to delete. */
import { cache } from '../browser-diffusion.js';
import { t } from '../messages/index.js';
import { readKeptName } from './catalogue.js';
import { any, button, explained, make, makeButton, say, showError, size } from './ui.js';

/** @typedef {import('./catalogue.js').Kept} Kept */

/**
 * @typedef {object} On
 * @property {(source: string) => import('./catalogue.js').Entry | undefined} offered by the catalogue
 * @property {(source: string, weights: import('./catalogue.js').Weights) => void} use
 * @property {() => void} deleted
 */

export class KeptModels {
  #place = any('place-models');
  #list = any('cache-list');
  #persist = button('persist');
  #on;

  /** @param {On} on */
  constructor(on) {
    this.#on = on;
    this.#persist.onclick = async () => {
      const agreed = await cache.persist();
      say(t(agreed ? 'kept.agreed' : 'kept.perhaps'));
      this.show();
    };
  }

  /** What is kept now, where the list is seen. */
  async show() {
    if (this.#place.hidden) return;
    try {
      const [models, { usage, quota }, persisted] = await Promise.all([
        cache.list(), cache.estimate(), navigator.storage?.persisted?.() ?? false,
      ]);
      this.#list.replaceChildren(...(models.length > 0 ? models.map((model) => this.#row(model)) : [t('kept.none')]));
      any('cache-usage').textContent = quota > 0 ? t('kept.used', size(usage), size(quota)) : '';
      this.#persist.hidden = persisted || models.length === 0;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#list.replaceChildren(make('li', {}, ...explained(undefined, message)));
    }
  }

  /** @param {Kept} model */
  #row({ name, bytes, complete }) {
    const { source, weights } = readKeptName(name);
    const entry = this.#on.offered(source);
    const shown = entry ? `${entry.name}${weights === 'f16' ? '' : ` (${weights})`}` : name;
    const note = complete ? size(bytes) : t('kept.partly', size(bytes));
    const use = makeButton({ textContent: t('kept.use'), ariaLabel: t('kept.useOne', shown) });
    use.onclick = () => {
      this.#on.use(source, weights);
      say(t('kept.isModel', shown));
    };
    const remove = makeButton({ textContent: t('kept.delete'), ariaLabel: t('kept.deleteOne', shown) });
    remove.onclick = async () => {
      remove.disabled = true;
      try {
        await cache.delete(name);
        say(t('kept.deleted', shown));
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
