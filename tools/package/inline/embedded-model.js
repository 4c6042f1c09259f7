/** Nothing says where this script's other files are: the folder `embedded` is taken to be beside the page. */
export const EMBEDDED = {
  get embedded() {
    return new URL('embedded/', globalThis.document?.baseURI ?? globalThis.location?.href).href;
  },
};
