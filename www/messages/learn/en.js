/** What the scripts of learn.html say, in English. */
export const messages = {
  'model.none': (/** @type {string} */ reason) => `${reason} Chapters 2 and 5 work all the same.`,
  'model.asks': 'Most experiments draw with the small model that comes with this page.',
  'model.fetch': (/** @type {string} */ bytes) => `Fetch it (${bytes}, once)`,
  'model.loading': 'Fetching the small model …',
  'model.ready': 'The small model is ready: scroll down.',
  'waits.checking': 'Looking for a graphics card …',
  'waits.none': 'This experiment draws with your graphics card, by WebGPU, which this browser does not offer. ' +
    'The top of the page says what would help.',
  'waits.asks': 'This experiment needs the small model.',
  'waits.fetch': 'Fetch it',
  'waits.loading': 'The small model is on its way; this starts when it is there.',
  'subject.noPicture': 'That file is no picture that this browser can read. Choose a PNG, JPEG or WebP.',
  'station.again': 'Try again',
  'guess.right': 'Right.',
  'guess.wrong': 'Many think so.',
  'uses.shown': (/** @type {string} */ words, /** @type {number} */ seed) => `${words}, drawn from seed ${seed}`,
  'spoil.shown': (/** @type {number} */ step) => `The picture after ${step} steps of noise`,
  'spoil.reading': (/** @type {string} */ share, /** @type {string} */ rest, /** @type {string} */ left) =>
    `${share} × picture + ${rest} × noise · ᾱ = ${left}`,
  'guess.axis': 'mean squared mistake at step t',
  'guess.shownNoisy': (/** @type {number} */ step) => `The picture with the noise of step ${step}`,
  'guess.shownWithout': (/** @type {number} */ step) => `What the network takes it to be at step ${step}, without words`,
  'guess.shownWith': (/** @type {number} */ step) => `What the network takes it to be at step ${step}, with your words`,
  'guess.reading': (/** @type {number} */ step, /** @type {string} */ withWords, /** @type {string} */ without) =>
    `Loss at step ${step}: ${withWords} with your words, ${without} without. ` +
    '(The lines: with words strong, without pale. Low at the right is easy: nearly all is noise, and it says so.)',
  'steps.shown': (/** @type {string} */ sampler, /** @type {number} */ count) => `Drawn by ${sampler} in ${count} steps`,
  'steps.at1': '1 step: straight from noise to its first guess, the mean of all that it has learnt.',
  'steps.at2': '2 steps: a rough idea of what goes where.',
  'steps.at4': '4 steps: patches with colours of their own.',
  'steps.at10': '10 steps: a thing with an outline.',
  'steps.at20': '20 steps: edges and details. This is what the drawing page uses.',
  'steps.at50': '50 steps: DDIM has hardly changed since 20; DDPM went its own way.',
};
