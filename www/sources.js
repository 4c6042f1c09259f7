/** Where models and the files beside them are: what the caller names, as the engine opens it. */
import { invalid, show } from './errors.js';

export const HUB = 'https://huggingface.co';
const EMBEDDED_URL = new URL('./embedded/', import.meta.url).href;

/**
 * A source as the engine opens it: a Hub id, "embedded" and "disk:name" as they stand, anything else as an absolute
 * URL; files from disk as `[path, File]`, paths counted from the model's folder.
 * @typedef {{ source: string, embedded: string, files?: [string, File][] }} Resolved `embedded`: the address of the
 *   embedded model's folder, whose vocabulary serves single files too
 */

/** The address that relative URLs start from. */
export const base = () => globalThis.document?.baseURI ?? globalThis.location?.href;

/**
 * @param {unknown} source
 * @returns {Promise<Resolved>}
 */
export async function resolveSource(source) {
  const embedded = EMBEDDED_URL;
  if (source instanceof File) return { source: source.name, embedded, files: [[source.name, source]] };
  if (Array.isArray(source) && source.length > 0 && source.every((file) => file instanceof File)) {
    return { source: nameOf(source), embedded, files: source.map((file) => [pathOf(file), file]) };
  }
  if (globalThis.FileSystemDirectoryHandle && source instanceof FileSystemDirectoryHandle) {
    return { source: source.name, embedded, files: await filesIn(source) };
  }
  if (typeof source !== 'string') {
    throw invalid(`${show(source)} is not a model source; give a Hub id ("owner/name"), a URL, files or a folder ` +
      'from disk, or "embedded".');
  }
  if (source === 'embedded' || /^disk:./.test(source)) return { source, embedded };
  if (/^(https?:\/|\.{0,2}\/)/.test(source) && URL.canParse(source, base())) {
    return { source: new URL(source, base()).href, embedded };
  }
  if (/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(source)) return { source, embedded };
  throw invalid(`${show(source)} is not a model source; give a Hub id ("owner/name"), a URL (https://..., or ./... ` +
    'beside this page) or "embedded".');
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
