/**
 * Stable Diffusion in a browser tab, on the visitor's own GPU. Names follow diffusers (in camelCase) and
 * transformers.js.
 *
 * ```js
 * import { DiffusionPipeline } from 'https://.../browser-diffusion.js';
 * const pipeline = await DiffusionPipeline.fromPretrained('embedded');
 * const { images } = await pipeline.generate({ prompt: 'a red apple' });
 * document.body.append(Object.assign(new Image(), { src: URL.createObjectURL(await images[0].toBlob()) }));
 * ```
 *
 * @module
 */

import type { ControlNet } from './controls.js';
import type { IpAdapter } from './ip-adapter.js';
import type { BlockMaps, NoiseSchedule, Prediction, PromptView, WordMaps } from './parts.js';

export { canny, softedge } from './controls.js';
export type { BlockMaps, ControlNet, IpAdapter, NoiseSchedule, Prediction, PromptView, WordMaps };

/** What {@link detect} found. */
export interface Detection {
  /** Whether a GPU can be used. */
  webgpu: boolean;
  /** Why not, in words a visitor understands. */
  reason?: string;
  /** The GPU; `fallback` means that it is done in software. */
  adapter?: { vendor: string; architecture: string; description: string; fallback: boolean };
  /** Arithmetic in f16. Without it the same models run, in f32. */
  shaderF16?: boolean;
  subgroups?: boolean;
  /** Bytes. */
  maxBufferSize?: number; maxStorageBufferBindingSize?: number;
}

/** What this browser and GPU can do; never throws, downloads nothing. */
export function detect(): Promise<Detection>;

/**
 * A Hub id ("owner/name"), a URL of a diffusers folder or of one checkpoint file (.safetensors, .ckpt), File objects or
 * a directory handle from the visitor's disk, "disk:name" for such that were kept with `cache: true`, or "embedded"
 * (the model that ships with the page), or what the package browser-diffusion-embedded exports. One File is a checkpoint
 * file; several are a diffusers folder.
 */
export type ModelSource = string | File | File[] | FileSystemDirectoryHandle | EmbeddedModel;

/** The embedded model, from a package of its own: the address of its folder, or the addresses of its files by their paths. */
export interface EmbeddedModel {
  embedded: string | Record<string, string>;
  /** What tells it from another version of it in the cache. */
  version?: string;
}

export interface LoadOptions {
  /** Hub revision, default "main". */
  revision?: string;
  /** "fp16" takes unet/diffusion_pytorch_model.fp16.safetensors and so on. */
  variant?: string;
  /** Hub base URL, so that a mirror can stand in. */
  hub?: string;
  /** An access token for gated models. Sent to the Hub's origin alone, not to where it redirects; never stored. */
  token?: string;
  /**
   * Keep the model in this browser (IndexedDB), default true, but for files from disk, which then load as "disk:name".
   */
  cache?: boolean;
  /**
   * How the UNet's weights lie in GPU memory, default "f16". "q8" and "q4" quantise them in blocks while they arrive,
   * to 9 and 5 bits each; text encoders then take 9, as attention does with "q4", and the VAE stays f16. "q8" draws
   * nearly the same, "q4" much the same.
   */
  weights?: 'f16' | 'q8' | 'q4';
  /** Arithmetic; "auto", the default, is what the self-test of this GPU allows. */
  precision?: 'auto' | 'f16' | 'f32';
  /**
   * "low" keeps one of text encoder, UNet and VAE on the GPU at a time and streams the others again from the cache (or,
   * with `cache: false`, from the network) when their turn comes; `preview: "full"` is then as "fast". "resident" keeps
   * all. "auto", the default, is "low" where the weights together are more than twice the GPU's largest buffer.
   */
  memory?: 'auto' | 'resident' | 'low';
  /** What the model predicts, where its files cannot say it (one file of SD 1.x), or say it wrongly; EDM's as its classes. */
  predictionType?: 'epsilon' | 'v_prediction' | 'sample';
  /** Whether its noise ends at zero terminal SNR (diffusers' name), where its files do not say so. */
  rescaleBetasZeroSnr?: boolean;
  /**
   * The VAE of this source instead of the model's own: an AutoencoderKL or AutoencoderTiny, alone or in a whole model.
   */
  vae?: ModelSource;
  /**
   * The small decoder (AutoencoderTiny) that `preview: "tiny"` shows steps with, fetched when it is first used.
   * Default: "madebyollin/taesd", for SDXL "madebyollin/taesdxl".
   */
  tinyVae?: ModelSource;
  /** Stops loading; what was fetched by then stays in the cache. */
  signal?: AbortSignal;
  onProgress?(progress: Progress): void;
}

