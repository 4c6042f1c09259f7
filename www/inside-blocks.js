/** The network's blocks from top to bottom: the way down, where it gets smaller, the middle, and the way up again. */
import { number, t } from './messages/index.js';
import { greyOf } from './page/latents.js';
import { context2d, duration, make } from './page/ui.js';

/** @typedef {import('./browser-diffusion.js').BlockMaps} Block */

/**
 * @param {HTMLElement} into
 * @param {Block[]} blocks in the order in which they run
 */
export function showBlocks(into, blocks) {
  const names = blocks.map(({ name }) => name).join();
  if (into.dataset.names !== names) into.replaceChildren(...blocks.map((block) => item(block, blocks)));
  into.dataset.names = names;
  const whole = blocks.reduce((sum, { milliseconds = 0 }) => sum + milliseconds, 0);
  for (const [i, row] of [...into.children].entries()) fill(/** @type {HTMLElement} */ (row), blocks[i], whole);
}

/** @param {Block} block @param {Block[]} blocks */
function item(block, blocks) {
  const [kind, index] = block.name.split('.');
  const downs = blocks.filter(({ name }) => name.startsWith('down_blocks')).length;
  const words = kind === 'down_blocks' ? t('inside.down', Number(index) + 1)
    : kind === 'up_blocks' ? t('inside.up', Number(index) + 1, downs - Number(index))
      : t(kind === 'conv_in' ? 'inside.in' : kind === 'mid_block' ? 'inside.middle' : 'inside.out');
  const row = make('li', {},
    make('p', {}, make('b', { textContent: words }), ' ', make('code', { textContent: block.name }), make('small')),
    make('div', { className: 'channels' }, ...block.maps.map(() => make('canvas'))));
  row.append(make('i'));
  return row;
}

/** @param {HTMLElement} row @param {Block} block @param {number} whole milliseconds of all */
function fill(row, { maps, width, height, channels, milliseconds, name }, whole) {
  const shape = t('inside.shape', number(channels), `${width} × ${height}`);
  const took = milliseconds === undefined ? '' : ` · ${t('inside.took', duration(milliseconds))}`;
  /** @type {HTMLElement} */ (row.querySelector('small')).textContent = `${shape}${took}`;
  row.title = name;
  row.style.setProperty('--share', String(milliseconds === undefined || whole === 0 ? 0 : milliseconds / whole));
  for (const [i, canvas] of [...row.querySelectorAll('canvas')].entries()) {
    const values = maps[i];
    if (!values) continue;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length) || 1;
    Object.assign(canvas, { width, height });
    const grey = greyOf(values.map((value) => value - mean), 0, { width, height, reach: 2.5 * spread });
    context2d(canvas).putImageData(grey, 0, 0);
  }
}
