/**
 * What models and LoRAs that are made to draw in few steps want, as their authors publish it; told by a tensor that only
 * such a model has, or else by what they are called: distilled LoRAs change the layers that others change, and no key of
 * theirs tells them. From the model cards of latent-consistency/lcm-lora-sdv1-5, stabilityai/sd-turbo, ByteDance/SDXL-Lightning,
 * ByteDance/Hyper-SD, tianweiy/DMD2, h1t/TCD-SDXL-LoRA and wangfuyun/PCM_Weights. Where those ask for timesteps that
 * trail, the schedule is SGM Uniform. Those for one step that begin at a timestep of their own (DMD2's at 399, Hyper-SD's
 * UNet at 800) or predict the picture (Lightning's) have no recipe: steps, guidance and sampler do not make them right.
 */

/**
 * What is set, by the ids of the settings.
 * @typedef {{ steps: number, guidance: number, scheduler: string, eta?: number }} Wants
 * @typedef {Wants & { kind: string }} Recipe kind: in words
 */

/** @type {[RegExp, string, (name: string, steps: number | undefined) => Wants | undefined][]} */
const RECIPES = [
  [/(?<![a-z])hyper[-_ ]?sd/i, 'Hyper-SD', (name, steps = 8) => {
    if (steps === 1 && /unet/i.test(name)) return undefined;
    if (steps === 1) return { steps, guidance: 0, scheduler: 'tcd', eta: 1 };
    return { steps, guidance: /cfg/i.test(name) ? 5 : 0, scheduler: 'ddim_sgm_uniform' };
  }],
  [/(?<!en)lightning(?![a-z])/i, 'Lightning',
    (_, steps = 4) => (steps > 1 ? { steps, guidance: 0, scheduler: 'euler_sgm_uniform' } : undefined)],
  // Trained on 999, 749, 499 and 249, which LCM's own timesteps are not.
  [/(?<![a-z])dmd2?(?![a-z])/i, 'DMD2',
    (_, steps = 4) => (steps > 1 ? { steps, guidance: 0, scheduler: 'lcm_sgm_uniform' } : undefined)],
  [/(?<![a-z])pcm(?![a-z])/i, 'PCM', (name, steps = 4) => {
    if (/lcm[-_ ]?like/i.test(name)) return { steps, guidance: 0, scheduler: 'lcm' };
    // The card: 2.5 to 3.5 at four steps, 3 to 6 at eight, never above 9; of small guidance 1 to 2.
    const normal = steps > 8 ? 6 : steps > 4 ? 4.5 : 3;
    return { steps, guidance: /normal[-_ ]?cfg/i.test(name) ? normal : 1, scheduler: 'ddim_sgm_uniform' };
  }],
  [/(?<![a-z])tcd(?![a-z])/i, 'TCD', (_, steps = 4) => ({ steps, guidance: 0, scheduler: 'tcd', eta: 0.3 })],
  [/(?<![a-z])lcm(?![a-z])|latent[-_ ]?consistency/i, 'LCM', () => ({ steps: 4, guidance: 1, scheduler: 'lcm' })],
  // At one step the same as the model's own sampler; a file on its own does not say which that is.
  [/(?<![a-z])sd[-_ ]?(xl)?[-_ ]?turbo(?![a-z])/i, 'Turbo',
    () => ({ steps: 1, guidance: 0, scheduler: 'euler_a_sgm_uniform' })],
];

/** More is no recipe's. */
const MOST_STEPS = 16;

/**
 * The layer by which a latent consistency model takes its guidance, in diffusers' names and in the original code's; and
 * one that only SDXL has. Diffusers' pipelines of both kinds take these steps and guidance.
 */
const GUIDED_WITHIN = /(^|\.)time_embed(ding)?\.cond_proj\.weight$/;
const OF_SDXL = /(^|\.)(add_embedding\.linear_1|label_emb\.0\.0)\.weight$/;

/**
 * The recipe that a file's tensors ask for.
 * @param {string[]} keys
 * @returns {(Wants & { kind: string }) | undefined}
 */
export function recipeOfKeys(keys) {
  if (!keys.some((key) => GUIDED_WITHIN.test(key))) return undefined;
  return { kind: 'LCM', steps: 4, guidance: keys.some((key) => OF_SDXL.test(key)) ? 8 : 8.5, scheduler: 'lcm' };
}

/**
 * The recipe that names ask for, and the name that does: the last, which is a file's own.
 * @param {string[]} names
 * @returns {Recipe & { name: string } | undefined}
 */
export function recipeOf(names) {
  const named = names.findLast((name) => /\d+[-_ ]?steps?(?![a-z])/i.test(name));
  const counted = Number(/(\d+)[-_ ]?steps?(?![a-z])/i.exec(named ?? '')?.[1] ?? NaN);
  const steps = counted >= 1 && counted <= MOST_STEPS ? counted : undefined;
  for (const [pattern, kind, wants] of RECIPES) {
    const name = names.findLast((name) => pattern.test(name));
    const wanted = name !== undefined && wants(name, steps);
    if (wanted) return { kind, ...wanted, name };
    if (name) return undefined;
  }
  return undefined;
}
