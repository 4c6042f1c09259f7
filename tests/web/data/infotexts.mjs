// Texts of pictures as twelve kinds of programs write them, written for the test after their documentation and source,
// and the options that they stand for. Of each kind: `keyword` says where a picture carries the text.

/** @typedef {[text: string | object, options: Record<string, any>, more?: { model?: string, withImage?: object }]} Case */
/** @typedef {{ keyword?: string, same?: Record<string, any>, cases: Case[] }} Kind */

const A1111 = { promptSyntax: 'a1111', rng: 'torch-cuda' };
const COMFY = { promptSyntax: 'comfy', rng: 'torch-cpu' };
const PLAIN = { promptSyntax: 'plain' };
/** @param {string} start @param {number} seed @param {string} [end] */
const fields = (start, seed, end = 'Version: v1.10.1') => `${start}, CFG scale: 7, Seed: ${seed}, Size: 512x768, ` +
  `${end}`;
const size = { width: 512, height: 768 };
/** @param {number} numInferenceSteps @param {string | undefined} scheduler @param {number} seed */
const drawn = (numInferenceSteps, scheduler, seed) =>
  ({ numInferenceSteps, ...(scheduler && { scheduler }), guidanceScale: 7, seed, ...size });

/**
 * A graph of ComfyUI: loader, two texts, an empty latent and a sampler, changed by what is given.
 * @param {Record<string, any>} sampler
 * @param {Record<string, any>} [nodes]
 */
const graph = (sampler, nodes = {}) => ({
  3: { class_type: 'KSampler', inputs: {
    seed: 31, steps: 22, cfg: 6.5, sampler_name: 'euler', scheduler: 'normal', denoise: 1, model: ['4', 0],
    positive: ['6', 0], negative: ['7', 0], latent_image: ['5', 0], ...sampler,
  } },
  4: { class_type: 'CheckpointLoaderSimple', inputs: { ckpt_name: 'sd15.safetensors' } },
  5: { class_type: 'EmptyLatentImage', inputs: { width: 512, height: 768, batch_size: 1 } },
  6: { class_type: 'CLIPTextEncode', inputs: { text: 'a lighthouse', clip: ['4', 1] } },
  7: { class_type: 'CLIPTextEncode', inputs: { text: 'fog', clip: ['4', 1] } },
  8: { class_type: 'VAEDecode', inputs: { samples: ['3', 0], vae: ['4', 2] } },
  9: { class_type: 'SaveImage', inputs: { filename_prefix: 'x', images: ['8', 0] } },
  ...nodes,
});
const lighthouse = {
  prompt: 'a lighthouse', negativePrompt: 'fog', numInferenceSteps: 22, guidanceScale: 6.5, seed: 31,
  scheduler: 'euler_normal', ...size,
};

