/** Files of lines that `__name__` in a prompt stands for: the visitor brings them, they are kept until they are forgotten. */
import { t } from '../messages/index.js';
import { attempt, button, input, say } from './ui.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/** What has to do with lines comes with the first prompt or file that needs it. */
const wildcards = () => import('./wildcards.js');

export class WildcardLists {
  #files = input('wildcards-files');
  #forget = button('wildcards-forget');

  constructor() {
    this.#files.addEventListener('change', () => attempt(async () => {
      const files = [...this.#files.files ?? []];
      this.#files.value = '';
      const lines = await (await wildcards()).keepLists(files);
      say(t('wildcards.read', lines));
    }));
    this.#forget.onclick = () => attempt(async () => {
      await (await wildcards()).forgetLists();
      say(t('wildcards.gone'));
    });
  }

  /**
   * Options of a picture each, their prompts filled in; those without wildcards as they are.
   * @param {GenerateOptions[]} all
   */
  async fill(all) {
    if (!all.some(({ prompt, negativePrompt = '' }) => /__.+__/.test(prompt + negativePrompt))) return all;
    const { filler, hasWildcards, keptLists } = await wildcards();
    const filled = filler(await keptLists());
    return all.flatMap((options) => {
      const { prompt, negativePrompt = '', numImages = 1, seed } = options;
      if (!hasWildcards(prompt) && !hasWildcards(negativePrompt)) return [options];
      return Array.from({ length: numImages }, (_, i) => ({
        ...options,
        prompt: filled(prompt),
        ...(negativePrompt && { negativePrompt: filled(negativePrompt) }),
        numImages: 1,
        seed: seed === undefined ? undefined : seed + i,
      }));
    });
  }
}
