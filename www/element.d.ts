/** `<diffusion-picture>`: importing this defines it. docs/embedding.md has its attributes, events, parts and slots. */
import type { DiffusionError, ModelSource, Progress, Step } from './browser-diffusion.js';

export interface DiffusionPictureEvents {
  /** The model is coming. */
  loading: CustomEvent<Progress>;
  /** A step was made; its `preview` is shown already. */
  step: CustomEvent<Step>;
  /** The picture is there; a bubbling `change` follows. */
  picture: CustomEvent<File>;
  failed: CustomEvent<DiffusionError>;
}

export class DiffusionPicture extends HTMLElement {
  static formAssociated: true;
  /** What elements draw with that name no source; "embedded" at first. */
  static source: ModelSource;
  /** What this one draws with; the attribute `source` where it is text. */
  source: ModelSource;
  /** The picture, a PNG with its settings in it; null until there is one. */
  readonly value: File | null;
  readonly name: string;
  readonly form: HTMLFormElement | null;
  readonly validity: ValidityState;
  checkValidity(): boolean;
  reportValidity(): boolean;
  /** Draws, instead of what it drew; null where it was stopped or failed, as `failed` tells. */
  draw(): Promise<File | null>;
  /** Stops what is drawn; what is shown stays. */
  stop(): void;
  addEventListener<K extends keyof DiffusionPictureEvents>(
    type: K, listener: (this: DiffusionPicture, event: DiffusionPictureEvents[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    'diffusion-picture': DiffusionPicture;
  }
}
