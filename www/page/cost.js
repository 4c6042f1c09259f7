/** What a model of the catalogue costs, in words. */
import { t } from '../messages/index.js';
import { make, size } from './ui.js';

/**
 * @param {import('./catalogue.js').Entry} entry
 * @param {import('./catalogue.js').Cost} cost
 */
export function describeCost(entry, { download, keeps, loading, free, gpu, low, problems }) {
  const rows = [
    [t('cost.download'), download > 0 ? t('cost.once', size(download)) : t('cost.nothing')],
    [t('cost.storage'), loading > keeps ? t('cost.keepsLoading', size(keeps), size(loading), size(free))
      : t('cost.keeps', size(keeps), size(free))],
    [t('cost.gpu'), low ? t('cost.oneAtATime', size(gpu)) : size(gpu)],
    [t('cost.licence'), entry.licence],
  ];
  const list = rows.flatMap(([term, text]) => [make('dt', {}, term), make('dd', {}, text)]);
  const verdicts = problems.length > 0 ? problems.map((problem) => t(`cost.problem.${problem}`)) : [t('cost.fits')];
  const className = problems.length > 0 ? 'cannot' : 'can';
  const lines = verdicts.map((text) => make('p', { className }, text));
  return [make('p', {}, t('catalogue.about', entry.source, entry.about)), make('dl', {}, ...list), ...lines];
}
