// Circles in a graph of files.

/**
 * Importing file, imported file, the names that are used. What follows a space is a part of the file that counts alone.
 * @typedef {Map<string, Map<string, Set<string>>>} Graph
 */

/** @param {Graph} graph @param {string} from @param {string} to @param {string} name */
export function link(graph, from, to, name) {
  if (from === to) return;
  const targets = graph.get(from) ?? new Map();
  targets.set(to, (targets.get(to) ?? new Set()).add(name));
  graph.set(from, targets);
}

/**
 * Tarjan's strongly connected components of more than one file.
 * @param {Graph} graph
 * @returns {string[][]}
 */
function components(graph) {
  /** @type {Map<string, { index: number, low: number, open: boolean }>} */
  const seen = new Map();
  /** @type {string[]} */
  const stack = [];
  /** @type {string[][]} */
  const found = [];
  /** @param {string} file */
  const visit = file => {
    const own = { index: seen.size, low: seen.size, open: true };
    seen.set(file, own);
    stack.push(file);
    for (const next of graph.get(file)?.keys() ?? []) {
      const other = seen.get(next) ?? visit(next);
      if (other.open) own.low = Math.min(own.low, other.low);
    }
    if (own.low === own.index) {
      const component = stack.splice(stack.indexOf(file));
      for (const each of component) /** @type {{ open: boolean }} */ (seen.get(each)).open = false;
      if (component.length > 1) found.push(component.sort());
    }
    return own;
  };
  for (const file of graph.keys()) if (!seen.has(file)) visit(file);
  return found;
}

/** @param {Graph} graph @returns {string[]} each circle, with the imports that close it and the names that they take */
export function circles(graph) {
  const between = components(graph).filter(nodes => new Set(nodes.map(node => node.split(' ')[0])).size > 1);
  return between.map(files => {
    const imports = files.flatMap(from =>
      [...(graph.get(from) ?? [])]
        .filter(([to]) => files.includes(to))
        .map(([to, names]) => `\n    ${from} -> ${to}: ${[...names].sort().join(', ')}`),
    );
    return `${files.join(', ')}${imports.join('')}`;
  });
}