/** transformers.js's payload. */
export interface Progress {
  status: 'initiate' | 'download' | 'progress' | 'done' | 'ready';
  /** The model. */
  name?: string;
  file?: string;
  /** Bytes of this file. */
  loaded?: number;
  /** Bytes of this file. */
  total?: number;
  /** Per cent of this file, 0..100. */
  progress?: number;
  fromCache?: boolean;
}

export interface Model {
  name: string;
  kind: 'sd1' | 'sd2' | 'sdxl';
  inpainting: boolean;
  /** It edits `image` as the prompt says, which it is given at every step. */
  instructPix2Pix: boolean;
  /** It is SDXL's refiner, which draws the last steps of a picture. */
  refiner: boolean;
  /** Width and height in pixels that the model was trained for. */
  defaultSize: number;
  /** Of latents, and pixels to one of them each way. */
  latentChannels: number;
  latentScale: number;
  /** How many weights it has. */
  parameters: number;
  /** Steps and guidance where `generate` is given none. */
  numInferenceSteps: number;
  guidanceScale: number;
  /** Its own sampler, by the name that `scheduler` has for it. */
  scheduler?: string;
  /** Tensors that are f32 on the GPU, since f16 does not hold all their values ("unet/conv_in.weight"); mostly none. */
  f32Tensors: string[];
  sha256?: string;
}

/** What the GPU and WebAssembly hold, in bytes. */
export interface MemoryReport {
  /** GPU buffers held now. */
  weights: number;
  activations: number;
  staging: number;
  /** The most that was held on the GPU at once. */
  peak: number;
  /** The largest storage-buffer binding made so far. */
  largestBinding: number;
  /**
   * Of weights, written to the GPU since the model was loaded. Over q8 and q4 LoRAs add their own, over f16 nothing.
   */
  uploaded: number;
  /** WebAssembly's memory, which never shrinks. */
  wasm: number;
}

/**
 * A model on the GPU, ready to draw. Calls on one pipeline wait for each other. Where the GPU is lost, what runs rejects
 * with "device-lost"; where its page is left, with "aborted". The next call loads the model again, from the cache where
 * it is kept; `onProgress` of its loading tells of that.
 */
export class DiffusionPipeline {
  private constructor();

  /** Fetches a model (from the cache, where it is there) and puts it on the GPU. */
  static fromPretrained(source: ModelSource, options?: LoadOptions): Promise<DiffusionPipeline>;

  /**
   * The names that `scheduler` takes: samplers (ddpm ddim ddim_cfgpp pndm euler euler_a heun lms dpm2 dpm2_a dpmpp_2s
   * dpmpp_2s_a dpmpp_2m dpmpp_sde dpmpp_2m_sde dpmpp_3m_sde dpm_fast dpm_adaptive restart unipc deis ipndm er_sde lcm
   * tcd), and all but pndm, dpm_fast and dpm_adaptive with a schedule behind (karras exponential polyexponential
   * sgm_uniform simple normal ddim_uniform beta kl_optimal align_your_steps).
   */
  static get schedulers(): string[];

  /** What was loaded. */
  get model(): Readonly<Model>;

  /** Draws. */
  generate(options: GenerateOptions): Promise<GenerateResult>;

  /**
   * A picture's latents: the mean that the VAE gives, as the UNet has them. The picture is scaled to fill the size that is
   * asked for (the model's own), and cut. This and what follows are the parts of drawing, alone; latents are NCHW of one
   * picture: `model.latentChannels` of height by width over `model.latentScale`.
   */
  encode(image: ImageSource, options?: PartOptions): Promise<Float32Array>;

