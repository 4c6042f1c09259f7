/** Files from disk, chosen or dropped anywhere on the page: a checkpoint becomes the model, a picture is looked at. */
import { t } from '../messages/index.js';
import { PageError } from './page-error.js';
import { input, say, showError, size } from './ui.js';

/**
 * @param {object} on
 * @param {(checkpoint: File | FileSystemDirectoryHandle) => void} on.checkpoint a file, or a folder of diffusers'
 * @param {(picture: File) => Promise<void>} on.picture
 */
export function takeFiles({ checkpoint, picture }) {
  /** @param {File | FileSystemDirectoryHandle} chosen @param {string} what */
  const choose = (chosen, what) => {
    checkpoint(chosen);
    say(t('files.isModel', what));
  };
  /** @param {Iterable<File> | null | undefined} list */
  const take = (list) => {
    const [file] = list ?? [];
    if (!file) return;
    if (file.type.startsWith('image/')) {
      picture(file).catch(showError);
    } else if (/\.(safetensors|ckpt|pt|pth)$/i.test(file.name)) {
      choose(file, `${file.name}, ${size(file.size)}`);
    } else {
      showError(new PageError('unsupported-model', t('files.neither', file.name)));
    }
  };
  const files = input('files');
  files.addEventListener('change', () => take(files.files));
  addEventListener('dragover', (event) => {
    if (event.dataTransfer?.types.includes('Files')) event.preventDefault();
  });
  addEventListener('drop', async (event) => {
    const { files, items } = event.dataTransfer ?? {};
    if (!files?.length) return;
    event.preventDefault();
    // Where the browser hands out folders: one as diffusers keeps it.
    const list = [...files];
    const handle = await /** @type {any} */ (items?.[0]).getAsFileSystemHandle?.();
    if (handle?.kind === 'directory') choose(handle, t('files.folder', handle.name));
    else take(list);
  });
}
