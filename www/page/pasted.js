/** A whole text of AUTOMATIC1111's, pasted where the prompt is typed, sets the form as a dropped picture does. */
import { number, t } from '../messages/index.js';
import { PageError } from './page-error.js';
import { showError } from './ui.js';

/** Its last part begins so, in a line of its own. */
const SETTINGS = /^Steps: \d+, /m;
/** Letters; no text that tells a picture's settings is longer. */
const MOST = 100_000;

/**
 * @param {HTMLTextAreaElement} field
 * @param {(text: string) => Promise<boolean>} take whether it could be read; else it is pasted as any other
 */
export function takePasted(field, take) {
  field.addEventListener('paste', async (event) => {
    const text = event.clipboardData?.getData('text/plain') ?? '';
    const { value, selectionStart, selectionEnd, maxLength } = field;
    const settings = text.length <= MOST && SETTINGS.test(text);
    // A browser would cut it off at the end of what fits, and say nothing.
    if (!settings && text.length + value.length - (selectionEnd - selectionStart) > maxLength) {
      event.preventDefault();
      showError(new PageError('invalid-option', t('paste.tooLong', number(text.length), number(maxLength))));
      return;
    }
    if (!settings) return;
    event.preventDefault();
    if (await take(text)) return;
    field.focus();
    if (!document.execCommand('insertText', false, text)) field.setRangeText(text);
  });
}
