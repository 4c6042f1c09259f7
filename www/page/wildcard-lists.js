/** Files of lines that `__name__` in a prompt stands for. It comes with the drawer's first opening, or with a prompt. */
import { t } from '../messages/index.js';
import { attempt, button, input, say } from './ui.js';
import { filler, forgetLists, hasWildcards, keepLists, keptLists } from './wildcards.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/** Takes what the visitor brings, and forgets it. */
export function listen() {
  const files = input('wildcards-files');
  files.addEventListener('change', () => attempt(async () => {
    const brought = [...files.files ?? []];
    files.value = '';
    say(t('wildcards.read', await keepLists(brought)));
  }));
  files.disabled = false;
  button('wildcards-forget').onclick = () => attempt(async () => {
    await forgetLists();
    say(t('wildcards.gone'));
  });
}

/**
 * Options of a picture each, their prompts filled in; those without wildcards as they are.
 * @param {GenerateOptions[]} all
 */
export async function filled(all) {
  const fill = filler(await keptLists());
  return all.flatMap((options) => {
    const { prompt, negativePrompt = '', numImages = 1, seed } = options;
    if (!hasWildcards(prompt) && !hasWildcards(negativePrompt)) return [options];
    return Array.from({ length: numImages }, (_, i) => ({
      ...options,
      prompt: fill(prompt),
      ...(negativePrompt && { negativePrompt: fill(negativePrompt) }),
      numImages: 1,
      seed: seed === undefined ? undefined : seed + i,
    }));
  });
}
