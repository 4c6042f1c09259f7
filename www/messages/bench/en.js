/** What bench.html's scripts say in English. Arguments that are figures come as they are to be read. */
export const messages = {
  'peaks': 'What the adapter can do at the most',
  'step': (/** @type {string} */ precision) => `One step of the UNet, ${precision}`,
  'done': 'Done.',
  'failed': 'What was measured until then stands below.',
  'copied': 'Copied.',
  'error.details': '',
  'error': '',
  'about': (/** @type {any} */ { name, subgroups, browser, date, peak, half, copy, load, wrong }) =>
    `${name}${subgroups ? `, subgroups of ${subgroups}` : ''}; ${browser}; ${date}. Measured peak: ` +
    `${peak} TFLOP/s in f32, ${half ? `${half} in f16` : 'no shader-f16'}, ${copy} GB/s copied. ` +
    `Engine loaded in ${load} ms.${wrong ? ` Wrong here, and not used: ${wrong}.` : ''}`,
  'unnamed': 'unnamed adapter',
  'head.operation': 'operation',
  'head.precision': 'precision',
  'head.peak': 'of peak',
  'head.what': 'what',
  'head.product': 'rows x channels x inputs',
  'head.dispatches': 'dispatches',
  'row.step': 'step, ms',
  'row.prepare': 'weights and plan, ms',
  'row.first': 'first step, with compiling, ms',
  'row.memory': 'peak memory, MB',
  'row.counters': 'dispatches, submits',
  'row.moved': 'GB moved',
  'row.encoding': 'encoding, ms',
  'head.workgroups': 'workgroups',
  'head.bytes': 'bytes/FLOP',
  'head.loads': 'loads/FMA',
  'head.registers': 'registers',
  'row.kernel': (/** @type {string} */ name) => `${name}, ms`,
};
