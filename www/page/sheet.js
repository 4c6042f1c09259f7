/** On a phone the settings are a sheet, which lies over the page while it is open; elsewhere this does nothing. */
import { any, button } from './ui.js';

const form = any('form');
const open = button('sheet'), close = button('sheet-close');

/** @param {boolean} yes */
function show(yes) {
  form.toggleAttribute('data-sheet', yes);
  open.setAttribute('aria-expanded', String(yes));
}

/** Brings the sheet up, where an element is on it. @param {Element} element */
export function openSheet(element) {
  if (element.closest('.settings')) show(true);
}

open.onclick = () => {
  const opens = !form.hasAttribute('data-sheet');
  show(opens);
  if (opens) close.focus();
};
close.onclick = () => {
  show(false);
  open.focus();
};
any('settings').addEventListener('keydown', (event) => {
  // Elsewhere Escape stops the drawing; here it is the sheet that one wants to be rid of.
  if (event.key !== 'Escape' || !close.checkVisibility()) return;
  event.stopPropagation();
  close.click();
});
