// The repository's own files, for the gates.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(fileURLToPath(new URL('../..', import.meta.url)));

/** @param {RegExp} pattern of paths from the root @returns {string[]} files that git has or would take, sorted */
export function files(pattern) {
  const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
  return [...new Set(listed.split('\n'))].filter(path => pattern.test(path) && existsSync(join(root, path))).sort();
}

/** @param {string} path from the root */
export const read = path => readFileSync(join(root, path), 'utf8');
