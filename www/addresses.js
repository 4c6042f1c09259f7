/**
 * Files that are elsewhere than the engine asks for them: a bundler gives every file of a package an address of its own,
 * and small ones stand in their address as data.
 */

/** @type {Map<string, Record<string, string>>} by the folder that the engine asks for, the address of each path in it */
const folders = new Map();
const { fetch } = globalThis;

/**
 * From now on what is asked for in a folder is fetched from these addresses; a path that has none is not there.
 * @param {{ embedded: string, addresses?: Record<string, string> }} [spec] addresses: of the paths in the folder `embedded`
 */
export function place(spec) {
  if (!spec?.addresses) return;
  const folder = `${spec.embedded}/`;
  folders.set(folder, { ...folders.get(folder), ...spec.addresses });
  globalThis.fetch = (input, init) => fetchPlaced(String(input), init);
}

/** @param {string} url @param {RequestInit} [init] */
async function fetchPlaced(url, init) {
  const folder = [...folders.keys()].find((each) => url.startsWith(each));
  if (folder === undefined) return fetch(url, init);
  const addresses = /** @type {Record<string, string>} */ (folders.get(folder));
  const path = url.slice(folder.length);
  if (!Object.hasOwn(addresses, path)) return new Response(null, { status: 404 });
  const address = addresses[path];
  return address.startsWith('data:') ? new Response(bytesIn(address)) : fetch(address, init);
}

/** What a data: address holds. Not fetched: a Content-Security-Policy may not let that. @param {string} address */
function bytesIn(address) {
  const comma = address.indexOf(',');
  const text = decodeURIComponent(address.slice(comma + 1));
  if (!address.slice(0, comma).endsWith(';base64')) return text;
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}
