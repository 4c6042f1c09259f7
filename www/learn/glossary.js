/** Forty words: in plain words, what AUTOMATIC1111 calls it, and what diffusers calls it. */
import { any, details, make } from '../page/ui.js';
import { t } from './say.js';

const NONE = '–';

/** Name, A1111's, diffusers'. @type {[string, string, string][]} */
const WORDS = [
  ['prompt', 'Prompt', 'prompt'],
  ['negative', 'Negative prompt', 'negative_prompt'],
  ['seed', 'Seed', 'generator.manual_seed'],
  ['steps', 'Sampling steps', 'num_inference_steps'],
  ['sampler', 'Sampling method', 'scheduler'],
  ['schedule', 'Schedule type', 'timestep_spacing, use_karras_sigmas'],
  ['guidance', 'CFG Scale · Image CFG Scale', 'guidance_scale, image_guidance_scale'],
  ['rescale', NONE, 'guidance_rescale'],
  ['checkpoint', 'Stable Diffusion checkpoint', 'from_pretrained'],
  ['latent', 'Latent', 'latents'],
  ['vae', 'SD VAE', 'AutoencoderKL'],
  ['unet', 'SD Unet', 'UNet2DConditionModel'],
  ['encoder', 'CLIP', 'CLIPTextModel'],
  ['token', '0/75', 'CLIPTokenizer'],
  ['clipskip', 'Clip skip', 'clip_skip'],
  ['attention', 'Cross attention', 'attn2'],
  ['weight', '(word:1.3)', 'prompt_embeds'],
  ['timestep', NONE, 'timesteps'],
  ['sigma', 'Sigma', 'sigmas'],
  ['alpha', NONE, 'alphas_cumprod'],
  ['noise', NONE, 'randn_tensor'],
  ['epsilon', NONE, 'prediction_type="epsilon"'],
  ['v', NONE, 'prediction_type="v_prediction"'],
  ['ddpm', NONE, 'DDPMScheduler'],
  ['ddim', 'DDIM', 'DDIMScheduler'],
  ['euler', 'Euler', 'EulerDiscreteScheduler'],
  ['ancestral', 'Euler a', 'EulerAncestralDiscreteScheduler'],
  ['eta', 'Eta · ENSD', 'eta'],
  ['img2img', 'img2img', 'StableDiffusionImg2ImgPipeline'],
  ['strength', 'Denoising strength', 'strength'],
  ['inpainting', 'Inpaint', 'StableDiffusionInpaintPipeline'],
  ['mask', 'Mask', 'mask_image'],
  ['hires', 'Hires. fix', NONE],
  ['lora', '<lora:name:0.8>', 'load_lora_weights'],
  ['embedding', 'Textual inversion', 'load_textual_inversion'],
  ['controlnet', 'ControlNet', 'ControlNetModel'],
  ['variation', 'Variation seed', NONE],
  ['batch', 'Batch size', 'num_images_per_prompt'],
  ['quantised', NONE, 'BitsAndBytesConfig'],
  ['loss', 'Loss', 'F.mse_loss'],
];

/** Fills the table. */
export function showGlossary() {
  any('glossary').append(...WORDS.map(([key, a1111, diffusers]) => make('tr', { id: `word-${key}` },
    make('th', { scope: 'row' }, t(/** @type {'word.seed'} */ (`word.${key}`))),
    make('td', {}, t(/** @type {'word.seed.is'} */ (`word.${key}.is`))),
    make('td', { translate: false }, a1111), make('td', { translate: false }, make('code', {}, diffusers)))));
}

/** Opens the table at a word, if it is one. @param {string} id */
export function showWord(id) {
  const row = document.getElementById(id);
  if (!row) return;
  details('words-view').open = true;
  row.tabIndex = -1; // the keyboard goes on from there
  row.focus();
  row.scrollIntoView({ block: 'center' });
}
