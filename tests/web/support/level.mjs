/** In a page, before all else: this level of settings is remembered, where no other is. @param {string} level */
export const setLevel = level => {
  try {
    const stored = 'browser-diffusion level';
    if (level && !localStorage.getItem(stored)) localStorage.setItem(stored, level);
  } catch {
    // A page that is none: the browser's own, where there is no network.
  }
};
