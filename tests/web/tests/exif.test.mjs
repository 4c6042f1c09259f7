// The text in JPEG, WebP and AVIF: written by Pillow and piexif and read here, written here and read by sd-prompt-reader.
// In Node, without a browser.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from '../support/browser.mjs';

const { readParameters } = await import(join(root, 'www/browser-diffusion.js'));
const { withText } = await import(join(root, 'www/metadata/writing.js'));

/** @param {string} code @param {string[]} args */
const python = (code, ...args) => execFileSync('python3', ['-c', code, ...args], {
  env: { ...process.env, PYTHONPATH: join(root, '.tools/reader') }, encoding: 'utf8',
});

const TEXT = 'a cat, ünd 猫\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, ' +
  'Seed: 1, Size: 512x512, Version: v1.10.1';

/** Pictures of three types with a user comment in every way: byte order of the file, code, byte order of the text. */
const COMMENTS = `
import sys, struct, json
from PIL import Image
folder, text = sys.argv[1], sys.argv[2]
def exif(order, comment, code):
    e = ">" if order == "MM" else "<"
    body = code + comment
    return (order.encode() + struct.pack(e + "HI", 42, 8) + struct.pack(e + "HHHII", 1, 0x8769, 4, 1, 26) +
        struct.pack(e + "I", 0) + struct.pack(e + "HHHII", 1, 0x9286, 7, len(body), 44) +
        struct.pack(e + "I", 0) + body)
ways = {}
for order in ("MM", "II"):
    for name, code, comment in (
        ("be", b"UNICODE\\0", text.encode("utf-16-be")), ("le", b"UNICODE\\0", text.encode("utf-16-le")),
        ("marked", b"UNICODE\\0", text.encode("utf-16")), ("utf8", b"\\0" * 8, text.encode()),
        ("ascii", b"ASCII\\0\\0\\0", text.encode("ascii", "ignore")),
        ("jis", b"JIS\\0\\0\\0\\0\\0", text.replace("ü", "u").encode("iso-2022-jp")),
    ):
        ways[order + "-" + name] = exif(order, comment, code)
image = Image.new("RGB", (16, 8), (90, 20, 30))
for name, data in ways.items():
    for kind in ("jpeg", "webp", "avif", "png"):
        image.save(f"{folder}/{name}.{kind}", exif=b"Exif\\0\\0" + data)
print(json.dumps(list(ways)))`;

test('a user comment is read in every byte order and code', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const way of JSON.parse(python(COMMENTS, folder, TEXT))) {
    for (const kind of ['jpeg', 'webp', 'avif', 'png']) {
      const { parameters, options } = await readParameters(new Blob([readFileSync(join(folder, `${way}.${kind}`))]));
      const want = way.endsWith('ascii') ? TEXT.replace(/[^\0-\x7f]/g, '')
        : way.endsWith('jis') ? TEXT.replace('ü', 'u') : TEXT;
      assert.equal(parameters, want, `${way}.${kind}`);
      assert.equal(options.scheduler, 'euler_a_karras');
    }
  }
  // A byte changed, or the end missing: something is read, or it is a typed error.
  const files = ['jpeg', 'webp', 'avif', 'png'].map(kind => readFileSync(join(folder, `II-be.${kind}`)));
  let random = 1;
  const below = (/** @type {number} */ limit) => (random = (random * 48271) % 0x7fffffff) % limit;
  for (let i = 0; i < 1200; i++) {
    const bytes = Uint8Array.from(files[i % 4]);
    for (let k = below(3); k >= 0; k--) bytes[below(bytes.length)] = [0, 1, 255, below(256)][below(4)];
    const cut = new Blob([bytes.subarray(0, below(4) ? bytes.length : below(bytes.length))]);
    await readParameters(cut).catch((/** @type {any} */ error) => {
      assert.deepEqual([error.name, error.code], ['DiffusionError', 'invalid-option'], error.stack);
    });
  }
});

const BARE = `
import sys
from PIL import Image
folder = sys.argv[1]
image = Image.effect_noise((37, 21), 90).convert("RGB")
image.save(folder + "/bare.jpeg", quality=95)
image.save(folder + "/lossy.webp", quality=95)
image.save(folder + "/lossless.webp", lossless=True)
clear = image.convert("RGBA")
clear.putalpha(image.convert("L"))
clear.save(folder + "/clear.webp", lossless=True)
clear.save(folder + "/clear-lossy.webp", quality=90)`;

/** What an independent reader sees in a picture, and whether its points are those of another. */
const SEEN = `
import sys, json
from PIL import Image
from sd_prompt_reader.image_data_reader import ImageDataReader
r = ImageDataReader(sys.argv[1])
a, b = Image.open(sys.argv[1]), Image.open(sys.argv[2])
comment = a.getexif().get_ifd(0x8769).get(0x9286)
print(json.dumps({"tool": r.tool, "positive": r.positive, "negative": r.negative, "parameter": r.parameter,
  "same": a.mode == b.mode and a.tobytes() == b.tobytes(), "comment": comment[8:].decode("utf-16-be")}))`;

test('JPEG and WebP are written with the text, as an independent reader reads it', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'browser-diffusion-'));
  t.after(() => rmSync(folder, { recursive: true }));
  python(BARE, folder);
  for (const name of ['bare.jpeg', 'lossy.webp', 'lossless.webp', 'clear.webp', 'clear-lossy.webp']) {
    const type = name.endsWith('jpeg') ? 'image/jpeg' : 'image/webp';
    const bare = new Uint8Array(readFileSync(join(folder, name)));
    const file = new Blob(withText(bare, type, TEXT));
    const path = join(folder, `text-${name}`);
    writeFileSync(path, Buffer.from(await file.arrayBuffer()));
    const { comment, same, ...seen } = JSON.parse(python(SEEN, path, join(folder, name)));
    assert.ok(same, `${name}: every point is as it was`);
    assert.equal(comment, TEXT);
    // That reader looks for hidden bits, and for nothing else, in pictures with alpha.
    if (!name.startsWith('clear')) {
      assert.equal(seen.tool, 'A1111 webUI', name);
      assert.deepEqual([seen.positive, seen.negative], ['a cat, ünd 猫', 'dog']);
      assert.equal(seen.parameter.sampler, 'Euler a');
    }
    assert.equal((await readParameters(file)).parameters, TEXT, name);
  }
  // A segment of a JPEG has no room for it.
  const jpeg = new Uint8Array(readFileSync(join(folder, 'bare.jpeg')));
  assert.deepEqual(withText(jpeg, 'image/jpeg', 'x'.repeat(40_000)), [jpeg]);
  const long = join(folder, 'long.jpeg');
  writeFileSync(long, Buffer.concat(withText(jpeg, 'image/jpeg', 'x: '.repeat(10_000))));
  python('import sys; from PIL import Image; Image.open(sys.argv[1]).load()', long);
});
