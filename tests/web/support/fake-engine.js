// Stands where wasm-bindgen's pkg/browser_diffusion.js stands, for tests of the module, the worker and the page
// that need no model: what is drawn is known, and prompts and sources call up what seldom happens. A prompt that
// "holds at 5" is drawn as far as its fifth step, and no further until `goOn` of site.mjs says so or it is stopped: what
// a page looks like meanwhile does not depend on how fast a test is.

export default async function init() {}

/** What the fake draws: every level of red, green and blue somewhere. @param {number} width @param {number} height */
function picture(width, height) {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++)
    data.set(
      [i, i * 7 + 1, i * 11 + 2, 255].map(v => v % 256),
      i * 4,
    );
  data.forEach((_, i) => {
    if (i % 4 === 3) data[i] = 255;
  });
  return data;
}

/** A picture that no file makes smaller: 3 bytes a pixel. @param {number} width @param {number} height */
const noisy = (width, height) =>
  picture(width, height).map((v, i) => (i % 4 === 3 ? 255 : Math.floor(Math.random() * 256)));

/** Of the latents of the model that was loaded last: 12 of one of "twelve channels". */
let channels = 4;

/** Latents, all of one value. @param {{ width: number, height: number }} size @param {number} value */
const latentsOf = ({ width, height }, value) => new Float32Array((width / 8) * (height / 8) * channels).fill(value);

/** What is seen of the network, where it is asked for. @param {any} inside @param {any} size */
const seenOf = ({ attention, activations }, { width, height }) => ({
  ...(attention && {
    attention: {
      width: width / 8,
      height: height / 8,
      tokens: ['start', 'word', 'end', 'padding'].map(kind => ({
        kind,
        text: kind === 'word' ? 'word' : '',
        map: new Float32Array((width / 8) * (height / 8)).fill(0.25),
      })),
    },
  }),
  ...(activations && {
    activations: ['conv_in', 'mid_block', 'conv_out'].map((name, i) => ({
      name,
      milliseconds: i + 1,
      channels: 4,
      width: 1,
      height: 1,
      maps: [1, 2, 3, 4].map(v => new Float32Array(1).fill(v)),
    })),
  }),
});

/** What guidance is made of. @param {any} size */
const partsOf = size => ({ noise: latentsOf(size, 4), cond: latentsOf(size, 2), uncond: latentsOf(size, 1) });

/** What a step was given and takes the picture to be. @param {any} size */
const coloursOf = ({ width, height }) => {
  const small = { width: width / 8, height: height / 8, data: picture(width / 8, height / 8) };
  return { colours: { input: small, x0: { ...small, data: small.data.slice() } } };
};

let made = 0;

const tick = () => new Promise(done => setTimeout(done, 20));
const told = new BroadcastChannel('fake engine');
/** @param {AbortSignal} signal */
const goneOn = signal =>
  new Promise(done => {
    told.addEventListener('message', done, { once: true });
    signal.addEventListener('abort', done, { once: true });
  });
/** @param {string} code @param {string} message @returns {never} */
const fail = (code, message) => {
  throw Object.assign(new Error(message), { code });
};

export class Pipeline {
  /** @param {any} spec @param {Function} onProgress @param {AbortSignal} signal */
  static async load(spec, onProgress, signal) {
    if (spec.source.includes('missing')) fail('network', `404 for ${spec.source}. Check the name.`);
    const shut = spec.source.includes('gated') && !spec.token;
    if (shut) fail('network', `${spec.source} is not open to everyone (HTTP 401).`);
    const file = 'unet/diffusion_pytorch_model.safetensors';
    onProgress({ status: 'initiate', name: spec.source, file, total: 4000 });
    for (let loaded = 1000; loaded <= 4000 || spec.source.includes('endless'); loaded += 1000) {
      await tick();
      if (signal.aborted) fail('aborted', 'stopped');
      onProgress({ status: 'progress', name: spec.source, file, loaded, total: 4000, progress: loaded / 40 });
    }
    onProgress({ status: 'ready', name: spec.source });
    channels = spec.source.includes('twelve') ? 12 : 4;
    return Object.assign(new Pipeline(), { spec });
  }

