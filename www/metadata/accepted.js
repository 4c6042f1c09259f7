/** What was read, as `generate` takes it: by its own rules, the rest left out. */
import { GENERATE_RULES } from '../options.js';

/** @typedef {import('../browser-diffusion.js').GenerateOptions} GenerateOptions */

/** A side of a picture: as A1111 does, down to what latents can have. @param {unknown} value */
const side = (value) => (typeof value === 'number' ? Math.min(Math.floor(value / 8) * 8, 16384) : value);
/** @param {unknown} value */
const share = (value) => (typeof value === 'number' ? Math.min(Math.max(value, 0), 1) : value);

/** How what is only a little off is brought within its rule. @type {Map<string, (value: unknown) => unknown>} */
const CLAMPS = new Map(Object.entries({
  width: side, height: side, strength: share, eta: share, guidanceRescale: share, variationStrength: share,
}));

/** More steps than training had cannot be told apart. */
const MOST_EXACT = 1000;

/**
 * @param {GenerateOptions} options
 * @returns {GenerateOptions}
 */
export function accepted({ hires, ...options }) {
  /** @type {GenerateOptions} */
  const kept = { ...within(options, (name, value) => GENERATE_RULES[name](value)), prompt: options.prompt };
  const second = within(hires ?? {}, (name, value) => GENERATE_RULES.hires({ [name]: value }));
  const { scale, width, height, strength = 0.7, steps = kept.numInferenceSteps ?? 20 } = second;
  if (scale !== undefined || (width !== undefined && height !== undefined)) kept.hires = second;
  // Of so many steps too few, or none, would be run exactly: then by the rule that always leaves one.
  const least = Math.min(kept.hires ? strength : 1, kept.strength ?? 1);
  if (kept.strengthSteps === 'exact' && !(steps / least <= MOST_EXACT)) kept.strengthSteps = 'a1111';
  return kept;
}

/**
 * @param {Record<string, any>} values
 * @param {(name: string, value: unknown) => string | undefined} rule
 * @returns {Record<string, any>}
 */
function within(values, rule) {
  const clamped = Object.entries(values).map(([name, value]) => [name, CLAMPS.get(name)?.(value) ?? value]);
  return Object.fromEntries(clamped.filter(([name, value]) => value !== undefined && rule(name, value) === undefined));
}
