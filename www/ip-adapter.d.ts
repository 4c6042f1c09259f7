/** Pictures that a model sees beside the words: see `ipAdapters` of `GenerateOptions` in browser-diffusion.d.ts. */

import type { ImageSource, ModelSource } from './browser-diffusion.js';

/**
 * An IP-Adapter or IP-Adapter Plus of SD 1.x or SDXL (also "full-face"; FaceID is not read), and the pictures that it
 * shows the model.
 */
export interface IpAdapter {
  /** The address of its file (.safetensors, .bin), as h94/IP-Adapter has them, or a file from disk. */
  source: ModelSource;
  /**
   * The CLIP image encoder that it was made with: its folder, or its file. Of h94/IP-Adapter `models/image_encoder` (ViT-H)
   * for SD 1.5 and for names with "vit-h", `sdxl_models/image_encoder` (ViT-bigG) for `ip-adapter_sdxl`. Two adapters may
   * share one.
   */
  imageEncoder: ModelSource;
  /** Of any size: its middle, a square, is seen. It or `images`. */
  image?: ImageSource;
  /** Several, which are seen together. */
  images?: ImageSource[];
  /** diffusers' `set_ip_adapter_scale`, default 1. */
  scale?: number;
}