  /** The spec stands in `name`, so that tests see what reached the engine. */
  model() {
    const { spec } = /** @type {any} */ (this);
    const few = spec.source.includes('consistent')
      ? { numInferenceSteps: 4, guidanceScale: 8.5, scheduler: 'lcm' }
      : { numInferenceSteps: 20, guidanceScale: 3, scheduler: 'pndm' };
    const size = { defaultSize: 64, latentChannels: channels, latentScale: 8 };
    const takes = { inpainting: false, instructPix2Pix: spec.source.includes('pix2pix'), refiner: false };
    return { name: JSON.stringify(spec), kind: 'sd1', ...takes, ...size, parameters: 1, ...few };
  }

  tuning() {
    return { key: 'fake||', text: '', origin: 'shipped' };
  }

  lost() {
    return false;
  }
  async tune() {}
  toTune() {
    return false;
  }

  /** @param {any} options @param {Function} onStep @param {AbortSignal} signal */
  async generate(options, onStep, signal) {
    const { prompt, width, height, seed, variationSeed = 0, variationStrength = 0, numImages = 1 } = options;
    const { numInferenceSteps = 4, guidanceScale = 3, scheduler = 'pndm', image, maskImage } = options;
    const { strength = maskImage ? 1 : 0.8 } = options;
    const { imageGuidanceScale = 1.5 } = options;
    const edited = /** @type {any} */ (this).spec.source.includes('pix2pix') && { imageGuidanceScale };
    const start = image && { strength };
    const settled = { width, height, numInferenceSteps, guidanceScale, scheduler, ...start, ...edited };
    const total = numInferenceSteps;
    if (prompt === 'too big') fail('out-of-memory', 'Choose a smaller width and height.');
    const [, code, why] = /^fails with ([\w-]+)(.*)$/.exec(prompt) ?? [];
    if (code) fail(code, `This is the English of ${code}${why}. Do something about it.`);
    if (prompt === 'crash') {
      setTimeout(() => {
        throw new Error('unreachable');
      });
      await new Promise(() => {});
    }
    for (let step = 1; step <= total; step++) {
      await tick();
      if (signal.aborted) fail('aborted', 'stopped');
      made++;
      const preview =
        options.preview === 'none'
          ? undefined
          : {
              width: width / 8,
              height: height / 8,
              data: picture(width / 8, height / 8).map((v, i) => (i % 4 === 3 ? 255 : v + step)),
            };
      onStep({
        step,
        total,
        timestep: 999 - step,
        sigma: total - step,
        preview,
        latents: latentsOf(options, step),
        x0: latentsOf(options, -step),
        ...(options.inside && {
          inside: {
            ...(options.inside.guidance && {
              ...partsOf(options),
              ...coloursOf(options),
              input: latentsOf(options, step - 1),
            }),
            ...seenOf(options.inside, options),
          },
        }),
      });
      if (prompt.endsWith(`holds at ${step}`)) await goneOn(signal);
    }
    /** The seeds that give a picture of the batch alone. @param {number} i */
    const seedsOf = i =>
      variationStrength
        ? { seed, variationSeed: variationSeed + i }
        : { seed: seed + (options.generatorPerImage ? i : 0) };
    const count = options.output === 'latent' ? 0 : numImages;
    const draw = prompt.includes('noisy') ? noisy : picture;
    return {
      // What a prediction that is taken for another kind comes to.
      latents: [latentsOf(options, total).map((v, i) => (prompt === 'glaring' ? (i % 2 ? 20 : -20) : v))],
      images: Array.from({ length: count }, (_, i) => ({ width, height, data: draw(width, height), ...seedsOf(i) })),
      options,
      settled,
      truncated: options.promptSyntax !== 'a1111' && prompt.length > 77 ? [prompt.slice(77)] : [],
      unmatched: (options.loras ?? [])
        .filter((/** @type {any} */ l) => l.source.includes('other'))
        .map((/** @type {any} */ { source }) => ({ source, keys: ['lora_unet_a', 'lora_unet_b'] })),
      seed,
      timings: {
        textEncoder: 1,
        steps: Array(total).fill(20),
        vae: 1,
        total: 20 * total,
        step: { dispatches: 1, submits: 1, bytes: 1, created: 0, encodeMs: 1 },
      },
    };
  }

