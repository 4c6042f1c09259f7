// JavaScript, read by acorn: who imports whom, and how long functions are.
import { dirname, join } from 'node:path/posix';
import { parse } from '../web/node_modules/acorn/dist/acorn.mjs';
import { files, read } from './files.mjs';
import { circles, link } from './graph.mjs';

const LINES = 100;

/** Functions that may be longer, as "file function", and why. @type {Record<string, string>} */
const LONG = {};

/** @typedef {{ type: string, loc: { start: { line: number }, end: { line: number } }, [key: string]: any }} Node */

/** @param {string} path @param {(node: Node, parent: Node | null) => void} visit each node, a parent before its children */
function walk(path, visit) {
  /** @param {any} value @param {Node | null} parent */
  const into = (value, parent) => {
    if (Array.isArray(value)) return value.forEach(each => into(each, parent));
    if (typeof value?.type !== 'string') return;
    visit(value, parent);
    for (const key of Object.keys(value)) if (typeof value[key] === 'object') into(value[key], value);
  };
  into(parse(read(path), { ecmaVersion: 'latest', sourceType: 'module', locations: true, allowHashBang: true }), null);
}

/** @returns {string[]} circles of the page's modules: of what runs, since a type that JSDoc imports is not there at run time */
export function importCircles() {
  /** @type {import('./graph.mjs').Graph} */
  const graph = new Map();
  for (const path of files(/^www\/.*\.js$/)) {
    walk(path, node => {
      const source = /^(Import(Declaration|Expression)|Export(Named|All)Declaration)$/.test(node.type)
        ? node.source?.value
        : undefined;
      if (!source?.startsWith('.')) return;
      const names = (node.specifiers ?? []).map(
        (/** @type {Node} */ s) => s.imported?.name ?? s.local?.name ?? 'default',
      );
      for (const name of names.length ? names : ['*']) link(graph, path, join(dirname(path), source), name);
    });
  }
  return circles(graph);
}

/**
 * Functions of more than 100 lines, but for empty lines and comments, as Clippy counts Rust's. Of the tests' files only
 * helpers and benches are held to it: what `test` is given is a list of steps, not a function that anyone calls.
 * @returns {string[]}
 */
export function longFunctions() {
  /** @type {string[]} */
  const found = [];
  for (const path of files(/^(www|tests\/gates|tests\/web\/(support|bench))\/.*\.m?js$/)) {
    const lines = read(path).split('\n');
    walk(path, (node, parent) => {
      if (!/Function/.test(node.type)) return;
      const body = lines.slice(node.loc.start.line - 1, node.loc.end.line);
      const count = body.filter(line => line.trim() && !/^\s*(\/\/|\/?\*)/.test(line)).length;
      const name = node.id?.name ?? parent?.key?.name ?? parent?.id?.name ?? `at line ${node.loc.start.line}`;
      if (count > LINES && !(`${path} ${name}` in LONG)) {
        found.push(`${path}:${node.loc.start.line}: ${name} has ${count} lines, of at most ${LINES}`);
      }
    });
  }
  return found;
}
