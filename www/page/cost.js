/** What a model of the catalogue costs, in words. */
import { make, size } from './ui.js';

const PROBLEMS = {
  'no-webgpu': 'This browser has no WebGPU, and cannot draw with it.',
  software: 'This browser draws without a graphics card: each step takes minutes.',
  storage: 'There is not room enough to keep it: it would be fetched anew at each visit. ' +
    'Free some space, or choose fewer bits.',
  gpu: 'As far as this graphics card tells, that is more than it has. ' +
    'Choose fewer bits, or as little GPU memory as possible.',
};

/**
 * @param {import('./catalogue.js').Entry} entry
 * @param {import('./catalogue.js').Cost} cost
 */
export function describeCost(entry, { download, keeps, loading, free, gpu, low, problems }) {
  const rows = {
    Download: download > 0 ? `${size(download)}, once` : 'nothing: it is kept here',
    Storage: `${size(keeps)}${loading > keeps ? `, while it loads ${size(loading)}` : ''}; ${size(free)} are free here`,
    'GPU memory': `${size(gpu)}${low ? ', one part of the model at a time' : ''}`,
    Licence: entry.licence,
  };
  const list = Object.entries(rows).flatMap(([term, text]) => [make('dt', {}, term), make('dd', {}, text)]);
  const fits = 'This browser and this graphics card can do it, as far as they tell.';
  const verdicts = problems.length > 0 ? problems.map((problem) => PROBLEMS[problem]) : [fits];
  const className = problems.length > 0 ? 'cannot' : 'can';
  const lines = verdicts.map((text) => make('p', { className }, text));
  return [make('p', {}, entry.about), make('dl', {}, ...list), ...lines];
}
