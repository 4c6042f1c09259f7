// Lines: how long they are, and how many stand in a file.
import { files, read } from './files.mjs';

const COLUMNS = 120;
const LINES = 600;

/** Where a code line may be longer, and why. @type {Record<string, string>} */
const WIDE = {};

/** Files that may be longer, and why. @type {Record<string, string>} */
const LONG = {};

/** Files with a limit of their own. @type {Record<string, number>} */
const LIMITS = { 'www/app.js': 350, 'README.md': 120, 'README.zh.md': 120, 'docs/architecture.md': 100 };

const CODE = /^(src|shaders|www|tests)\/.*\.(rs|wgsl|js|mjs|ts)$/;

/** A line that holds nothing but a comment. */
const COMMENT = /^\s*(\/\/|\/?\*)/;

/** @returns {string[]} code lines that are too long: rustfmt leaves the statement around one as it is, and says nothing */
export function columns() {
  return files(CODE)
    .filter(path => !(path in WIDE))
    .flatMap(path =>
      read(path)
        .split('\n')
        .flatMap((line, at) => {
          const { length } = [...line];
          return length > COLUMNS && !COMMENT.test(line)
            ? [`${path}:${at + 1}: ${length} columns, of at most ${COLUMNS}`]
            : [];
        }),
    );
}

/** @returns {string[]} files that are too long to be one thing */
export function sizes() {
  return files(/./)
    .filter(path => path in LIMITS || (CODE.test(path) && !(path in LONG)))
    .flatMap(path => {
      const [count, limit] = [read(path).split('\n').length - 1, LIMITS[path] ?? LINES];
      return count > limit ? [`${path}: ${count} lines, of at most ${limit}`] : [];
    });
}

/** @returns {string[]} exceptions that are none any more */
export function stale() {
  const known = new Set(files(/./));
  return [...Object.keys(WIDE), ...Object.keys(LONG), ...Object.keys(LIMITS)]
    .filter(path => !known.has(path))
    .map(path => `${path}: named in tests/gates/lines.mjs, but not there`);
}
