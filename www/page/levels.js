/**
 * How many settings are shown: few, more, or all. It is remembered. A setting that is out of sight and not as usual is
 * named, and whatever leads to one brings it into sight.
 */
import { list, t } from '../messages/index.js';
import { openSheet } from './sheet.js';
import { recall, remember } from './stored.js';
import { any } from './ui.js';

const LEVELS = ['simple', 'more', 'all'];
const STORED = 'browser-diffusion level';

const form = any('form');
const buttons = [...any('levels').querySelectorAll('button')];

/** Of an element, the least level that shows it. @param {Element} element */
const levelOf = (element) => LEVELS.indexOf(element.closest('[data-level]')?.getAttribute('data-level') ?? 'simple');
const shown = () => LEVELS.indexOf(form.dataset.shows ?? 'simple');

/** Whether an element is out of sight for the level's sake. @param {Element} element */
const isHidden = (element) => levelOf(element) > shown();

/** @param {number} level */
function show(level) {
  form.dataset.shows = LEVELS[level];
  for (const each of buttons) each.setAttribute('aria-pressed', String(each.dataset.shows === LEVELS[level]));
  form.dispatchEvent(new Event('change'));
}

/** Brings an element into sight, for now: what the visitor chose is remembered still. @param {Element} element */
export function reveal(element) {
  if (isHidden(element)) show(levelOf(element));
  openSheet(element);
}

/** Opens the drawer that an element is in, and brings it into sight. @param {Element} element */
export function openDrawer(element) {
  element.closest('details')?.setAttribute('open', '');
  reveal(element);
}

/** Drawers that are out of sight and hold rows of files. */
const filled = () => [...form.querySelectorAll('details:has(.rows > li)')].filter(isHidden)
  .map((drawer) => drawer.querySelector('summary')?.textContent ?? '');

/** @param {(hidden: (element: Element) => boolean) => string[]} changed settings that are not as usual, of those hidden */
export function showLevels(changed) {
  const note = any('levels-note');
  let due = false;
  const tell = () => {
    due = false;
    const names = [...changed(isHidden), ...filled()];
    note.textContent = names.length > 0 ? t('levels.hidden', list(names)) : '';
  };
  // Not every event of a field bubbles, and a model that is loaded sets many fields at once.
  for (const type of ['input', 'change']) {
    form.addEventListener(type, () => {
      if (!due) queueMicrotask(tell);
      due = true;
    }, true);
  }
  for (const each of buttons) {
    each.onclick = () => {
      show(buttons.indexOf(each));
      remember(STORED, LEVELS[shown()]);
    };
  }
  for (const drawer of form.querySelectorAll('details')) {
    drawer.addEventListener('toggle', () => {
      if (drawer.open) reveal(drawer);
    });
  }
  show(Math.max(0, LEVELS.indexOf(recall(STORED) ?? '')));
}
