/** Hands the picture that is shown to the system, where that takes files: to a chat, to the photos. */
import { PageError } from './page-error.js';
import { t } from '../messages/index.js';
import { attempt, button } from './ui.js';

/** @typedef {import('./strip.js').Finished} Finished */

const share = button('share');
/** @type {Finished | undefined} */
let shown;

share.hidden = !navigator.canShare?.({ files: [new File([], 'picture.png', { type: 'image/png' })] });
share.onclick = () => attempt(async () => {
  if (!shown) return;
  const file = new File([await shown.file()], `${shown.name}.png`, { type: 'image/png' });
  try {
    await navigator.share({ files: [file], title: shown.title });
  } catch (error) {
    if (/** @type {Error} */ (error).name === 'AbortError') return; // the visitor thought better of it
    throw new PageError('invalid-option', t('share.not'));
  }
});

/** Another picture is shown large. @param {Finished} [frame] */
export function sharesWhatIs(frame) {
  shown = frame;
  share.disabled = !frame;
}
