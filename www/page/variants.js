/** `{red|blue}` in a prompt: one picture for each choice, of several every combination. */
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';

/** Pictures of one prompt, as many as the form asks for at most. */
const MOST = 64;
/** The innermost; braces without a choice in them, or behind a backslash, are text. */
export const CHOICE = /(?<!\\)\{([^{}]*\|[^{}]*)\}/;

/**
 * @param {string} prompt
 * @returns {string[]} in the order in which they stand; of a prompt without choices itself
 * @throws {PageError} where that would be too many
 */
export function variantsOf(prompt) {
  /** @type {Set<string>} */
  const whole = new Set();
  const open = [prompt];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [choice, inner] = CHOICE.exec(next) ?? [];
    if (choice === undefined || inner === undefined) {
      whole.add(next);
    } else {
      const text = next, at = next.indexOf(choice);
      open.push(...inner.split('|').reverse()
        .map((chosen) => text.slice(0, at) + chosen.trim() + text.slice(at + choice.length)));
    }
    if (whole.size + open.length > MOST) throw new PageError('invalid-option', t('variants.tooMany', MOST));
  }
  return [...whole];
}