  /** The picture of latents, which are of the model's own size unless another is said. */
  decode(latents: Float32Array, options?: PartOptions): Promise<GeneratedImage>;

  /** What `generate` with this seed and size starts from: of deviation 1, as `latents` of `generate` takes it. */
  noise(seed: number, options?: Pick<GenerateOptions, 'width' | 'height' | 'rng'>): Promise<Float32Array>;

  /** The noise levels of a sampler (as `scheduler`; left out: the model's own) of so many steps. */
  schedule(scheduler?: string, numInferenceSteps?: number): Promise<NoiseSchedule>;

  /**
   * diffusers' `add_noise`: sqrt(a) of `latents` and sqrt(1 - a) of `noise`, a being `alphasCumprod` at `timestep`, 0 to
   * 999; between two time steps the noise level's logarithm is interpolated.
   */
  addNoise(latents: Float32Array, noise: Float32Array, timestep: number): Promise<Float32Array>;

  /** What the model sees in latents that are as noisy as {@link addNoise} makes them. */
  predict(options: PredictOptions): Promise<Prediction>;

  /** How the model reads a prompt, token by token, at the first step. */
  tokenize(prompt: string, options?: Pick<GenerateOptions, 'promptSyntax' | 'embeddings'>): Promise<PromptView>;

  /** GPU bytes held now and at the peak, by kind (weights, activations, staging), and wasm heap bytes. */
  memory(): Promise<MemoryReport>;

  /** Which variants of the kernels draw here, and where that choice comes from. */
  tuning(): Promise<Tuning>;

  /**
   * Times the variants of the kernels on this GPU, for about so long (10,000 ms), and draws with the fastest from now
   * on; never with slower ones than before. The choice is kept for later visits. Large models do this while they load,
   * for three seconds a visit until all is timed, and for ten after a picture, for the next visit.
   */
  tune(options?: { milliseconds?: number }): Promise<Tuning>;

  /** Frees every GPU buffer. What still runs rejects with "aborted"; the pipeline cannot be used any more. */
  dispose(): Promise<void>;
}

export type PartOptions = Pick<GenerateOptions, 'width' | 'height' | 'signal'>;

export interface PredictOptions extends PartOptions, Pick<GenerateOptions, 'negativePrompt' | 'guidanceScale'
  | 'guidanceRescale' | 'promptSyntax' | 'clipSkip' | 'loras' | 'embeddings'> {
  /** Of one picture, as noisy as `timestep` says. */
  latents: Float32Array;
  /** 0 to 999. */
  timestep: number;
  prompt: string;
  /** To give what {@link Prediction} has under these names. */
  attention?: boolean;
  activations?: boolean;
}

/** A choice of kernels' variants. */
export interface Tuning {
  /** Adapter, variant and hash of the kernels. */
  key: string;
  /** The variant of each class of shapes; "-": not timed yet, and as the engine chooses by itself. */
  text: string;
  /** "shipped" with the engine, "kept" from an earlier visit, or "timed" in this one. */
  origin: 'shipped' | 'kept' | 'timed';
}

/** A network that enlarges pictures: RRDBNet of ESRGAN and Real-ESRGAN, .pth or .safetensors. */
export class Upscaler {
  private constructor();

  /**
   * @param source the address of a file, or a file from the visitor's disk
   * @param options as those of {@link DiffusionPipeline.fromPretrained}
   */
  static fromPretrained(
    source: string | File,
    options?: Pick<LoadOptions, 'cache' | 'precision' | 'signal' | 'onProgress'>,
  ): Promise<Upscaler>;

  /** How many times as large pictures become, each way. */
  get scale(): number;

  /** Enlarges a picture, large ones in tiles without seams; `onProgress` hears of each. */
  upscale(
    image: ImageSource,
    options?: { signal?: AbortSignal; onProgress?(progress: { done: number; total: number }): void },
  ): Promise<GeneratedImage>;

