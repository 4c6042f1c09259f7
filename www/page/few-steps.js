/**
 * What models and LoRAs that are made to draw in few steps want, as their authors publish it; told by what they are
 * called. From the model cards of latent-consistency/lcm-lora-sdv1-5, stabilityai/sd-turbo, ByteDance/SDXL-Lightning,
 * ByteDance/Hyper-SD, tianweiy/DMD2, h1t/TCD-SDXL-LoRA and wangfuyun/PCM_Weights. Where those ask for timesteps that
 * trail, the schedule is SGM Uniform.
 */

/**
 * What is set, by the ids of the settings.
 * @typedef {{ steps: number, guidance: number, scheduler: string, eta?: number }} Wants
 * @typedef {Wants & { kind: string }} Recipe kind: in words
 */

/** @type {[RegExp, string, (name: string, steps: number | undefined) => Wants][]} */
const RECIPES = [
  [/(?<![a-z])hyper[-_ ]?sd/i, 'Hyper-SD', (name, steps = 8) => {
    if (steps === 1) return { steps, guidance: 0, scheduler: 'tcd', eta: 1 };
    return { steps, guidance: /cfg/i.test(name) ? 5 : 0, scheduler: 'ddim_sgm_uniform' };
  }],
  [/(?<!en)lightning(?![a-z])/i, 'Lightning',
    (_, steps = 4) => ({ steps, guidance: 0, scheduler: 'euler_sgm_uniform' })],
  // Trained on 999, 749, 499 and 249, which LCM's own timesteps are not.
  [/(?<![a-z])dmd2?(?![a-z])/i, 'DMD2', (_, steps = 4) => ({ steps, guidance: 0, scheduler: 'lcm_sgm_uniform' })],
  [/(?<![a-z])pcm(?![a-z])/i, 'PCM', (name, steps = 4) => {
    if (/lcm[-_ ]?like/i.test(name)) return { steps, guidance: 0, scheduler: 'lcm' };
    return { steps, guidance: /normal[-_ ]?cfg/i.test(name) ? 7.5 : 0, scheduler: 'ddim_sgm_uniform' };
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
    if (name) return { kind, ...wants(name, steps), name };
  }
  return undefined;
}