/** @type {Record<string, Kind>} */
export const KINDS = {
  'A1111 1.9 and later': {
    same: A1111,
    cases: [
      [`a fox\nNegative prompt: blurry\n${fields('Steps: 20, Sampler: Euler a, Schedule type: Automatic', 1)}`,
        { prompt: 'a fox', negativePrompt: 'blurry', ...drawn(20, 'euler_a_normal', 1) }],
      [`a fox\n${fields('Steps: 25, Sampler: DPM++ 2M, Schedule type: Automatic', 2)}`,
        { prompt: 'a fox', negativePrompt: '', ...drawn(25, 'dpmpp_2m_karras', 2) }],
      [`a fox, (red:1.2)\nBREAK\nsnow\n${fields('Steps: 25, Sampler: LMS, Schedule type: Uniform', 3)}`,
        { prompt: 'a fox, (red:1.2)\nBREAK\nsnow', negativePrompt: '', ...drawn(25, 'lms_normal', 3) }],
      ['a fox\n' +
        fields('Steps: 8, Sampler: DDIM, Schedule type: Automatic', 4, 'Clip skip: 2, RNG: CPU, Version: v1.9.4'),
        { prompt: 'a fox', negativePrompt: '', ...drawn(8, 'ddim', 4), clipSkip: 1, rng: 'torch-cpu' }],
      ['a fox\nSteps: 20, Sampler: DPM++ SDE, Schedule type: SGM Uniform, CFG scale: 4.5, Seed: 5, Size: 832x1216, ' +
        'Model hash: 31e35c80fc, Model: sd_xl_base_1.0, Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: ' +
        '12, Hires upscaler: Latent (bicubic), Lora hashes: "a: 0123, b: 4567", Version: v1.10.1',
        { prompt: 'a fox', negativePrompt: '', numInferenceSteps: 20, scheduler: 'dpmpp_sde_sgm_uniform',
          guidanceScale: 4.5, seed: 5, width: 832, height: 1216, strengthSteps: 'exact',
          hires: { scale: 1.5, steps: 12, strength: 0.4, upscaler: 'latent-bicubic' } }, { model: 'sd_xl_base_1.0' }],
      ['a fox\n' +
        fields('Steps: 20, Sampler: Euler, Schedule type: Automatic', 6, 'Denoising strength: 0.75, Version: v1.10.1'),
        { prompt: 'a fox', negativePrompt: '', ...drawn(20, 'euler_normal', 6) },
        { withImage: { strength: 0.75, strengthSteps: 'a1111' } }],
    ],
  },
  'A1111 before 1.6, and what Civitai shows of it': {
    same: A1111,
    cases: [
      ['portrait of a knight\nNegative prompt: lowres, bad anatomy\nSteps: 30, Sampler: DPM++ 2M Karras, CFG ' +
        'scale: 8, Seed: 3456789012, Size: 512x512, Model hash: 7460a6fa',
        { prompt: 'portrait of a knight', negativePrompt: 'lowres, bad anatomy', numInferenceSteps: 30,
          guidanceScale: 8, scheduler: 'dpmpp_2m_karras', seed: 3456789012, width: 512, height: 512 }],
      [`a knight\n${fields('Steps: 40, Sampler: PLMS', 7, 'Model hash: 7460a6fa, ENSD: 31337')}`,
        { prompt: 'a knight', negativePrompt: '', ...drawn(40, 'pndm', 7), etaNoiseSeedDelta: 31337 }],
      [`a knight\n${fields('Steps: 40, Sampler: Euler', 8, 'Model hash: 7460a6fa, Eta: 0.67')}`,
        { prompt: 'a knight', negativePrompt: '', ...drawn(40, 'euler_normal', 8), eta: 0.67 }],
      ['a knight\nNegative prompt: x\nSteps: 20, Sampler: DPM2 a Karras, CFG scale: 7.5, Seed: 9, Size: 513x767, ' +
        'Model hash: 7460a6fa, Hires resize: 1024x0, Hires upscaler: 4x-UltraSharp, Denoising strength: 0.35',
        { prompt: 'a knight', negativePrompt: 'x', numInferenceSteps: 20, scheduler: 'dpm2_a_karras',
          guidanceScale: 7.5, seed: 9, width: 512, height: 760, strengthSteps: 'exact',
          hires: { width: 1024, height: 1528, strength: 0.35 } }],
      ['a knight\nSteps: 30, Sampler: DPM++ 2M SDE Exponential, CFG scale: 7, Seed: 10, Size: 512x768, Model ' +
        'hash: ab, Civitai resources: ' +
          '[{"type":"checkpoint","modelVersionId":128713,"modelName":"A","modelVersionName":"8"}]',
        { prompt: 'a knight', negativePrompt: '', ...drawn(30, 'dpmpp_2m_sde_exponential', 10) }],
    ],
  },
  'Forge and reForge': {
    same: A1111,
    cases: [
      ['a bridge\n' +
        fields('Steps: 20, Sampler: Euler, Schedule type: Simple', 11,
          'Distilled CFG Scale: 3.5, Version: f2.0.1v1.10.1-previous-659-gc055f2d4'),
        { prompt: 'a bridge', negativePrompt: '', ...drawn(20, 'euler_simple', 11) }],
      ['a bridge\n' +
        fields('Steps: 20, Sampler: DPM++ 3M SDE, Schedule type: Align Your Steps', 12, 'RNG: CPU, Version: f2.0.1'),
        { prompt: 'a bridge', negativePrompt: '', ...drawn(20, 'dpmpp_3m_sde_align_your_steps', 12),
          rng: 'torch-cpu' }],
      [`a bridge\n${fields('Steps: 6, Sampler: LCM, Schedule type: Karras', 13, 'Version: f1.0.0')}`,
        { prompt: 'a bridge', negativePrompt: '', ...drawn(6, 'lcm_karras', 13) }],
      ['a bridge\n' +
        fields('Steps: 15, Sampler: DPM++ 2M SDE Heun, Schedule type: Exponential', 14,
          'Emphasis: No norm, Version: f2.0.1'),
        { prompt: 'a bridge', negativePrompt: '', ...drawn(15, undefined, 14) }],
      ['a bridge\n' +
        fields('Steps: 15, Sampler: UniPC, Schedule type: Uniform', 15, 'Sigma churn: 5, Version: f2.0.1'),
        { prompt: 'a bridge', negativePrompt: '', ...drawn(15, 'unipc', 15), sChurn: 5 }],
    ],
  },
  'A1111, its line breaks lost': {
    same: A1111,
    cases: [
      [`a pond, lilies Negative prompt: ugly, fat ` +
        `${fields('Steps: 20, Sampler: Euler a, Schedule type: Automatic', 16)}`,
        { prompt: 'a pond, lilies', negativePrompt: 'ugly, fat', ...drawn(20, 'euler_a_normal', 16) }],
      [`a pond: still, deep ${fields('Steps: 20, Sampler: Heun, Schedule type: Karras', 17)}`,
        { prompt: 'a pond: still, deep', negativePrompt: '', ...drawn(20, 'heun_karras', 17) }],
      [`a pond\nNegative prompt: ugly ${fields('Steps: 20, Sampler: Heun, Schedule type: Karras', 18)}`,
        { prompt: 'a pond', negativePrompt: 'ugly', ...drawn(20, 'heun_karras', 18) }],
      [`a pond\r\nNegative prompt: ugly\r\n${fields('Steps: 20, Sampler: Heun, Schedule type: Karras', 19)}\r\n`,
        { prompt: 'a pond', negativePrompt: 'ugly', ...drawn(20, 'heun_karras', 19) }],
      [fields('Steps: 20, Sampler: Heun, Schedule type: Karras', 20),
        { prompt: '', negativePrompt: '', ...drawn(20, 'heun_karras', 20) }],
    ],
  },
  'sd-dynamic-prompts below A1111': {
    same: A1111,
    cases: [
      [`a cup\nNegative prompt: x\n${fields('Steps: 9, Sampler: Heun, Schedule type: Karras', 21)}\nTemplate: a ` +
        `{cup|jug}\nNegative Template: x`,
        { prompt: 'a cup', negativePrompt: 'x', ...drawn(9, 'heun_karras', 21) }],
      [`a cup\n${fields('Steps: 9, Sampler: Heun, Schedule type: Karras', 22)}\nTemplate: a __thing__, (red: 1), ` +
        `b: 2, c: 3`,
        { prompt: 'a cup', negativePrompt: '', ...drawn(9, 'heun_karras', 22) }],
      [`a cup\n${fields('Steps: 9, Sampler: Heun, Schedule type: Karras', 23)}\nNegative Template: {a|b}`,
        { prompt: 'a cup', negativePrompt: '', ...drawn(9, 'heun_karras', 23) }],
      [`a cup\n${fields('Steps: 9, Sampler: Heun, Schedule type: Karras', 24)}\nTemplate: {a\n|b}\nNegative ` +
        `Template: c:\nd`,
        { prompt: 'a cup', negativePrompt: '', ...drawn(9, 'heun_karras', 24) }],
      [`Template: a cup\n${fields('Steps: 9, Sampler: Heun, Schedule type: Karras', 25)}`,
        { prompt: 'Template: a cup', negativePrompt: '', ...drawn(9, 'heun_karras', 25) }],
    ],
  },
  'stable-diffusion.cpp': {
    same: { ...A1111, guidanceScale: 7 },
    cases: [
      ['a cat\nNegative prompt: dog\nSteps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 42, ' +
        'Size: 512x512, Model: sd-v1-4.ckpt, RNG: cuda, Sampler: euler_a, Version: stable-diffusion.cpp',
        { prompt: 'a cat', negativePrompt: 'dog', numInferenceSteps: 20, eta: 0, seed: 42, width: 512, height: 512,
          scheduler: 'euler_a_normal' }, { model: 'sd-v1-4.ckpt' }],
      ['a cat\nSteps: 12, CFG scale: 7.000000, Seed: 43, Size: 512x512, Model: x.gguf, RNG: cuda, ' +
        'Sampler: dpm++2m karras, Version: stable-diffusion.cpp',
        { prompt: 'a cat', negativePrompt: '', numInferenceSteps: 12, seed: 43, width: 512, height: 512,
          scheduler: 'dpmpp_2m_karras' }, { model: 'x.gguf' }],
      ['a cat\nSteps: 4, CFG scale: 7.000000, Seed: 44, Size: 512x512, Model: x.gguf, RNG: cpu, Sampler: lcm, ' +
        'Version: stable-diffusion.cpp',
        { prompt: 'a cat', negativePrompt: '', numInferenceSteps: 4, seed: 44, width: 512, height: 512,
          rng: 'torch-cpu',
          scheduler: 'lcm' }, { model: 'x.gguf' }],
      ['a cat\nSteps: 12, Sampler: dpm++2s_a discrete, CFG scale: 7.000000, Seed: 45, Size: 512x512, Model: x.gguf, ' +
        'RNG: cuda, Version: stable-diffusion.cpp',
        { prompt: 'a cat', negativePrompt: '', numInferenceSteps: 12, seed: 45, width: 512, height: 512,
          scheduler: 'dpmpp_2s_a_normal' }, { model: 'x.gguf' }],
      ['a cat\nSteps: 12, CFG scale: 7.000000, SLG scale: 7.0, Skip layers: [7, 8, ], Seed: 46, Size: 512x512, ' +
        'Model: x.gguf, RNG: cuda, Sampler: dpm2, Version: stable-diffusion.cpp',
        { prompt: 'a cat', negativePrompt: '', numInferenceSteps: 12, seed: 46, width: 512, height: 512,
          scheduler: 'dpm2_normal' }, { model: 'x.gguf' }],
    ],
  },
  'SwarmUI': {
    same: COMFY,
    cases: [
      [{ sui_image_params: { prompt: 'a dog', seed: 5, steps: 20 } },
        { prompt: 'a dog', negativePrompt: '', seed: 5, numInferenceSteps: 20 }],
      [{ sui_image_params: {
        prompt: 'a dog', negativeprompt: 'cat', model: 'OfficialStableDiffusion/sd_xl_base_1.0', seed: 6, steps: 30,
        cfgscale: 7.5, aspectratio: '1:1', width: 1024, height: 1024, sampler: 'dpmpp_2m', scheduler: 'karras',
        swarm_version: '0.9.3.0',
      }, sui_extra_data: { date: '2024-11-02' } },
      { prompt: 'a dog', negativePrompt: 'cat', seed: 6, numInferenceSteps: 30, guidanceScale: 7.5, width: 1024,
        height: 1024, scheduler: 'dpmpp_2m_karras' }, { model: 'OfficialStableDiffusion/sd_xl_base_1.0' }],
      [{ sui_image_params: { prompt: 'a dog', comfyuisampler: 'dpmpp_3m_sde_gpu', seed: 7, steps: 3, cfgscale: '4' } },
        { prompt: 'a dog', negativePrompt: '', seed: 7, numInferenceSteps: 3, guidanceScale: 4,
          scheduler: 'dpmpp_3m_sde' }],
      [{ sui_image_params: {
        prompt: 'a dog', seed: 8, steps: 9, clipstopatlayer: -2, variationseed: 3, variationseedstrength: 0.2,
      } },
      { prompt: 'a dog', negativePrompt: '', seed: 8, numInferenceSteps: 9, clipSkip: 1, variationSeed: 3,
        variationStrength: 0.2 }],
      [{ sui_image_params: { prompt: 'a dog', seed: 9, steps: 9, initimage: 'x', initimagecreativity: 0.6 } },
        { prompt: 'a dog', negativePrompt: '', seed: 9, numInferenceSteps: 9 },
        { withImage: { strength: 0.6, strengthSteps: 'exact' } }],
    ],
  },
  'InvokeAI 3 and later': {
    keyword: 'invokeai_metadata',
    same: { ...PLAIN, rng: 'torch-cpu' },
    cases: [
      [{ generation_mode: 'sdxl_txt2img', positive_prompt: 'a robot', negative_prompt: 'rust', width: 1184, height: 888,
        seed: 591741300, rand_device: 'cpu', cfg_scale: 5, cfg_rescale_multiplier: 0, steps: 30,
        scheduler: 'dpmpp_2m_sde', model: { key: 'k', name: 'juggernaut', base: 'sdxl', type: 'main' },
        app_version: '5.4.2' },
      { prompt: 'a robot', negativePrompt: 'rust', width: 1184, height: 888, seed: 591741300, guidanceScale: 5,
        numInferenceSteps: 30, scheduler: 'dpmpp_2m_sde' }, { model: 'juggernaut' }],
      [{ generation_mode: 'txt2img', positive_prompt: 'a robot', cfg_scale: 7.5, steps: 10, scheduler: 'dpmpp_2m_k',
        clip_skip: 1, model: { model_name: 'dreamshaper', base_model: 'sd-1' } },
      { prompt: 'a robot', negativePrompt: '', guidanceScale: 7.5, numInferenceSteps: 10, clipSkip: 1,
        scheduler: 'dpmpp_2m_karras' }, { model: 'dreamshaper' }],
      [{ positive_prompt: 'a robot', negative_prompt: '', scheduler: 'kdpm_2_a', steps: 10, cfg_rescale_multiplier: 0.7,
        rand_device: 'cuda', seed: 0 },
      { prompt: 'a robot', negativePrompt: '', numInferenceSteps: 10, guidanceRescale: 0.7, rng: 'torch-cuda', seed: 0,
        scheduler: 'dpm2_a' }],
      [{ generation_mode: 'img2img', positive_prompt: 'a robot', negative_prompt: '', strength: 0.6, steps: 10,
        scheduler: 'unipc', width: 500, height: 501 },
      { prompt: 'a robot', negativePrompt: '', numInferenceSteps: 10, scheduler: 'unipc', width: 496, height: 496 },
      { withImage: { strength: 0.6 } }],
      [{ generation_mode: 'txt2img', positive_prompt: 'a robot', negative_prompt: '', cfg_scale: [7, 5], steps: '12',
        scheduler: 'ipndm_of_ours', seed: -1, width: null },
      { prompt: 'a robot', negativePrompt: '', numInferenceSteps: 12 }],
    ],
  },
  'NovelAI': {
    keyword: 'Comment',
    same: PLAIN,
    cases: [
      [{ steps: 28, sampler: 'k_euler_ancestral', seed: 1234, strength: 0.69, noise: 0.667, scale: 11, uc: 'lowres' },
        { prompt: '', negativePrompt: 'lowres', numInferenceSteps: 28, scheduler: 'euler_a', seed: 1234,
          guidanceScale: 11 }, { withImage: { strength: 0.69 } }],
      [{ prompt: '1girl, {smile}', steps: 28, height: 1216, width: 832, scale: 5, seed: 55, sampler: 'k_dpmpp_2m',
        noise_schedule: 'karras', cfg_rescale: 0.2, uc: 'bad', request_type: 'PromptGenerateRequest' },
      { prompt: '1girl, {smile}', negativePrompt: 'bad', numInferenceSteps: 28, width: 832, height: 1216, seed: 55,
        guidanceScale: 5, guidanceRescale: 0.2, scheduler: 'dpmpp_2m_karras' }],
      [{ prompt: 'a', steps: 28, scale: 5, seed: 56, sampler: 'k_dpmpp_2s_ancestral', noise_schedule: 'native',
        uc: '' },
        { prompt: 'a', negativePrompt: '', numInferenceSteps: 28, seed: 56, guidanceScale: 5,
          scheduler: 'dpmpp_2s_a_normal' }],
      [{ steps: 23, scale: 6, seed: 57, sampler: 'k_dpmpp_sde', noise_schedule: 'exponential',
        v4_prompt: { caption: { base_caption: 'a town', char_captions: [] } },
        v4_negative_prompt: { caption: { base_caption: 'people' } } },
      { prompt: 'a town', negativePrompt: 'people', numInferenceSteps: 23, seed: 57, guidanceScale: 6,
        scheduler: 'dpmpp_sde_exponential' }],
      [{ prompt: 'a', steps: 50, scale: 10, seed: 58, sampler: 'ddim_v3', uc: '' },
        { prompt: 'a', negativePrompt: '', numInferenceSteps: 50, seed: 58, guidanceScale: 10, scheduler: 'ddim' }],
    ],
  },
  'ComfyUI': {
    keyword: 'prompt',
    same: COMFY,
    cases: [
      [graph({}), lighthouse, { model: 'sd15.safetensors' }],
      [graph({ seed: ['12', 0], model: ['10', 0], positive: ['14', 0], scheduler: 'sgm_uniform',
        sampler_name: 'uni_pc' }, {
        10: { class_type: 'LoraLoader', inputs: {
          lora_name: 'l.safetensors', strength_model: 0.8, strength_clip: 1, model: ['4', 0], clip: ['11', 0],
        } },
        11: { class_type: 'CLIPSetLastLayer', inputs: { stop_at_clip_layer: -2, clip: ['4', 1] } },
        12: { class_type: 'PrimitiveNode', inputs: { value: 99 } },
        13: { class_type: 'CLIPTextEncode', inputs: { text: ['15', 0], clip: ['10', 1] } },
        14: { class_type: 'ControlNetApplyAdvanced', inputs: { positive: ['13', 0], negative: ['7', 0], strength: 1 } },
        15: { class_type: 'String', inputs: { string: 'a harbour' } },
      }),
      { ...lighthouse, prompt: 'a harbour', seed: 99, clipSkip: 1, scheduler: 'unipc_sgm_uniform' },
      { model: 'sd15.safetensors' }],
      [graph({}, {
        20: { class_type: 'LatentUpscaleBy', inputs: { samples: ['3', 0], upscale_method: 'bicubic', scale_by: 1.5 } },
        21: { class_type: 'KSampler', inputs: {
          seed: 1, steps: 11, cfg: 5, sampler_name: 'dpmpp_2m', scheduler: 'karras', denoise: 0.5, model: ['4', 0],
          positive: ['6', 0], negative: ['7', 0], latent_image: ['20', 0],
        } },
      }),
      { ...lighthouse, strengthSteps: 'exact',
        hires: { scale: 1.5, upscaler: 'latent-bicubic', steps: 11, strength: 0.5 } }, { model: 'sd15.safetensors' }],
      [{
        1: { class_type: 'SamplerCustomAdvanced', inputs: {
          noise: ['2', 0], guider: ['3', 0], sampler: ['4', 0], sigmas: ['5', 0], latent_image: ['6', 0],
        } },
        2: { class_type: 'RandomNoise', inputs: { noise_seed: 77 } },
        3: { class_type: 'CFGGuider', inputs: { cfg: 3, model: ['7', 0], positive: ['8', 0], negative: ['9', 0] } },
        4: { class_type: 'KSamplerSelect', inputs: { sampler_name: 'dpm_2_ancestral' } },
        5: { class_type: 'BasicScheduler', inputs: { scheduler: 'beta', steps: 18, denoise: 1, model: ['7', 0] } },
        6: { class_type: 'EmptyLatentImage', inputs: { width: 640, height: 640, batch_size: 1 } },
        7: { class_type: 'UNETLoader', inputs: { unet_name: 'u.safetensors' } },
        8: { class_type: 'CLIPTextEncodeSDXL', inputs: { text_g: 'a reef', text_l: 'a reef', clip: ['10', 0] } },
        9: { class_type: 'ConditioningZeroOut', inputs: { conditioning: ['8', 0] } },
      },
      { prompt: 'a reef', negativePrompt: '', numInferenceSteps: 18, guidanceScale: 3, seed: 77, width: 640,
        height: 640,
        scheduler: 'dpm2_a_beta' }, { model: 'u.safetensors' }],
      [graph({ latent_image: ['30', 0], denoise: 0.6 }, {
        30: { class_type: 'VAEEncode', inputs: { pixels: ['31', 0], vae: ['4', 2] } },
        31: { class_type: 'LoadImage', inputs: { image: 'x.png' } },
      }),
      (({ width: _, height: __, ...others }) => others)(lighthouse),
      { model: 'sd15.safetensors', withImage: { strength: 0.6, strengthSteps: 'exact' } }],
      [graph({ positive: ['6', 0], negative: ['41', 0] }, {
        6: { class_type: 'ConditioningCombine', inputs: { conditioning_1: ['40', 0], conditioning_2: ['6', 0] } },
        40: { class_type: 'CLIPTextEncode', inputs: { text: 'a lighthouse' } },
        41: { class_type: 'ConditioningConcat', inputs: { conditioning_to: ['7', 0], conditioning_from: ['41', 0] } },
      }), lighthouse, { model: 'sd15.safetensors' }],
    ],
  },
  'Fooocus': {
    same: COMFY,
    cases: [
      [{ prompt: 'a castle', negative_prompt: '', styles: '[\'Fooocus V2\']', steps: 30, resolution: '(896, 1152)',
        guidance_scale: 4, sharpness: 2, base_model: 'juggernautXL_v8Rundiffusion', sampler: 'dpmpp_2m_sde_gpu',
        scheduler: 'karras', seed: '4159895726', metadata_scheme: 'fooocus', version: 'Fooocus v2.5.5' },
      { prompt: 'a castle', negativePrompt: '', numInferenceSteps: 30, width: 896, height: 1152, guidanceScale: 4,
        scheduler: 'dpmpp_2m_sde_karras', seed: 4159895726 }, { model: 'juggernautXL_v8Rundiffusion' }],
      [{ 'Prompt': 'a castle', 'Negative Prompt': 'x', 'Steps': 30, 'Resolution': '(1024, 1024)', 'Guidance Scale': 3,
        'Base Model': 'm.safetensors', 'Sampler': 'euler_ancestral', 'Scheduler': 'normal', 'Seed': '12' },
      { prompt: 'a castle', negativePrompt: 'x', numInferenceSteps: 30, width: 1024, height: 1024, guidanceScale: 3,
        scheduler: 'euler_a_normal', seed: 12 }, { model: 'm.safetensors' }],
      ['a castle\nNegative prompt: x\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 13, Size: 896x1152, CFG ' +
        'scale: 4, ' +
        'Sharpness: 2, Model hash: 0a1b, Model: juggernautXL_v8Rundiffusion, Scheduler: karras, Version: Fooocus ' +
          'v2.5.5',
        { prompt: 'a castle', negativePrompt: 'x', numInferenceSteps: 30, width: 896, height: 1152, guidanceScale: 4,
          scheduler: 'dpmpp_2m_sde_karras', seed: 13 }, { model: 'juggernautXL_v8Rundiffusion' }],
      // Its seeds are greater than a number of JavaScript holds.
      [{ prompt: 'a castle', negative_prompt: '', base_model: 'm', steps: 8, seed: '4159895726312427221',
        sampler: 'lcm', scheduler: 'lcm', clip_skip: 2, resolution: '' },
      { prompt: 'a castle', negativePrompt: '', numInferenceSteps: 8, scheduler: 'lcm', clipSkip: 1 }, { model: 'm' }],
      [{ prompt: 'a castle', negative_prompt: '', base_model: 'm', steps: 0, guidance_scale: -1, sampler: 'restart',
        scheduler: 'sgm_uniform' },
      { prompt: 'a castle', negativePrompt: '', scheduler: 'restart_sgm_uniform' }, { model: 'm' }],
    ],
  },
  'Easy Diffusion, Draw Things and InvokeAI 2': {
    cases: [
      [{ 'Prompt': 'a mill', 'Negative Prompt': 'x', 'Seed': 70, 'Stable Diffusion model': 'sd-v1-5',
        'Sampler': 'euler_a',
        'Width': 512, 'Height': 768, 'Steps': 25, 'Guidance Scale': 7, 'Clip Skip': true },
      { prompt: 'a mill', negativePrompt: 'x', ...drawn(25, 'euler_a', 70), clipSkip: 1, promptSyntax: 'a1111' },
      { model: 'sd-v1-5' }],
      [{ prompt: 'a mill', negative_prompt: '', seed: 71, use_stable_diffusion_model: 'sd-v1-5', sampler_name: 'plms',
        width: 512, height: 768, num_inference_steps: 25, guidance_scale: 7 },
      { prompt: 'a mill', negativePrompt: '', ...drawn(25, 'pndm', 71), promptSyntax: 'a1111' }, { model: 'sd-v1-5' }],
      [{ c: 'a mill', uc: 'x', model: 'sd_v1.5_f16.ckpt', sampler: 'DPM++ 2M Karras', scale: 7, seed: 72,
        size: '512x768', steps: 25, strength: 1, v2: {} },
      { prompt: 'a mill', negativePrompt: 'x', ...drawn(25, 'dpmpp_2m_karras', 72), promptSyntax: 'a1111' },
      { model: 'sd_v1.5_f16.ckpt' }],
      [{ model: 'stable diffusion', model_weights: 'sd-1.5', app_id: 'invoke-ai/InvokeAI', image: {
        prompt: [{ prompt: 'a mill [x]', weight: 1 }], steps: 25, cfg_scale: 7, width: 512, height: 768, seed: 73,
        sampler: 'k_lms', type: 'txt2img',
      } },
      { prompt: 'a mill', negativePrompt: 'x', ...drawn(25, 'lms', 73), ...PLAIN }, { model: 'sd-1.5' }],
      [{ model_weights: 'sd-1.5', image: {
        prompt: 'a mill', steps: 25, cfg_scale: 7, width: 512, height: 768, seed: 74, sampler: 'k_dpm_2',
      } },
      { prompt: 'a mill', negativePrompt: '', ...drawn(25, 'dpm2', 74), ...PLAIN }, { model: 'sd-1.5' }],
    ],
  },
};
