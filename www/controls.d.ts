/** What drawing is led by beside words: see `GenerateOptions` in browser-diffusion.d.ts. */

import type { ImageSource, ModelSource } from './browser-diffusion.js';

/**
 * A ControlNet of SD 1.x, 2.x or SDXL, a ControlNet Union of SDXL, or a T2I-Adapter of SD 1.x or SDXL, of the model's kind,
 * and what it is shown. Its file tells which of them it is. A T2I-Adapter runs once a picture, not once a step; sides must
 * be multiples of 16 with SDXL's.
 */
export interface ControlNet {
  /** A diffusers folder, or one file of it or of the original code. It is kept until another is asked for. */
  source: ModelSource;
  /** Edges, a depth map, a pose ... of any size: resized to that of the drawing as diffusers does. */
  image: ImageSource;
  /** What is made of `image` first: "canny" finds its edges, at the size of the drawing. Default "none". */
  preprocess?: 'none' | 'canny';
  /** Thresholds of "canny", see `canny`. */
  low?: number; high?: number;
  /**
   * What `image` is, which a ControlNet Union must be told: "scribble" are thick or soft lines, "canny" thin ones; "tile"
   * and "repaint" (anew where it is black) are ProMax's. What has one `source`, `start` and `end` is seen at once.
   */
  mode?: 'openpose' | 'depth' | 'scribble' | 'canny' | 'normal' | 'segment' | 'tile' | 'repaint';
  /** `controlnet_conditioning_scale` of diffusers, or `adapter_conditioning_scale`; default 1. */
  scale?: number;
  /**
   * `control_guidance_start` and `control_guidance_end`: the share of the steps during which it acts, default 0 and 1.
   * Of a T2I-Adapter `end` is `adapter_conditioning_factor`.
   */
  start?: number; end?: number;
}
