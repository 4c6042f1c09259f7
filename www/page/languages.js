/**
 * The page's languages: the links in its head lead to the same settings, and where the browser's reader would rather have
 * another one, a line in that language says so. Nobody is sent anywhere unasked.
 */

const CHOSEN = 'browser-diffusion language';

const links = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll('.languages a')]);
/** "zh" of "zh-Hans-CN". @param {string} tag */
const primary = (tag) => tag.split('-')[0].toLowerCase();

/** @param {HTMLAnchorElement} link */
function follow(link) {
  link.addEventListener('click', () => {
    link.search = location.search;
    link.hash = location.hash;
    remember(link.lang);
  });
}

/** Who has chosen is not asked again. @param {string} lang */
function remember(lang) {
  try {
    localStorage.setItem(CHOSEN, lang);
  } catch {
    // Storage may be forbidden; then the line stays.
  }
}

function chosen() {
  try {
    return localStorage.getItem(CHOSEN) !== null;
  } catch {
    return false;
  }
}

/** The link that the browser's languages ask for first, of those that there are. */
const wanted = () => navigator.languages.map((tag) => links.find(({ lang }) => primary(lang) === primary(tag)))
  .find((link) => link !== undefined);

for (const link of links) follow(link);
const other = wanted();
if (other && !other.hasAttribute('aria-current') && !chosen()) {
  const { lang, href, hreflang, dataset } = other;
  const link = Object.assign(document.createElement('a'), { lang, href, hreflang, textContent: dataset.offer });
  const line = Object.assign(document.createElement('p'), { className: 'offer' });
  follow(link);
  line.append(link);
  other.closest('nav')?.append(line);
}
