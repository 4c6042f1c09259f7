/** Starting from a picture: it is chosen or dropped, painted over, and may bring its settings along. */
import { t } from '../messages/index.js';
import { PictureEditor } from './editor.js';
import { openDrawer } from './levels.js';
import { PageError } from './page-error.js';
import { told } from './told.js';
import { any, button, element, input, say, showError } from './ui.js';

/**
 * @typedef {import('./told.js').Told} Told
 * @typedef {{ view: import('./view.js').View, frame: import('./frame.js').Frame }} Sight
 */

export class Start {
  #file = input('image');
  #tools = any('editor');
  #canvas = element('paint', HTMLCanvasElement);
  #takeSettings = button('take-settings');
  #editor;
  #size;
  /** How the picture is looked at, once there is one. @type {Sight | undefined} */
  #sight;
  /** The same, on its way. @type {Promise<Sight> | undefined} */
  #looking;
  /** @type {Told | undefined} */
  #told;
  #take;

  /**
   * @param {() => import('./editor.js').Size} size what is drawn
   * @param {(told: Told) => Promise<string>} take sets the form to what a picture tells, and returns what to say of it
   */
  constructor(size, take) {
    this.#take = take;
    this.#size = size;
    this.#editor = new PictureEditor(this.#canvas, size);
    this.#file.addEventListener('change', () => {
      const [file] = this.#file.files ?? [];
      if (file) this.from(file);
    });
    this.#takeSettings.onclick = async () => {
      if (this.#told) say(t('start.back', await take(this.#told)));
    };
    const brush = input('brush'), erase = button('erase');
    brush.addEventListener('input', () => { this.#editor.brush = brush.valueAsNumber; });
    erase.onclick = () => {
      this.#editor.erasing = !this.#editor.erasing;
      erase.setAttribute('aria-pressed', String(this.#editor.erasing));
    };
    button('clear-paint').onclick = () => this.#editor.clear();
    const undo = button('undo-paint'), redo = button('redo-paint');
    undo.onclick = () => this.#editor.undo();
    redo.onclick = () => this.#editor.redo();
    this.#editor.onChange = () => {
      const { activeElement } = document;
      undo.disabled = !this.#editor.canUndo;
      redo.disabled = !this.#editor.canRedo;
      // A button that no longer can be pressed must not take the keyboard's focus with it.
      if (activeElement === undo && undo.disabled) redo.focus();
      if (activeElement === redo && redo.disabled) undo.focus();
    };
    button('remove-image').onclick = () => this.from(undefined);
  }

  get picture() {
    return this.#editor.picture;
  }

  /** White where something is painted. */
  get mask() {
    return this.#editor.mask;
  }

  /** Follows a change of the size that is drawn. */
  resize() {
    this.#editor.resize();
    this.#sight?.view.layout();
  }

  /** The picture that the next one starts from; nothing takes it away. @param {ImageBitmapSource | undefined} source */
  async from(source) {
    try {
      if (source) {
        this.#looking ??= this.#looksCloser();
        this.#sight = await this.#looking;
      }
    } catch (error) {
      this.#looking = undefined;
      showError(error); // the page's own files are out of reach
      return;
    }
    try {
      await this.#editor.open(source);
    } catch {
      showError(new PageError('invalid-option', t('start.unreadable')));
      return;
    }
    this.#told = undefined;
    if (source instanceof Blob) {
      this.#told = await told(source);
    }
    this.#takeSettings.hidden = !this.#told;
    this.#tools.hidden = !this.picture;
    this.#sight?.frame.stop();
    if (!this.picture) this.#file.value = '';
    else openDrawer(this.#tools);
  }

  /** What nobody needs who starts from words alone. @returns {Promise<Sight>} */
  async #looksCloser() {
    const [{ View }, { Frame }] = await Promise.all([import('./view.js'), import('./frame.js')]);
    const editor = this.#editor;
    const frame = new Frame(this.#size, () => view);
    const view = new View(any('paint-view'), this.#canvas, {
      content: () => frame.content,
      cursor: () => editor.cursor,
      gesture() {
        editor.cancel();
        frame.cancel();
      },
      moved: () => frame.show(),
    });
    editor.onCursor = () => view.reveal(editor.cursor ?? { x: 0, y: 0 });
    button('zoom-in').onclick = () => view.step(true);
    button('zoom-out').onclick = () => view.step(false);
    button('zoom-whole').onclick = () => view.whole();
    return { view, frame };
  }

  /** As `from`, for a picture that was made here: on to the brush. @param {ImageData} image */
  async redraw(image) {
    await this.from(image);
    this.#tools.scrollIntoView({ block: 'nearest' });
    this.#canvas.focus();
  }

  /** Paints where a picture is bright. @param {ImageData} image @throws {DiffusionError} without a picture to start from */
  paintBy(image) {
    openDrawer(this.#tools);
    if (!this.picture) {
      this.#file.focus();
      throw new PageError('invalid-option', t('start.maskAlone'));
    }
    this.#editor.paintBy(image);
    this.#tools.scrollIntoView({ block: 'nearest' });
    this.#canvas.focus();
  }

  /** The text of a picture brings its settings back. @param {string} text @returns {Promise<boolean>} whether it does */
  async paste(text) {
    const tells = await told(text);
    if (tells) say(t('start.pasted', await this.#take(tells)));
    return tells !== undefined;
  }

  /**
   * A picture that was dropped: one that tells how it was made brings the settings back, any other is started from.
   * @param {File} file
   */
  async drop(file) {
    const tells = await told(file);
    if (!tells) {
      await this.from(file);
      say(t('start.isStart', file.name));
      return;
    }
    const words = await this.#take(tells);
    say(t('start.fileBack', file.name, words));
  }
}
