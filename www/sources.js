/** Where models and the files beside them are: what the caller names, as the engine opens it. */
import { EMBEDDED } from './embedded-model.js';
import { invalid, show } from './errors.js';

export const HUB = 'https://huggingface.co';

/**
 * A source as the engine opens it: a Hub id, "embedded" and "disk:name" as they stand, anything else as an absolute
 * URL; files from disk as `[path, File]`, paths counted from the model's folder.
 * @typedef {{ source: string, embedded: string, addresses?: Record<string, string>, files?: [string, File][] }} Resolved
 *   `embedded`: the address of the embedded model's folder, whose vocabulary serves single files too; `addresses`: where
 *   its files are, if not there
 */

/** The address that relative URLs start from. */
export const base = () => globalThis.document?.baseURI ?? globalThis.location?.href;

/**
 * @param {unknown} source
 * @returns {Promise<Resolved>}
 */
export async function resolveSource(source) {
  /** @type {Omit<Resolved, 'source'>} */
  const own = EMBEDDED;
  if (source instanceof File) return { source: source.name, ...own, files: [[source.name, source]] };
  if (Array.isArray(source) && source.length > 0 && source.every((file) => file instanceof File)) {
    return { source: nameOf(source), ...own, files: source.map((file) => [pathOf(file), file]) };
  }
  if (globalThis.FileSystemDirectoryHandle && source instanceof FileSystemDirectoryHandle) {
    return { source: source.name, ...own, files: await filesIn(source) };
  }
  if (typeof source === 'object' && source && 'embedded' in source) return embeddedIn(source);
  if (typeof source !== 'string') {
    throw invalid(`${show(source)} is not a model source; give a Hub id ("owner/name"), a URL, files or a folder ` +
      'from disk, or "embedded".');
  }
  if (source === 'embedded' && own.addresses && !own.addresses[INDEX]) {
    throw invalid('The embedded model is a package of its own: install browser-diffusion-embedded, and give what it ' +
      'exports instead of "embedded".');
  }
  if (source === 'embedded' || /^disk:./.test(source)) return { source, ...own };
  if (/^(https?:\/|\.{0,2}\/)/.test(source) && URL.canParse(source, base())) {
    return { source: new URL(source, base()).href, ...own };
  }
  if (/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(source)) return { source, ...own };
  throw invalid(`${show(source)} is not a model source; give a Hub id ("owner/name"), a URL (https://..., or ./... ` +
    'beside this page) or "embedded".');
}

const INDEX = 'model_index.json';

/**
 * The embedded model as its own package exports it.
 * @param {{ embedded: unknown, version?: unknown }} model `embedded`: the address of its folder, or those of its files by
 *   their paths
 * @returns {Resolved}
 */
function embeddedIn({ embedded: place, version = '' }) {
  if (typeof place === 'string' && URL.canParse(place, base())) {
    return { source: 'embedded', embedded: new URL(place, base()).href };
  }
  const addresses = /** @type {Record<string, string>} */ (place);
  if (typeof addresses?.[INDEX] !== 'string') {
    throw invalid(`${show(place)} is not what the package browser-diffusion-embedded exports.`);
  }
  // No such address is ever fetched. By it the cache knows the files, whatever a bundler calls them.
  return { source: 'embedded', embedded: `https://embedded.invalid/${version}`, addresses };
}

/**
 * Whether a model is kept in this browser: what comes from disk is there already, and is kept where that is asked for.
 * @param {{ files?: unknown }} source
 * @param {boolean} [wish] the option `cache`
 */
export const keeps = ({ files }, wish = !files) => wish;

/**
 * A file beside the model as the engine takes it. The key tells two picked files of one name apart.
 * @param {unknown} source
 */
export async function addition(source) {
  const spec = await resolveSource(source);
  const marks = spec.files?.map(([path, { size, lastModified }]) => `${path} ${size} ${lastModified}`) ?? [];
  return { ...spec, key: [spec.source, ...marks].join(' ') };
}

/**
 * Words of textual inversion as the engine takes them.
 * @param {{ token: string, source: unknown }[]} [embeddings]
 */
export const resolveEmbeddings = (embeddings = []) =>
  Promise.all(embeddings.map(async ({ token, source }) => ({ ...await addition(source), token })));

/**
 * LoRAs as the engine takes them. `name` is what `<lora:name:weight>` in a prompt calls one; the engine then takes the
 * weight instead of `scale`.
 * @param {{ source: unknown, scale?: number }[]} [loras]
 */
export const resolveLoras = (loras = []) => Promise.all(loras.map(async ({ source, scale = 1 }) => {
  const its = await addition(source);
  return { ...its, name: stem(its), scale };
}));

/** A file's name without its ending. @param {Resolved} file */
function stem({ source, files }) {
  const name = files ? source : unescaped(source.split(/[?#]/)[0].split('/').at(-1) ?? '');
  return name.replace(/\.\w+$/, '');
}

/** @param {string} part of a URL */
function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a % that escapes nothing stands for itself
  }
}

/** A picked file's path within the folder that was picked, or its name. @param {File} file */
const pathOf = (file) => file.webkitRelativePath.split('/').slice(1).join('/') || file.name;

/** What picked files are called: their folder, or the first of them. @param {File[]} files */
const nameOf = ([first]) => first.webkitRelativePath.split('/')[0] || first.name;

/**
 * Every file in a folder and in the folders in it.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} [path]
 * @returns {Promise<[string, File][]>}
 */
async function filesIn(folder, path = '') {
  /** @type {[string, File][]} */
  const files = [];
  for await (const entry of folder.values()) {
    if (entry.kind === 'file') files.push([path + entry.name, await entry.getFile()]);
    else files.push(...await filesIn(entry, `${path}${entry.name}/`));
  }
  return files;
}
