/** What the network costs the visitor, and how the page does without. */

/** The browser tells that the connection is paid by time, not by byte, and nobody asked to save data. */
export function unmetered() {
  const { type, saveData } = /** @type {any} */ (navigator).connection ?? {};
  return !saveData && ['wifi', 'ethernet'].includes(type);
}

/** The page is kept for a visit without a network, once the engine, most of it, was fetched to draw with. */
export function keepPage() {
  navigator.serviceWorker?.register(new URL('../sw.js', import.meta.url)).catch(() => {
    // Without it the page works just the same, only not without a network.
  });
}
