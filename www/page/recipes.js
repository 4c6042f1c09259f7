/**
 * Models and LoRAs that are made to draw in few steps, and what they want. They are told by what they are called: the
 * end of their address or their file, and the title in the file. No DOM.
 */

/**
 * @typedef {object} Recipe
 * @property {string} kind in words
 * @property {number} steps
 * @property {number} guidance
 * @property {string} scheduler
 */

/** As their authors publish them: the model cards of latent-consistency/lcm-lora-sdv1-5 and stabilityai/sd-turbo. */
const RECIPES = /** @type {[RegExp, Recipe][]} */ ([
  [/(?<![a-z])lcm(?![a-z])|latent[-_ ]?consistency/i, { kind: 'LCM', steps: 4, guidance: 1, scheduler: 'lcm' }],
  // At one step the same as the model's own sampler; a file on its own does not say which that is.
  [/(?<![a-z])sd[-_ ]?(xl)?[-_ ]?turbo(?![a-z])/i, { kind: 'Turbo', steps: 1, guidance: 0, scheduler: 'euler_a_sgm_uniform' }],
]);

/**
 * The recipe that names ask for, and the name that does.
 * @param {string[]} names
 * @returns {Recipe & { name: string } | undefined}
 */
export function recipeOf(names) {
  for (const [pattern, recipe] of RECIPES) {
    const name = names.findLast((name) => pattern.test(name));
    if (name) return { ...recipe, name };
  }
  return undefined;
}

/** Longer is no header of a model's. */
const MOST_HEADER = 64 << 20;

/**
 * What a source is called: the parts of a Hub id or of an address's path; of a file its name and the titles that it holds.
 * @param {string | File} source
 * @returns {Promise<string[]>}
 */
export async function namesOf(source) {
  if (!(source instanceof File)) return (URL.canParse(source) ? new URL(source).pathname : source).split('/');
  const names = [source.name];
  if (!/\.safetensors$/i.test(source.name) || source.size < 8) return names;
  try {
    const length = new DataView(await source.slice(0, 8).arrayBuffer()).getBigUint64(0, true);
    if (length > Math.min(MOST_HEADER, source.size - 8)) return names;
    const { __metadata__: told } = JSON.parse(await source.slice(8, 8 + Number(length)).text());
    for (const key of ['modelspec.title', 'ss_output_name']) if (typeof told?.[key] === 'string') names.push(told[key]);
  } catch {
    // A damaged file: loading it says what is wrong.
  }
  return names;
}
