// Recipes of models and LoRAs for few steps, by the names that they are published under: what their authors' cards say.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { recipeOf } from '../../../www/page/few-steps.js';
import { SAMPLERS, SCHEDULES } from '../../../www/samplers.js';

test('files for few steps are known by the names that they are published under', () => {
  /** @type {[string, string, number, number, string, number?][]} */
  const published = [
    ['ByteDance/SDXL-Lightning/sdxl_lightning_4step_lora.safetensors', 'Lightning', 4, 0, 'euler_sgm_uniform'],
    ['ByteDance/SDXL-Lightning/sdxl_lightning_8step.safetensors', 'Lightning', 8, 0, 'euler_sgm_uniform'],
    ['ByteDance/Hyper-SD/Hyper-SDXL-8steps-lora.safetensors', 'Hyper-SD', 8, 0, 'ddim_sgm_uniform'],
    ['ByteDance/Hyper-SD/Hyper-SD15-1step-lora.safetensors', 'Hyper-SD', 1, 0, 'tcd', 1],
    ['ByteDance/Hyper-SD/Hyper-SDXL-12steps-CFG-lora.safetensors', 'Hyper-SD', 12, 5, 'ddim_sgm_uniform'],
    ['tianweiy/DMD2/dmd2_sdxl_4step_lora_fp16.safetensors', 'DMD2', 4, 0, 'lcm_sgm_uniform'],
    ['wangfuyun/PCM_Weights/pcm_sd15_smallcfg_4step_converted.safetensors', 'PCM', 4, 0, 'ddim_sgm_uniform'],
    ['wangfuyun/PCM_Weights/pcm_sdxl_normalcfg_8step_converted.safetensors', 'PCM', 8, 7.5, 'ddim_sgm_uniform'],
    ['wangfuyun/PCM_Weights/pcm_sdxl_lcmlike_lora_converted.safetensors', 'PCM', 4, 0, 'lcm'],
    ['h1t/TCD-SDXL-LoRA', 'TCD', 4, 0, 'tcd', 0.3],
    ['latent-consistency/lcm-lora-sdv1-5', 'LCM', 4, 1, 'lcm'],
    ['stabilityai/sdxl-turbo', 'Turbo', 1, 0, 'euler_a_sgm_uniform'],
  ];
  const samplers = new Set(SAMPLERS.flatMap(({ name, schedules }) =>
    (schedules ? [name, ...SCHEDULES.map(schedule => `${name}_${schedule.name}`)] : [name])));
  for (const [source, kind, steps, guidance, scheduler, eta] of published) {
    const { name, ...recipe } = recipeOf(source.split('/')) ?? {};
    assert.deepEqual(recipe, { kind, steps, guidance, scheduler, ...(eta !== undefined && { eta }) }, source);
    assert.ok(samplers.has(scheduler), scheduler);
  }
  for (const name of ['enlightning.safetensors', 'hyperrealism', 'calcmap', 'pcmag', 'my 30 steps style', 'dmdx'])
    assert.equal(recipeOf([name]), undefined, name);
});
