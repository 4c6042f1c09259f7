/** A whole text of AUTOMATIC1111's, pasted where the prompt is typed, sets the form as a dropped picture does. */

/** Its last part begins so, in a line of its own. */
const SETTINGS = /^Steps: \d+, /m;

/**
 * @param {HTMLTextAreaElement} field
 * @param {(text: string) => Promise<boolean>} take whether it could be read; else it is pasted as any other
 */
export function takePasted(field, take) {
  field.addEventListener('paste', async (event) => {
    const text = event.clipboardData?.getData('text/plain') ?? '';
    if (!SETTINGS.test(text)) return;
    event.preventDefault();
    if (await take(text)) return;
    field.focus();
    if (!document.execCommand('insertText', false, text)) field.setRangeText(text);
  });
}
