// What benches of browsers share: what the processes that this one has started take of the machine, by /proc; and a
// worker whose adapters have no subgroups.
import { readFileSync, readdirSync } from 'node:fs';

/** What /proc says of a process: the most MiB it has had, for how many seconds a processor. @param {string} id */
function processOf(id) {
  // Behind the name, which may hold spaces: the state, the parent; 11 and 12: hundredths, its own and the kernel's.
  const numbers = readFileSync(`/proc/${id}/stat`, 'utf8').replace(/.*\) /s, '').split(' ').map(Number);
  const kib = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, 'utf8'))?.[1] ?? 0);
  return { parent: numbers[1], memory: Math.round(kib / 1024), processor: (numbers[11] + numbers[12]) / 100 };
}

/** All that this process has started, and what those have. */
export function started() {
  /** @type {Map<number, ReturnType<typeof processOf>>} */
  const all = new Map();
  for (const id of readdirSync('/proc').filter(id => /^\d+$/.test(id))) {
    try {
      all.set(Number(id), processOf(id));
    } catch { /* it has ended meanwhile */ }
  }
  const isOurs = (/** @type {number} */ id) => {
    for (let at = id; at > 0; at = all.get(at)?.parent ?? 0)
      if (at === process.pid) return id !== at;
    return false;
  };
  return [...all].filter(([id]) => isOurs(id)).map(([, one]) => one);
}

/** Runs in a worker or page before the engine: its adapters have no subgroups. @returns {void} */
export function withoutSubgroups() {
  const features = /** @type {any} */ (Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'features'));
  Object.defineProperty(GPUAdapter.prototype, 'features', { get() {
    return new Set([...features.get.call(this)].filter(name => name !== 'subgroups'));
  } });
}
