/** What drawing is led by beside words: see `GenerateOptions` in browser-diffusion.d.ts. */

import type { GeneratedImage, ImageSource, ModelSource } from './browser-diffusion.js';

/**
 * A ControlNet of SD 1.x, 2.x or SDXL, a ControlNet Union of SDXL, a Control-LoRA (one file), a T2I-Adapter of SD 1.x or
 * SDXL, or a ControlNet-LLLite of theirs (one file), of the model's kind, and what it is shown. Its file tells which of them it
 * is. A Control-LoRA changes a copy of the model's own UNet, as the checkpoint has it whatever `loras` do, kept in f16. A
 * T2I-Adapter runs once a picture, not once a step; sides must be multiples of 16 with SDXL's. A ControlNet-LLLite acts
 * inside the UNet, on the prompt and the negative one alike; of several the next one sees what the one before made; sides must
 * be multiples of 32.
 */
export interface ControlNet {
  /** A diffusers folder, or one file of it or of the original code. It is kept until another is asked for. */
  source: ModelSource;
  /** Edges, a depth map, a pose ... of any size: resized to that of the drawing as diffusers does. */
  image: ImageSource;
  /**
   * What is made of `image` first, at the size of the drawing: "canny" finds its edges, "softedge" soft lines as scribble and
   * soft-edge ControlNets know them (see `softedge`). Default "none".
   */
  preprocess?: 'none' | 'canny' | 'softedge';
  /** Thresholds of "canny", see `canny`. */
  low?: number; high?: number;
  /**
   * What `image` is, which a ControlNet Union must be told: "scribble" are thick or soft lines, "canny" thin ones; "tile"
   * and "repaint" (anew where it is black) are ProMax's. What has one `source`, `start` and `end` is seen at once.
   */
  mode?: 'openpose' | 'depth' | 'scribble' | 'canny' | 'normal' | 'segment' | 'tile' | 'repaint';
  /** `controlnet_conditioning_scale` of diffusers, `adapter_conditioning_scale`, or LLLite's `multiplier`; default 1. */
  scale?: number;
  /**
   * `control_guidance_start` and `control_guidance_end`: the share of the steps during which it acts, default 0 and 1.
   * Of a T2I-Adapter `end` is `adapter_conditioning_factor`.
   */
  start?: number; end?: number;
}

/**
 * Canny's edges of a picture, white on black and of its size, found on the GPU: pixel by pixel those of OpenCV's
 * `Canny(image, low, high)`. A gradient above `high` (default 200) is an edge, and one above `low` (default 100) that
 * hangs together with such.
 */
export function canny(image: ImageSource, options?: { low?: number; high?: number }): Promise<GeneratedImage>;

/**
 * Soft lines of a picture, white on black and of its size, found on the GPU: where a colour is darker than its surroundings
 * (XDoG; Winnemöller, Kyprianidis and Olsen 2012). Lines are as thick beside a large picture as beside a small one.
 */
export function softedge(image: ImageSource): Promise<GeneratedImage>;
