/** The screen stays on while something is drawn, where the system lets a page ask for that. */

/** @type {WakeLockSentinel | undefined} */
let lock;
let wanted = false;

/** @param {boolean} yes */
export async function keepAwake(yes) {
  wanted = yes;
  if (!yes) {
    await lock?.release();
    lock = undefined;
    return;
  }
  try {
    // Whoever looks at another tab meanwhile has released it.
    if (lock && !lock.released) return;
    const asked = await navigator.wakeLock?.request('screen');
    if (wanted) lock = asked;
    else await asked?.release(); // it was drawn by then
  } catch {
    // The battery is low, or the page is not seen: then it goes dark as ever.
  }
}

document.addEventListener('visibilitychange', () => {
  if (wanted && document.visibilityState === 'visible') keepAwake(true);
});
