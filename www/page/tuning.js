/** The graphics card: what the browser tells of it, and trying again what is fastest on it. */
import { t } from '../messages/index.js';
import { any, button, hideError, isAbort, make, say, showError, size } from './ui.js';

/** @param {import('./work.js').Work} work @param {import('./model.js').Models} models */
export function tunes(work, models) {
  const tune = async () => {
    if (work.drawing) return;
    hideError();
    try {
      await models.tune();
    } catch (error) {
      say('');
      if (!isAbort(error)) showError(error);
    }
  };
  button('tune').onclick = () => work.beside(tune);
}

/** @param {import('../browser-diffusion.js').Detection} gpu */
export function showGpu({ webgpu, adapter, maxBufferSize = 0, shaderF16 = false }) {
  const name = [adapter?.vendor, adapter?.architecture, adapter?.description].filter(Boolean).join(' ');
  const numbers = shaderF16 ? t('gpu.f16') : t('gpu.f32');
  // What a card is called is the same in every language.
  const shown = name ? make('span', { translate: false }, name) : t('gpu.unnamed');
  const [before, after] = t('gpu.is', '\n', size(maxBufferSize), numbers).split('\n');
  any('gpu').replaceChildren(...(webgpu ? [before, shown, after] : [t('gpu.none')]));
  button('tune').disabled = !webgpu;
}
