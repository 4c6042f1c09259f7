/** The page that helps: a question that the address names is open. */
import './page/languages.js';

function openAsked() {
  const asked = location.hash && document.getElementById(location.hash.slice(1));
  if (!(asked instanceof HTMLDetailsElement)) return;
  asked.open = true;
  asked.scrollIntoView();
}
openAsked();
addEventListener('hashchange', openAsked);
