// What no compiler says of the house: ./build.sh test runs it, and nothing is merged that it refuses.
import { importCircles, longFunctions } from './javascript.mjs';
import { columns, sizes, stale } from './lines.mjs';
import { moduleCircles } from './rust.mjs';

/** @type {[string, () => string[]][]} */
const gates = [
  ['no code line over 120 columns', columns],
  ['no file over 600 lines, and those with a limit of their own within it', sizes],
  ['no exception without its file', stale],
  ['no circle of imports in src', moduleCircles],
  ['no circle of imports in www', importCircles],
  ['no JavaScript function over 100 lines', longFunctions],
];

for (const [what, gate] of gates) {
  const found = gate();
  console.log(`${found.length ? 'FAIL' : 'ok  '} ${what}${found.length ? `: ${found.length}` : ''}`);
  for (const line of found) console.log(`  ${line}`);
  if (found.length) process.exitCode = 1;
}
