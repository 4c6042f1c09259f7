/** Samplers and schedules in the words of other programs. */
import { SAMPLERS, SCHEDULES } from '../samplers.js';

/**
 * The rows of the sampler and the schedule that a name of `scheduler` stands for.
 * @param {string} name
 */
export function partsOf(name) {
  for (const sampler of SAMPLERS) {
    if (name === sampler.name) return { sampler };
    const schedule = SCHEDULES.find((each) => sampler.schedules && name === `${sampler.name}_${each.name}`);
    if (schedule) return { sampler, schedule };
  }
  return {};
}

/**
 * What can be turned on a sampler: the usual `eta`, and whether it knows `sChurn`.
 * @param {string} name of `scheduler`
 * @returns {{ eta?: number, sChurn: boolean }}
 */
export function tuningOf(name) {
  const { sampler } = partsOf(name);
  return { eta: sampler?.eta, sChurn: sampler?.churn ?? false };
}

/**
 * A name of `scheduler` in A1111's words: "DPM++ 2M · Karras".
 * @param {string} name
 */
export function schedulerLabel(name) {
  const { sampler, schedule } = partsOf(name);
  return schedule ? `${sampler.label} · ${schedule.label}` : sampler?.label ?? name;
}

/** What k-diffusion, ComfyUI, InvokeAI and NovelAI call a sampler of ours, where the name differs. */
const OTHER_NAMES = new Map(Object.entries({
  euler_ancestral: 'euler_a', dpm_2: 'dpm2', kdpm_2: 'dpm2', dpm_2_ancestral: 'dpm2_a', dpm_2_a: 'dpm2_a',
  kdpm_2_a: 'dpm2_a', dpmpp_2s_ancestral: 'dpmpp_2s_a', dpmpp2s_a: 'dpmpp_2s_a', dpmpp2m: 'dpmpp_2m',
  dpmpp2m_sde: 'dpmpp_2m_sde', dpmpp_2: 'dpmpp_2m', plms: 'pndm', uni_pc: 'unipc', uni_pc_bh2: 'unipc',
  dpm_ad: 'dpm_adaptive', ddim_v3: 'ddim', ddim_trailing: 'ddim', dpm_solverpp: 'dpmpp_2m',
}));

/** The same of schedules. "Uniform" is what A1111 calls k-diffusion's own levels, which are those of "Normal". */
const OTHER_SCHEDULES = new Map(Object.entries({
  uniform: 'normal', discrete: 'normal', native: 'normal', default: 'normal', sgmuniform: 'sgm_uniform',
  ddim: 'ddim_uniform', ays: 'align_your_steps', k: 'karras',
}));

/** @param {string} name */
const spelled = (name) => name.trim().toLowerCase().replaceAll('++', 'pp').replace(/[ -]/g, '_');

/** @param {string} name */
function samplerNamed(name) {
  const bare = name.replace(/^(?:sample|k)_/, '').replace(/_gpu$/, '');
  const own = OTHER_NAMES.get(bare) ?? bare;
  return SAMPLERS.find((each) => each.name === own);
}

/** @param {string} name */
function scheduleNamed(name) {
  const own = OTHER_SCHEDULES.get(name) ?? name;
  return SCHEDULES.find((each) => each.name === own);
}

/** Those whose levels are k-diffusion's `get_sigmas` in A1111 where no schedule is named. */
const K_DIFFUSION = new Set(['euler', 'euler_a', 'heun', 'lms', 'dpm2', 'dpm2_a', 'dpmpp_2s', 'dpmpp_2s_a', 'dpmpp_2m',
  'dpmpp_sde', 'dpmpp_2m_sde', 'dpmpp_3m_sde', 'restart']);

/** Schedules that "Automatic" stands for: `sd_samplers_kdiffusion.py` of A1111 1.9 and later; else "Normal". */
const AUTOMATIC = new Map(Object.entries({
  dpmpp_2m: 'karras', dpmpp_sde: 'karras', dpmpp_2m_sde: 'exponential', dpmpp_2s_a: 'karras',
  dpmpp_3m_sde: 'exponential', dpm2: 'karras', dpm2_a: 'karras', restart: 'karras',
}));

/**
 * The name of `scheduler` that a sampler and a schedule mean, if there is one.
 * @param {string | undefined} label of any program
 * @param {string | undefined} [scheduleLabel]
 * @param {boolean} [kDiffusion] the program is one that takes k-diffusion's levels where it names no schedule
 */
export function schedulerIn(label, scheduleLabel, kDiffusion = false) {
  if (label === undefined) return undefined;
  const name = spelled(label);
  const asked = scheduleLabel === undefined ? undefined : spelled(scheduleLabel);
  const whole = samplerNamed(name);
  if (whole) return withSchedule(whole, asked, kDiffusion);
  // Until A1111 1.8 the schedule stood in the sampler's name; in InvokeAI and stable-diffusion.cpp it does now.
  for (let cut = name.lastIndexOf('_'); cut > 0; cut = name.lastIndexOf('_', cut - 1)) {
    const [sampler, schedule] = [samplerNamed(name.slice(0, cut)), scheduleNamed(name.slice(cut + 1))];
    if (sampler && schedule) return withSchedule(sampler, schedule.name, kDiffusion);
  }
  return undefined;
}

/**
 * @param {import('../samplers.js').Sampler} sampler
 * @param {string | undefined} asked
 * @param {boolean} kDiffusion
 */
function withSchedule({ name, schedules }, asked, kDiffusion) {
  if (!schedules) return name;
  const plain = K_DIFFUSION.has(name);
  if (asked === 'automatic') return plain ? `${name}_${AUTOMATIC.get(name) ?? 'normal'}` : name;
  // A1111's samplers of timesteps (DDIM, UniPC) have their own.
  if (asked === 'uniform' && !plain) return name;
  const schedule = asked === undefined ? undefined : scheduleNamed(asked);
  if (schedule) return `${name}_${schedule.name}`;
  return kDiffusion && plain ? `${name}_${name === 'restart' ? 'karras' : 'normal'}` : name;
}
