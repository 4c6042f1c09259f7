// Generated from the enums in src by tests/names.rs; to write it anew: BLESS=1 cargo test --test names.

/** The names that options take, by option. */
export const NAMES = Object.freeze({
  preview: ['none', 'fast', 'tiny', 'full'],
  output: ['image', 'latent'],
  weights: ['f16', 'q8', 'q4'],
  precision: ['auto', 'f16', 'f32'],
  memory: ['auto', 'resident', 'low'],
  predictionType: ['epsilon', 'v_prediction', 'sample'],
  rng: ['torch-cpu', 'torch-cuda'],
  promptSyntax: ['plain', 'a1111', 'comfy'],
  strengthSteps: ['diffusers', 'a1111', 'exact'],
  maskedContent: ['fill', 'original', 'noise', 'nothing'],
  inpaintArea: ['whole', 'masked'],
  upscaler: ['latent', 'latent-nearest', 'latent-bicubic', 'picture'],
  preprocess: ['none', 'canny', 'softedge'],
  mode: ['openpose', 'depth', 'scribble', 'canny', 'normal', 'segment', 'tile', 'repaint'],
});