  /** @param {any} options */
  encode(options) {
    return latentsOf({ width: options.image.width, height: options.image.height }, 0.5);
  }

  /** @param {any} options */
  decode({ width, height }) {
    return { width, height, data: picture(width, height) };
  }

  /** @param {any} options */
  noise(options) {
    return latentsOf(options, 1).map((_, i) => Math.sin((i + 1) * (options.seed + 1)) * 1.4);
  }

  /** DDIM's of a linear schedule, near enough. @param {any} options */
  schedule({ numInferenceSteps = 4 }) {
    const alphasCumprod = Float32Array.from({ length: 1000 }, (_, t) => Math.exp(-t * t / 2e5 - t / 1e4));
    const stride = 999 / numInferenceSteps;
    const timesteps = Float32Array.from({ length: numInferenceSteps }, (_, i) => 999 - Math.floor(stride * i));
    const sigmas = [...timesteps].map(t => Math.sqrt((1 - alphasCumprod[t]) / alphasCumprod[t]));
    return { timesteps, sigmas: new Float32Array([...sigmas, 0]), alphasCumprod };
  }

  /** @param {any} options */
  addNoise({ latents, noise, timestep }) {
    const alpha = this.schedule({}).alphasCumprod[timestep];
    return Float32Array.from(latents, (v, i) => Math.sqrt(alpha) * v + Math.sqrt(1 - alpha) * noise[i]);
  }

  /** @param {any} options */
  predict(options) {
    return { x0: latentsOf(options, -1), ...partsOf(options), ...seenOf(options.inside ?? {}, options) };
  }

  /** Words are tokens here. @param {any} options */
  tokenize({ prompt, promptSyntax = 'plain' }) {
    const words = prompt.split(/\s+/).filter(Boolean);
    const tokens = words.map((/** @type {string} */ text, /** @type {number} */ id) => ({
      text,
      id,
      weight: text.startsWith('(') ? 1.1 : 1,
      chunk: 0,
      cut: id > 74 && promptSyntax === 'plain',
      unknown: /[^\x00-\x7f]/.test(text) && !(/** @type {any} */ (this)).spec.source.includes('bilingual'),
    }));
    return {
      tokens,
      chunks: promptSyntax === 'plain' ? 1 : Math.ceil(tokens.length / 75) || 1,
      room: 75,
      foreign: tokens.length > 0 && tokens.every((/** @type {any} */ t) => t.unknown),
    };
  }

  /** How many steps were made in all. */
  memory() {
    return { steps: made };
  }
  free() {}
}

export async function cacheList() {
  return [{ name: 'embedded', bytes: 4000, complete: true }];
}
/** @param {string} name */
export async function cacheDelete(name) {
  if (name !== 'embedded') fail('invalid-option', `${name} is not kept here.`);
}

/** Every second column is an edge here. @param {any} options */
export async function canny({ image: { width, height } }) {
  return {
    width,
    height,
    data: new Uint8ClampedArray(width * height * 4).map((_, i) => (i % 4 === 3 || (i >> 2) % 2 === 0 ? 255 : 0)),
  };
}

/** All of a picture is one line here. @param {any} options */
export async function softedge({ image: { width, height } }) {
  return { width, height, data: new Uint8ClampedArray(width * height * 4).fill(255) };
}

/** The worker imports it; no test of the fake engine enlarges. */
export class Upscaler {}

export class Trainer {}
export class DoodleTrainer {}
