/** The page that explains diffusion: seven chapters, each a file in learn/, made and wired here. */
import './page/languages.js';
import { button } from './page/ui.js';
import { showGlossary, showWord } from './learn/glossary.js';
import { Guess } from './learn/guess.js';
import { Painter } from './learn/painter.js';
import { Practice } from './learn/practice.js';
import { Quiz } from './learn/quiz.js';
import { Spoil } from './learn/spoil.js';
import { Steps } from './learn/steps.js';
import { Subject } from './learn/subject.js';
import { Train } from './learn/train.js';
import { Words } from './learn/words.js';
import { Uses } from './learn/uses.js';

const painter = new Painter(button('fetch'));
const subject = new Subject();

/** The chapter that the address names, and its settings. */
function linked() {
  const [id, ...rest] = location.hash.slice(1).split('&');
  return { id, values: new URLSearchParams(rest.join('&')) };
}

/** @param {import('./learn/station.js').Station[]} stations */
function openLink(stations) {
  const { id, values } = linked();
  if (id.startsWith('word-')) showWord(id);
  const station = stations.find(({ section }) => section.id === id);
  if (!station) return;
  const words = values.get('p');
  if (words !== null) subject.say(words);
  station.take(values);
  station.showLink();
  station.section.scrollIntoView();
}

async function begin() {
  await subject.start(linked().values.get('p') ?? undefined);
  const stations = [
    new Uses(subject, painter), new Spoil(subject), new Guess(subject, painter), new Steps(painter),
    new Train(), new Words(subject, painter), new Practice(subject, painter),
  ];
  new Quiz();
  showGlossary();
  openLink(stations);
  addEventListener('hashchange', () => openLink(stations));
  for (const station of stations) station.showLink();
  document.body.dataset.ready = 'true'; // all of it is wired
  await painter.start();
}

begin();
