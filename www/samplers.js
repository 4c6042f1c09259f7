/** The engine's samplers and schedules. Written by tests/samplers.rs from src/samplers/mod.rs; do not edit. */

/**
 * @typedef {object} Sampler
 * @property {string} name
 * @property {string} label what A1111 calls it
 * @property {number} [eta] the usual share of fresh noise; missing where `eta` does not act
 * @property {boolean} churn whether `sChurn` acts
 * @property {boolean} schedules whether a schedule may follow the name
 */

/** @type {readonly Readonly<Sampler>[]} */
export const SAMPLERS = Object.freeze([
  { name: 'ddpm', label: 'DDPM', churn: false, schedules: true },
  { name: 'ddim', label: 'DDIM', eta: 0, churn: false, schedules: true },
  { name: 'ddim_cfgpp', label: 'DDIM CFG++', eta: 0, churn: false, schedules: true },
  { name: 'pndm', label: 'PLMS', churn: false, schedules: false },
  { name: 'euler', label: 'Euler', churn: true, schedules: true },
  { name: 'euler_a', label: 'Euler a', eta: 1, churn: false, schedules: true },
  { name: 'heun', label: 'Heun', churn: true, schedules: true },
  { name: 'lms', label: 'LMS', churn: false, schedules: true },
  { name: 'dpm2', label: 'DPM2', churn: true, schedules: true },
  { name: 'dpm2_a', label: 'DPM2 a', eta: 1, churn: false, schedules: true },
  { name: 'dpmpp_2s', label: 'DPM++ 2S', churn: false, schedules: true },
  { name: 'dpmpp_2s_a', label: 'DPM++ 2S a', eta: 1, churn: false, schedules: true },
  { name: 'dpmpp_2m', label: 'DPM++ 2M', churn: false, schedules: true },
  { name: 'dpmpp_sde', label: 'DPM++ SDE', eta: 1, churn: false, schedules: true },
  { name: 'dpmpp_2m_sde', label: 'DPM++ 2M SDE', eta: 1, churn: false, schedules: true },
  { name: 'dpmpp_3m_sde', label: 'DPM++ 3M SDE', eta: 1, churn: false, schedules: true },
  { name: 'dpm_fast', label: 'DPM fast', eta: 0, churn: false, schedules: false },
  { name: 'dpm_adaptive', label: 'DPM adaptive', eta: 0, churn: false, schedules: false },
  { name: 'restart', label: 'Restart', churn: false, schedules: true },
  { name: 'unipc', label: 'UniPC', churn: false, schedules: true },
  { name: 'deis', label: 'DEIS', churn: false, schedules: true },
  { name: 'ipndm', label: 'iPNDM', churn: false, schedules: true },
  { name: 'er_sde', label: 'ER SDE', churn: false, schedules: true },
  { name: 'lcm', label: 'LCM', churn: false, schedules: true },
  { name: 'tcd', label: 'TCD', eta: 0, churn: false, schedules: true },
]);

/** @type {readonly Readonly<{ name: string, label: string }>[]} */
export const SCHEDULES = Object.freeze([
  { name: 'karras', label: 'Karras' },
  { name: 'exponential', label: 'Exponential' },
  { name: 'polyexponential', label: 'Polyexponential' },
  { name: 'sgm_uniform', label: 'SGM Uniform' },
  { name: 'simple', label: 'Simple' },
  { name: 'normal', label: 'Normal' },
  { name: 'ddim_uniform', label: 'DDIM' },
  { name: 'beta', label: 'Beta' },
  { name: 'kl_optimal', label: 'KL Optimal' },
  { name: 'align_your_steps', label: 'Align Your Steps' },
]);
