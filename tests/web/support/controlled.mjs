// Pipelines with control files, in a page: opened and drawn with as in a cases.json of tests/reference.
/** @typedef {import('playwright-core').Page} Page */
/** @typedef {{ name: string, size: [number, number], [option: string]: any }} Net `name`: of its file in nets/ */

/** @param {Page} page @param {string} at the address of the models, with nets/ and snow.safetensors beside them */
export function controlled(page, at) {
  const open = (/** @type {string} */ kind, load = {}) => page.evaluate(async ({ source, load }) => {
    const { DiffusionPipeline } = await import(`${location.origin}/browser-diffusion.js`);
    await /** @type {any} */ (window).pipeline?.dispose();
    Object.assign(window, { pipeline: await DiffusionPipeline.fromPretrained(source, load) });
  }, { source: `${at}/${kind}`, load });
  /**
   * @param {{ options: any, controlnets: Net[] }} given as in cases.json
   * @returns {Promise<{ latents: number[], parameters: string, message?: string }>}
   */
  const draw = ({ options: { lora, ...options }, controlnets }) =>
    page.evaluate(
      async ({ options, controlnets, lora, at }) => {
        /** `picture` of controlnet.py. @param {number} w @param {number} h */
        const picture = (w, h) => {
          const image = new ImageData(w, h);
          for (let i = 0; i < w * h; i++) {
            const [x, y] = [i % w, Math.floor(i / w)];
            image.data.set([(x * 4) & 255, (y * 6) & 255, (x * y) & 255, 255], 4 * i);
          }
          return image;
        };
        const nets = controlnets.map(({ name, size: [w, h], ...rest }) =>
          ({ source: `${at}/nets/${name}`, image: picture(w, h), ...rest }));
        try {
          const { latents, parameters } = await /** @type {any} */ (window).pipeline.generate({
            ...options,
            output: 'latent',
            ...(nets.length > 0 && { controlnets: nets }),
            ...(lora && { loras: [{ source: `${at}/snow.safetensors`, scale: lora }] }),
          });
          return { latents: latents.flatMap((/** @type {Float32Array} */ l) => [...l]), parameters };
        } catch (error) {
          const { code, message } = /** @type {any} */ (error);
          return { latents: [], parameters: '', message: `${code}: ${message}` };
        }
      },
      { options, controlnets, lora, at },
    );
  return { open, draw };
}
