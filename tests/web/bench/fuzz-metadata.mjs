// Fuzzes readParameters: the texts and pictures of the tests, changed at random, for so many seconds.
//   node tests/web/bench/fuzz-metadata.mjs [seconds] [seed]
// Whatever it gets, it answers with options that `generate` takes, or rejects with a DiffusionError, within a second.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/browser.mjs';
import { png } from '../support/png.mjs';
import { KINDS } from '../data/infotexts.mjs';

const { readParameters } = await import(join(root, 'www/browser-diffusion.js'));
const { checkedRequest } = await import(join(root, 'www/options.js'));
const { withText } = await import(join(root, 'www/metadata/writing.js'));

const seconds = Number(process.argv[2] ?? 600);
let random = Number(process.argv[3] ?? 1);
const below = (/** @type {number} */ limit) => (random = (random * 48271) % 0x7fffffff) % limit;

const texts = Object.values(KINDS).flatMap(({ cases, keyword = 'parameters' }) =>
  cases.map(([text]) => ({ keyword, text: typeof text === 'string' ? text : JSON.stringify(text) })));
const folder = join(root, 'tests/web/data/pictures');
const jpeg = Uint8Array.of(0xff, 0xd8, 0xff, 0xda, 0, 4, 0, 0, 0xff, 0xd9);
const files = [
  ...readdirSync(folder).map(name => readFileSync(join(folder, name))),
  ...texts.map(({ keyword, text }) => png([['iTXt', Buffer.from(`${keyword}\0\0\0\0\0${text}`)]])),
  ...texts.map(({ text }) => Buffer.concat(withText(jpeg, 'image/jpeg', text))),
];
const pieces = ['Steps: 20, ', ': ', ', ', '"', '\\', '\n', 'Negative prompt: ', '{', '}', '[', '["3",0]',
  '"class_type":',
  '__proto__', 'Hires resize: 0x', '-1', '1e999', '\0', '\ud800', 'Template: '];

/** @param {string} text */
function changedText(text) {
  const at = below(text.length + 1);
  const cut = text.slice(at + below(20));
  return text.slice(0, at) + [pieces[below(pieces.length)], '', text.slice(0, below(40))][below(3)] + cut;
}

/** @param {Uint8Array} file */
function changedBytes(file) {
  const bytes = Uint8Array.from(file);
  for (let i = below(4); i >= 0; i--) bytes[below(bytes.length)] = [0, 1, 255, below(256)][below(4)];
  return new Blob([bytes.subarray(0, below(8) ? bytes.length : below(bytes.length))]);
}

let [runs, refused, slowest, memory] = [0, 0, 0, 0];
for (const end = performance.now() + seconds * 1000; performance.now() < end; runs++) {
  let { text } = texts[below(texts.length)];
  for (let i = below(4); i >= 0; i--) text = changedText(text);
  const source = below(2) ? text : changedBytes(files[below(files.length)]);
  const before = process.cpuUsage();
  try {
    checkedRequest((await readParameters(source)).options, { inpainting: false, instructPix2Pix: false });
  } catch (error) {
    const { code, name, message } = /** @type {any} */ (error);
    if (typeof source === 'string' || name !== 'DiffusionError' || !/damaged/.test(message)) {
      console.log(code, error,
        typeof source === 'string' ? source : Buffer.from(await source.arrayBuffer()).toString('hex'));
      process.exit(1);
    }
    refused++;
  }
  slowest = Math.max(slowest, process.cpuUsage(before).user / 1000);
  memory = Math.max(memory, process.memoryUsage.rss());
}
console.log(`${runs} runs, ${refused} refused as damaged; the slowest ${slowest.toFixed(0)} ms; at most ${
  (memory / 2 ** 20).toFixed(0)} MiB`);
if (slowest > 1000 || memory > 256 * 2 ** 20) process.exit(1);
