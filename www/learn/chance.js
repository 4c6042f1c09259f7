/** Normal numbers from a seed, the same each time; and the noise schedule of the small model. */

/** @param {number} seed @returns {() => number} numbers in 0..1 (mulberry32, public domain) */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Box and Muller's. @param {number} count @param {number} seed */
export function normals(count, seed) {
  const next = uniform(seed);
  return Float32Array.from({ length: count }, () =>
    Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}

/** How many steps the model learnt. */
export const STEPS = 1000;

/**
 * The share of a picture's strength that is left after each step, `alphas_cumprod`: that of Stable Diffusion, moved and
 * stretched so that the last step leaves nothing (Lin et al. 2023, arXiv 2305.08891, algorithm 1), as the small model
 * learnt it (www/embedded/scheduler).
 */
export const alphasCumprod = (() => {
  const [first, last] = [Math.sqrt(0.00085), Math.sqrt(0.012)];
  let product = 1;
  const roots = Array.from({ length: STEPS }, (_, i) => {
    product *= 1 - (first + ((last - first) * i) / (STEPS - 1)) ** 2;
    return Math.sqrt(product);
  });
  const [top, end] = [roots[0], roots[STEPS - 1]];
  return roots.map((root) => (((root - end) * top) / (top - end)) ** 2);
})();