  /** Frees every GPU buffer. */
  dispose(): Promise<void>;
}

export interface GenerateOptions {
  prompt: string;
  negativePrompt?: string;
  /** Pixels, multiples of 8; default `model.defaultSize`. */
  width?: number; height?: number;
  numInferenceSteps?: number;
  /** As in diffusers: 1 or less is without guidance. */
  guidanceScale?: number;
  /**
   * Of an InstructPix2Pix model: how strictly `image` is kept, default 1.5. The prediction is that without prompt and
   * picture, so much of what the picture adds, and `guidanceScale` times what the prompt adds; as in AUTOMATIC1111 below
   * 1 too, and with 1 a third less work. Without guidance it does not act. Other models do not look at it.
   */
  imageGuidanceScale?: number;
  /**
   * Ensemble of experts, as in diffusers: the drawing ends when this share of the denoising is done (0.8). With `output:
   * 'latent'` its latents, all of them one behind the other, are what SDXL's refiner goes on from.
   */
  denoisingEnd?: number;
  /** It goes on there with `latents`, by the same sampler, steps and size. */
  denoisingStart?: number;
  /** Of SDXL's refiner: the score that its training gave pictures such as are wanted (6), and are not (2.5). */
  aestheticScore?: number;
  negativeAestheticScore?: number;
  /** As in diffusers, 0..1. */
  guidanceRescale?: number;
  /**
   * Shares of the steps between which guidance acts, such as [0, 0.8] (default: [0, 1]): in the others the UNet sees
   * the prompt alone, which is half the work.
   */
  guidanceInterval?: [number, number];
  /**
   * Fewer runs of the whole UNet (DeepCache, Ma et al. 2023): it runs at one of `interval` steps (default 3), and at the
   * others its outer layers alone, over the deep features of the last whole run. `branch` (default 0, the outermost
   * layer) is how far down these go. Twice as fast or more; fine details differ. Left out: the whole UNet at every step.
   */
  deepCache?: { interval?: number; branch?: number };
  /**
   * One of {@link DiffusionPipeline.schedulers}, such as "dpmpp_2m_karras"; default: the checkpoint's own. The same is
   * understood in A1111's words ("DPM++ 2M Karras") and as a class of diffusers ("DPMSolverMultistepScheduler"). SDE
   * samplers take their noise from k-diffusion's Brownian tree of the seed, which does not depend on the steps.
   */
  scheduler?: string;
  /**
   * Fresh noise of samplers that have it, 0..1: default 1 for ancestral and SDE samplers, 0 for DDIM, TCD, DPM fast.
   */
  eta?: number;
  /** Noise added before the steps of Euler, Heun and DPM2, default 0, between the levels `sTmin` and `sTmax`. */
  sChurn?: number;
  sTmin?: number; sTmax?: number;
  /** What the noise of these, of ancestral and of SDE samplers is multiplied with, default 1. */
  sNoise?: number;
  /** Default: random, and reported. */
  seed?: number;
  /** Which torch generator the seed reproduces: the CPU's, the default, or that of NVIDIA's GPUs (A1111's "NV"). */
  rng?: 'torch-cpu' | 'torch-cuda';
  /**
   * Each picture of `numImages` has its own generator, of `seed`, `seed + 1` and so on, as in AUTOMATIC1111 and as
   * diffusers does with a list of generators. Default false: all draw from one, as diffusers does with one.
   */
  generatorPerImage?: boolean;
  /** A1111's: noise of another seed, which pictures count up, and how far to go towards it, 0 (default) to 1. */
  variationSeed?: number; variationStrength?: number;
  /** A1111's "seed resize from": width and height in pixels at which the seed's picture is known. */
  seedResizeFrom?: [number, number];
  /** A1111's ENSD: noise after the first (of Euler a, DDIM with eta ...) is of the seed and this added. Default 0. */
  etaNoiseSeedDelta?: number;
  numImages?: number;
  /** NCHW initial noise, unscaled, instead of the seed's; with `denoisingStart` the sample to go on from. */
  latents?: Float32Array;
  promptEmbeds?: Float32Array; negativePromptEmbeds?: Float32Array;
  /** A picture to start from; scaled and cut to width x height. */
  image?: ImageSource;
  /**
   * How much of `image` is redrawn, 0 to 1, as in diffusers: so much of the steps is run. Default 0.8, with a mask 1. An
   * InstructPix2Pix model's is 1, which draws anew, beside the picture; SDXL's refiner's 0.3.
   */
  strength?: number;
  /**
   * Which steps `strength` leaves of `numInferenceSteps`. "diffusers", the default: int(steps * strength). "a1111":
   * int(min(strength, 0.999) * steps) + 1. "exact": as many as asked for, the last ones of a finer schedule, as A1111
   * does where it is told to "do exactly the amount of steps", and ComfyUI.
   */
  strengthSteps?: 'diffusers' | 'a1111' | 'exact';
  /** Inpainting: white where `image` is redrawn; elsewhere every pixel stays as it is. */
  maskImage?: ImageSource;
  /** Pixels (sigma) by which the mask is blurred, so that new fades into old. Default 0: a sharp edge. A1111's is 4. */
  maskBlur?: number;
  /** Redraw what is black in `maskImage`. */
  invertMask?: boolean;
  /**
   * What lies under the mask before it is redrawn, as in AUTOMATIC1111: the colours around it, the picture, noise or
   * zeros in the latents. Left out, it is as in diffusers: the picture, and with `strength` 1 noise alone.
   */
  maskedContent?: 'fill' | 'original' | 'noise' | 'nothing';
  /**
   * "masked": only the rectangle around the mask is drawn, at `width` x `height`, and put back at its size: fine detail
   * in large pictures. `image` then keeps its own size. Default "whole".
   */
  inpaintArea?: 'whole' | 'masked';
  /** Pixels around the mask that "masked" shows the model too; default 32. */
  maskPadding?: number;
  /**
   * Extends `image` by so many pixels, multiples of 8, and draws them; no `maskImage`. `width` and `height` are then
   * those of `image` before (default: its own), and with the margins must be multiples of 8.
   */
  outpaint?: { left?: number; right?: number; top?: number; bottom?: number };
  /**
   * Hires fix: what is drawn at `width` x `height` is enlarged and drawn over once more. The size is `scale` times the
   * first (default 2), or `width` and `height`. `upscaler`: the latents, bilinear ("latent", the default), nearest or
   * bicubic, the "picture", Lanczos, or the picture by an {@link Upscaler}, scaled to the size. `steps`: default as the
   * first pass; `strength`: default 0.7, as in AUTOMATIC1111.
   */
  hires?: {
    scale?: number; width?: number; height?: number;
    upscaler?: 'latent' | 'latent-nearest' | 'latent-bicubic' | 'picture' | Upscaler;
    steps?: number; strength?: number;
  };
  /** ControlNets, several at once: their results are added up, as diffusers' `MultiControlNetModel` does. */
  controlnets?: ControlNet[];
  /**
   * As in diffusers: ControlNets act with the prompt only, not with the negative one, and the less the finer the layer,
   * so that a picture can be drawn without words. `guidanceScale` 3 to 5 suits it.
   */
  guessMode?: boolean;
  /** IP-Adapters: pictures whose subject or style is drawn. What several see is added up, as in diffusers. */
  ipAdapters?: IpAdapter[];
  /**
   * LoRA, LoCon, LoHa, LoKr, DoRA, GLoRA, OFT and BOFT (LyCORIS', kohya's) and full difference files; scale 1 where none
   * is given. With `promptSyntax` "a1111" or "comfy", `<lora:name:weight>` in the prompt sets the scale of the one whose
   * file is called so, and as A1111 has it, `<lora:name:te:unet>`, `te=`, `unet=` and `<lyco:...>`; named twice, it acts
   * twice, as the last says. Embeddings in a file (`bundle_emb`) are words of the prompts while it acts. They are merged
   * into f16 weights; over q8 and q4 LoRA and LoCon are added as the layers run, and a layer that another format touches
   * takes f16's memory.
   */
  loras?: { source: ModelSource; scale?: number }[];
  /** Textual inversion: words of the prompts that stand for what these files (.safetensors, .bin, .pt, .png) hold. */
  embeddings?: { token: string; source: ModelSource }[];
  /**
   * Layers of the text encoder left out at its end, as in diffusers: 1 is what AUTOMATIC1111 calls clip skip 2. As
   * there, the negative prompt takes all layers with `promptSyntax` "plain".
   */
  clipSkip?: number;
  /**
   * How both prompts are read. "plain", the default, is diffusers' way: every sign is text, what is over 77 tokens is
   * cut. "a1111": AUTOMATIC1111's language (`(x)`, `[x]`, `(x:1.2)`, `[a:b:when]`, `[a|b]`, `AND`, `BREAK`), any length.
   * "comfy" is the same with ComfyUI's meaning of the weights.
   */
  promptSyntax?: 'plain' | 'a1111' | 'comfy';
  /**
   * What `onStep` gets to see: nothing, a linear guess from the latents, a small decoder's picture (`tinyVae` of
   * `fromPretrained`), or the VAE's. Default "fast" where there is an `onStep`.
   */
  preview?: 'none' | 'fast' | 'tiny' | 'full';
  /** "latent" leaves the VAE out. */
  output?: 'image' | 'latent';
  /**
   * What `onStep` gets to see of the network: what guidance is made of, where it looks at which word, what its blocks
   * make. The last two do not go with `deepCache`. Without `onStep`, nothing; what is not asked for costs nothing.
   */
  inside?: { guidance?: boolean; attention?: boolean; activations?: boolean };
  onStep?(step: Step): void;
  /** Honoured between steps; the pipeline stays usable. */
  signal?: AbortSignal;
}

