/**
 * A drawing ends with its page. While there is one, links to other pages open beside this one, and whoever leaves all the
 * same (closes the tab, reloads, goes back) is asked by the browser first. Otherwise nothing is asked, and nothing keeps
 * the browser from holding the page that is left.
 */
import { t } from '../messages/index.js';

/** @param {BeforeUnloadEvent} event */
const ask = (event) => event.preventDefault();

/** Links that led out of this page, and what stood in their title. @type {Map<HTMLAnchorElement, string>} */
const opened = new Map();

/** @param {HTMLAnchorElement} link */
const leadsOut = (link) => !link.target && link.href.split('#')[0] !== location.href.split('#')[0];

/** @param {boolean} drawing */
export function holdPage(drawing) {
  for (const [link, title] of opened) {
    link.removeAttribute('target');
    link.title = title;
  }
  opened.clear();
  removeEventListener('beforeunload', ask);
  if (!drawing) return;
  addEventListener('beforeunload', ask);
  for (const link of [...document.links].filter((each) => each instanceof HTMLAnchorElement).filter(leadsOut)) {
    opened.set(link, link.title);
    link.target = '_blank';
    link.title = t('stay.beside');
  }
}
