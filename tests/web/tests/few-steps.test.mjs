// Recipes of models and LoRAs for few steps, by the names that they are published under: what their authors' cards say.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { recipeOf, recipeOfKeys } from '../../../www/page/few-steps.js';
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
    ['wangfuyun/PCM_Weights/pcm_sd15_smallcfg_4step_converted.safetensors', 'PCM', 4, 1, 'ddim_sgm_uniform'],
    ['wangfuyun/PCM_Weights/pcm_sdxl_normalcfg_4step_converted.safetensors', 'PCM', 4, 3, 'ddim_sgm_uniform'],
    ['wangfuyun/PCM_Weights/pcm_sdxl_normalcfg_8step_converted.safetensors', 'PCM', 8, 4.5, 'ddim_sgm_uniform'],
    ['wangfuyun/PCM_Weights/pcm_sd15_normalcfg_16step_converted.safetensors', 'PCM', 16, 6, 'ddim_sgm_uniform'],
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

test('models for one step that begin at a timestep of their own, or predict the picture, have no recipe', () => {
  for (const name of ['sdxl_lightning_1step_x0', 'dmd2_sdxl_1step_unet_fp16', 'Hyper-SDXL-1step-Unet-Comfyui.fp16'])
    assert.equal(recipeOf([`${name}.safetensors`]), undefined, name);
});

test('a latent consistency model is known by the layer that takes its guidance', () => {
  // diffusers' name and the original code's; SDXL's guidance is what diffusers documents for LCM-SDXL.
  const lcm = { kind: 'LCM', steps: 4, scheduler: 'lcm' };
  const original = 'model.diffusion_model.time_embed.cond_proj.weight';
  assert.deepEqual(recipeOfKeys(['conv_in.weight', 'time_embedding.cond_proj.weight']), { ...lcm, guidance: 8.5 });
  assert.deepEqual(recipeOfKeys([original]), { ...lcm, guidance: 8.5 });
  assert.deepEqual(recipeOfKeys([original, 'model.diffusion_model.label_emb.0.0.weight']), { ...lcm, guidance: 8 });
  // What every model and every LoRA of one has.
  const usual = ['time_embedding.linear_1.weight', 'lora_unet_time_embedding_linear_1.lora_down.weight'];
  assert.equal(recipeOfKeys(usual), undefined);
});
