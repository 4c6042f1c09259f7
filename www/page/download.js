/** How far a model has come: bytes, rate and time left over all files of one load. */
import { t } from '../messages/index.js';
import { left, showProgress, size } from './ui.js';

const WEIGHTS = /\.(safetensors|ckpt|pt|pth|bin)$/i;

export class Download {
  /** @type {Map<string, { loaded: number, total: number, moving: boolean }>} */
  #files = new Map();
  #fetched = 0;
  #started = 0;

  /** @param {import('../browser-diffusion.js').Progress} progress */
  update({ status, file, loaded, total, fromCache }) {
    if (status === 'ready') showProgress(1, t('download.ready'));
    if (file === undefined) return;
    const before = this.#files.get(file) ?? { loaded: 0, total: 0, moving: false };
    const now = { loaded: loaded ?? before.loaded, total: total ?? before.total, moving: status === 'progress' };
    this.#files.set(file, now);
    const files = [...this.#files.values()];
    // Small files come first, in no time; what follows weights is the driver's work.
    if (status === 'done' && WEIGHTS.test(file) && files.every((each) => each.loaded >= each.total))
      showProgress(undefined, t('download.preparing'));
    if (status !== 'progress') return;
    if (!fromCache) {
      this.#started ||= performance.now();
      // A file's first figure may hold what was there from a broken download: that was not fetched now.
      if (before.moving) this.#fetched += now.loaded - before.loaded;
    }
    let done = 0, all = 0;
    for (const each of files) {
      done += each.loaded;
      all += Math.max(each.total, each.loaded);
    }
    const seconds = (performance.now() - this.#started) / 1000;
    let text = t('download.of', size(done), size(all));
    if (fromCache) text = t('download.kept', text);
    else if (seconds > 1 && this.#fetched > 0 && all > done) {
      const rate = this.#fetched / seconds;
      text = t('download.rate', text, size(rate), left(((all - done) / rate) * 1000));
    }
    showProgress(done / Math.max(all, 1), text);
  }
}