/** A picture as the DOM has it; a string is an address. */
export type ImageSource = string | Blob | ImageData | ImageBitmap | HTMLImageElement | HTMLCanvasElement
  | OffscreenCanvas | GeneratedImage;

/** One step of denoising, done. */
export interface Step {
  /** 1-based. */
  step: number;
  total: number;
  /** The model's time, from 999 (all noise) down to 0. */
  timestep: number;
  /** How much noise stands against one unit of picture. */
  sigma: number;
  preview?: ImageBitmap;
  /** The latents after this step, NCHW. */
  latents?(): Promise<Float32Array>;
  /** What the model takes the finished latents to be, NCHW. */
  x0?(): Promise<Float32Array>;
  /**
   * With `inside.guidance`, of the step's first prediction: what the UNet was given (of unit spread), and as
   * {@link Prediction} has them the noise with guidance, with the prompt alone, and with the negative prompt alone, which
   * a step without guidance does not have. NCHW, all pictures.
   */
  input?(): Promise<Float32Array>;
  noise?(): Promise<Float32Array>;
  cond?(): Promise<Float32Array>;
  uncond?(): Promise<Float32Array>;
  /** And of the first picture, what the UNet was given and what it takes the picture to be, as `preview` "fast" has it. */
  colours?(): Promise<Record<'input' | 'x0', { width: number; height: number; data: Uint8ClampedArray<ArrayBuffer> }>>;
  /** With `inside.attention` and `inside.activations`, of the first picture. */
  attention?(): Promise<WordMaps>;
  activations?(): Promise<BlockMaps[]>;
}

