/** An error in the page's own words, which are in its language; the engine's are English. */
import { DiffusionError } from '../browser-diffusion.js';

export class PageError extends DiffusionError {}
