/** Where the model that ships with the page is. The npm package has others in this file's place (tools/package/). */

/** Its folder, whose vocabulary serves single files too. */
export const EMBEDDED = { embedded: new URL('./embedded/', import.meta.url).href };
