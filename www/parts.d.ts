/** What the parts of drawing give, one at a time: see `DiffusionPipeline` in browser-diffusion.d.ts. */

/** A prompt as the text encoder reads it. */
export interface PromptView {
  tokens: {
    text: string;
    /** In the vocabulary. */
    id: number;
    weight: number;
    /** The window that it lies in, from 0. */
    chunk: number;
    /** It did not fit, and the model does not read it. */
    cut: boolean;
    /** A scrap of a word that the vocabulary does not hold. */
    unknown: boolean;
  }[];
  chunks: number;
  /** Tokens that each window has room for: 75 of CLIP's, 510 of BERT's, which Taiyi reads Chinese with. */
  room: number;
  /** Most of the prompt is in a language that the vocabulary does not hold: CLIP learnt from English captions. */
  foreign: boolean;
}

export interface NoiseSchedule {
  /** Of each step, falling; with some samplers between two of the training's. */
  timesteps: Float32Array;
  /**
   * Before each step and after the last: the noise's deviation over that of the picture, sqrt((1 - a) / a); infinite
   * where the model was trained to begin with nothing of the picture.
   */
  sigmas: Float32Array;
  /** The share of the picture, squared, at each time step of the training. */
  alphasCumprod: Float32Array;
}

/** NCHW, of the noise whatever the model was trained to predict. */
export interface Prediction {
  /** The picture behind the noise. */
  x0: Float32Array;
  /** The noise, with guidance. */
  noise: Float32Array;
  /** The noise as it is seen with the prompt alone. */
  cond: Float32Array;
  /** With the negative prompt alone; none where `guidanceScale` is 1 or less. */
  uncond?: Float32Array;
  attention?: WordMaps;
  activations?: BlockMaps[];
}

/**
 * Where the UNet looks at which token of the prompt: for each latent how much of its attention a token gets, the mean
 * over the heads of all layers outside the UNet's middle whose maps are 8 positions or more a side (where none are, of
 * the finest), brought to the latents' size. At Stable Diffusion's usual sizes that is what DAAM aggregates, but that the
 * interpolation is bilinear.
 */
export interface WordMaps {
  width: number;
  height: number;
  /** The mark before the text, its words, the mark behind it, and all that pads it: at each place they add up to 1. */
  tokens: { kind: 'start' | 'word' | 'end' | 'padding'; text: string; map: Float32Array }[];
}

/** What a block of the UNet makes for the prompt. */
export interface BlockMaps {
  /** As diffusers has it: conv_in, down_blocks.0, ..., mid_block, up_blocks.0, ..., conv_out. */
  name: string;
  channels: number;
  width: number;
  height: number;
  /** Of the GPU, in one run of the network that is timed apart; left out where it cannot tell. Of `generate` alone. */
  milliseconds?: number;
  /** Its first channels, eight at the most. */
  maps: Float32Array[];
}
