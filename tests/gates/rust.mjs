// Rust: which file of src takes names from which.
//
// A file takes a name where a path in its code leads to another file: `use crate::gpu::Plan`, `super::Plan`,
// `plan::record()`. Where a module hands names on (`pub use plan::Plan`), the path leads to the file that defines the
// name. `mod plan;` and such a `pub use` tie nothing: a folder's mod.rs has to name what is in it. Each item that a mod.rs
// defines counts as a file of its own, so that children may share a type of it while another item uses the children; but
// where an item uses a child that uses the item, those are a circle like any other.
import { dirname } from 'node:path/posix';
import { files, read } from './files.mjs';
import { circles, link } from './graph.mjs';

/** @typedef {{ file: string, parent: Module | null, children: Map<string, Module>, items: Set<string>, handed: Map<string, string[]>, globs: string[][], code: string }} Module */

/** Rust without comments, strings, characters and unit tests. @param {string} text */
function bare(text) {
  const quoted = /\/\/.*|\/\*[^]*?\*\/|\bb?r(#*)"[^]*?"\1|b?"(?:[^"\\]|\\[^])*"|b?'(?:[^'\\\n]|\\[^'\n]+|\\')'/g;
  return text
    .replace(quoted, found => (found.startsWith('/') ? ' ' : '""'))
    .replace(/#\[cfg\(test\)\]\nmod \w+ \{\n[^]*?\n\}/g, '');
}

/**
 * The paths of a `use` tree: `a::{b as c, d::*}` is [[a, b], c] and [[a, d, *], *].
 * @param {string} tree @param {string[]} [before]
 * @returns {[string[], string][]} path and the name it gets
 */
function paths(tree, before = []) {
  const text = tree.trim();
  const brace = text.indexOf('{');
  if (brace < 0) {
    const [path, alias] = text.split(/\s+as\s+/);
    const parts = [
      ...before,
      ...path
        .split('::')
        .map(part => part.trim())
        .filter(Boolean),
    ];
    if (parts.at(-1) === 'self') parts.pop();
    return parts.length ? [[parts, alias?.trim() ?? parts[parts.length - 1]]] : [];
  }
  const prefix = [
    ...before,
    ...text
      .slice(0, brace)
      .split('::')
      .map(part => part.trim())
      .filter(Boolean),
  ];
  /** @type {string[]} */
  const inside = [''];
  let depth = 0;
  for (const c of text.slice(brace + 1, text.lastIndexOf('}'))) {
    if (c === '{') depth++;
    if (c === '}') depth--;
    if (c === ',' && depth === 0) inside.push('');
    else inside[inside.length - 1] += c;
  }
  return inside.filter(each => each.trim()).flatMap(each => paths(each, prefix));
}

/** A folder's face: it names what is in the folder, and defines what its files share. @param {string} file */
const isFace = file => /(^|\/)(mod|lib)\.rs$/.test(file);

const USE = /\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);/g;
const MODIFIERS = String.raw`(?:pub(?:\([^)]*\))?\s+)?(?:(?:async|unsafe|default|extern\s*"")\s+)*`;
const KINDS = String.raw`(?:fn|struct|enum|trait|type|union|const(?:\s+fn)?|static|macro_rules!)`;
const ITEM = new RegExp(String.raw`^${MODIFIERS}${KINDS}\s+(\w+)`, 'gm');

/** @returns {{ crate: Module, all: Module[] }} */
function modules() {
  /** @type {Module[]} */
  const all = [];
  /** @param {string} file @param {Module | null} parent @returns {Module} */
  const open = (file, parent) => {
    const code = bare(read(file));
    /** @type {Module} */
    const module = { file, parent, children: new Map(), items: new Set(), handed: new Map(), globs: [], code };
    all.push(module);
    for (const [, name] of code.matchAll(ITEM)) module.items.add(name);
    const folder = isFace(file) ? dirname(file) : file.slice(0, -3);
    for (const [, name] of code.matchAll(/^(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);/gm)) {
      const at = [`${folder}/${name}.rs`, `${folder}/${name}/mod.rs`].find(path => sources.has(path));
      if (at) module.children.set(name, open(at, module));
    }
    // A private import is handed on too, to children.
    for (const [, , tree] of code.matchAll(USE)) {
      for (const [path, name] of paths(tree)) {
        if (path.at(-1) === '*') module.globs.push(path.slice(0, -1));
        else module.handed.set(name, path);
      }
    }
    return module;
  };
  const sources = new Set(files(/^src\/.*\.rs$/));
  return { crate: open('src/lib.rs', null), all };
}

/**
 * Where a path leads.
 * @param {Module} from @param {Module} crate @param {string[]} path @param {number} [depth]
 * @returns {{ module: Module, name: string } | null} the file, and what is taken of it ('' for the module as a whole)
 */
function lead(from, crate, path, depth = 0) {
  if (depth > 20) return null;
  const [first, ...rest] = path;
  if (first === 'crate') return within(crate, crate, rest, depth);
  if (first === 'self') return within(from, crate, rest, depth);
  if (first === 'super')
    return (
      from.parent &&
      (rest[0] === 'super' ? lead(from.parent, crate, rest, depth) : within(from.parent, crate, rest, depth))
    );
  const child = from.children.get(first);
  if (child) return within(child, crate, rest, depth);
  const alias = from.handed.get(first);
  return alias && alias.join() !== path.join() ? lead(from, crate, [...alias, ...rest], depth + 1) : null;
}

/** @param {Module} module @param {Module} crate @param {string[]} path @param {number} depth @returns {{ module: Module, name: string } | null} */
function within(module, crate, path, depth) {
  const [first, ...rest] = path;
  if (!first || first === '*') return { module, name: first ?? '' };
  const child = module.children.get(first);
  if (child) return within(child, crate, rest, depth);
  if (module.items.has(first)) return { module, name: first };
  const handed = module.handed.get(first);
  if (handed) {
    const found = lead(module, crate, [...handed, ...rest], depth + 1);
    if (found) return found;
  }
  for (const glob of module.globs) {
    const target = lead(module, crate, [...glob, ...path], depth + 1);
    if (target?.module.items.has(first)) return target;
  }
  return { module, name: first };
}

/**
 * The nodes of a file: a mod.rs is as many as it has items, any other file is one.
 * @param {Module} module @returns {[string, string][]} name and code
 */
function nodes({ file, items, code }) {
  const rest = code.replace(USE, '');
  if (!isFace(file)) return [[file, rest]];
  return rest.split(/\n(?=[a-z#])/).map(chunk => {
    const item =
      new RegExp(ITEM).exec(chunk)?.[1] ??
      /^(?:unsafe )?impl\b.*?(\w+)(?:<[^{]*>)? (?:where|\{)/.exec(chunk)?.[1] ??
      '';
    return [items.has(item) ? `${file} ${item}` : file, chunk];
  });
}

/** @returns {string[]} circles of the files of src */
export function moduleCircles() {
  const { crate, all } = modules();
  /** @type {import('./graph.mjs').Graph} */
  const graph = new Map();
  for (const from of all) {
    const uses = [...from.code.matchAll(USE)].flatMap(([, , tree]) => paths(tree));
    for (const [node, code] of nodes(from)) {
      const words = new Set(code.match(/\w+/g));
      /** @param {string[]} path */
      const take = path => {
        const found = lead(from, crate, path);
        if (!found) return;
        const {
          module: { file, items },
          name,
        } = found;
        link(graph, node, isFace(file) && items.has(name) ? `${file} ${name}` : file, name || 'itself');
      };
      // A whole module is imported for what follows its name, which is read below.
      for (const [path, name] of uses) if (words.has(name) && lead(from, crate, path)?.name !== '') take(path);
      for (const [path] of code.matchAll(/\b[a-z_]\w*(?:::\w+)+/g)) take(path.split('::'));
      if (!isFace(from.file)) continue;
      // A small letter begins a function's name, which a variable may bear as well.
      const named = (/** @type {string} */ item) =>
        /^[A-Z]/.test(item) ? words.has(item) : new RegExp(`(?<![.\\w])${item}(\\(|::<)`).test(code);
      for (const item of from.items) if (named(item)) link(graph, node, `${from.file} ${item}`, item);
    }
  }
  return circles(graph);
}