export interface GenerateResult {
  /** One per picture; empty with output "latent". */
  images: GeneratedImage[];
  /** One per picture, NCHW, scaled as the VAE expects. */
  latents: Float32Array[];
  seed: number;
  /** The AUTOMATIC1111 "parameters" text, of the first picture; each PNG carries its own. */
  parameters: string;
  /** The ends of prompt and negative prompt that the text encoder did not read: beyond its 77 tokens; mostly none. */
  truncated: string[];
  /** Of each LoRA that has some: its tensors that belong to no weight of this model. */
  unmatched: { source: string; keys: string[] }[];
  /** Milliseconds, and what the UNet's last run was made of. */
  timings: { textEncoder: number; steps: number[]; vae: number; total: number; step: StepCounters };
}

/** What one run of the UNet is made of: figures that hold on any GPU. */
export interface StepCounters {
  dispatches: number;
  submits: number;
  /** Bytes of every tensor and weight that a dispatch reads or writes, once a dispatch. */
  bytes: number;
  /** GPU buffers, bind groups and pipelines made since the second step began. */
  created: number;
  /** Milliseconds of the worker to encode and submit it. */
  encodeMs: number;
}

export interface GeneratedImage {
  width: number;
  height: number;
  /** RGBA, row by row from the top, alpha 255. */
  data: Uint8ClampedArray<ArrayBuffer>;
  /** The AUTOMATIC1111 "parameters" text; "" where there is none. */
  readonly parameters: string;
  /**
   * The picture as a file, default PNG. It carries `parameters` as AUTOMATIC1111 writes them: a PNG in a text chunk of
   * that name, JPEG and WebP as Exif's user comment (a JPEG only up to some 32,000 characters).
   */
  toBlob(type?: 'image/png' | 'image/jpeg' | 'image/webp'): Promise<Blob>;
}

