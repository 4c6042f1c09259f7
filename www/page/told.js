/** What a picture's file tells of how it was made. */
import { readParameters } from '../browser-diffusion.js';
import { showError } from './ui.js';

/** @typedef {Omit<Awaited<ReturnType<typeof readParameters>>, 'parameters' | 'withImage'>} Told */

/**
 * Nothing where it tells nothing; where its text is damaged, that is said.
 * @param {Blob | string} picture or the text itself
 * @returns {Promise<Told | undefined>}
 */
export async function told(picture) {
  try {
    const { parameters, options, withImage, ...rest } = await readParameters(picture);
    return parameters === undefined ? undefined : { options: { ...options, ...withImage }, ...rest };
  } catch (error) {
    showError(error);
    return undefined;
  }
}