/**
 * How a picture was made, from the text in a PNG, JPEG, WebP or AVIF: that of AUTOMATIC1111, Forge, this module and
 * stable-diffusion.cpp, of ComfyUI, SwarmUI, InvokeAI, NovelAI, Fooocus, Easy Diffusion or Draw Things. `options` are such
 * as `generate` takes; what it would refuse is left out, and sizes are cut to multiples of 8. `withImage` is for
 * `generate` too, with the picture that this one was made from as `image`. `parameters` is the text as it was found,
 * `model` the model's name where it was made, and `needs` the files beside it, which A1111's text and ours name without
 * saying where to find them. Without such a text `parameters` is left out and the prompt is empty. A text that is damaged
 * rejects with "invalid-option".
 */
export function readParameters(source: Blob | string): Promise<{
  parameters?: string;
  options: GenerateOptions;
  withImage: Pick<GenerateOptions, 'strength' | 'strengthSteps'>;
  model?: string;
  needs: Needs;
}>;

/** Files beside the model that a picture was drawn with, each called as there. */
export interface Needs {
  /**
   * `name` is the file's name without its ending, as `<lora:name:weight>` in a prompt has it, or for one that no tag
   * named the file or its address. `hash`: the first 12 digits of the SHA-256 of its tensors, where A1111 wrote it.
   */
  loras: { name: string; scale: number; hash?: string }[];
  /**
   * What a {@link ControlNet} takes but for `source` and `image`, which no text has. `module` is the preprocessor by
   * its name there; `preprocess` is left out where this module does not have that one.
   */
  controlnets: (Omit<ControlNet, 'source' | 'image'> & { name: string; module: string })[];
  /** `imageEncoder`: its source, which our own texts have. Left out where there are none. */
  ipAdapters?: { name: string; imageEncoder?: string; scale: number }[];
}

/** The models kept in this browser: what is there, how big, and how to be rid of it. */
export const cache: {
  /**
   * `name` is the source: a Hub id (with `@revision` unless that is "main"), an address, "embedded", "disk:name"; with
   * " (q8)" or " (q4)" behind where the weights are kept quantised, beside or without the others.
   */
  list(): Promise<{ name: string; bytes: number; complete: boolean }[]>;
  delete(name: string): Promise<void>;
  /** Asks the browser not to clear the cache by itself; true if it agreed. */
  persist(): Promise<boolean>;
  /** Bytes. */
  estimate(): Promise<{ usage: number; quota: number }>;
};

export type DiffusionErrorCode = 'webgpu-unavailable' | 'unsupported-model' | 'bad-checkpoint' | 'network' | 'integrity'
  | 'quota' | 'out-of-memory' | 'device-lost' | 'invalid-option' | 'aborted';

/** Every rejection is one of these, with a message that says what to do next. */
export class DiffusionError extends Error {
  constructor(code: DiffusionErrorCode, message: string);
  code: DiffusionErrorCode;
}
