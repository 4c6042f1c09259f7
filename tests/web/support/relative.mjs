import assert from 'node:assert/strict';

/** ||ours - theirs|| / ||theirs||, of as many numbers. @param {ArrayLike<number>} ours @param {ArrayLike<number>} theirs */
export function relative(ours, theirs) {
  assert.equal(ours.length, theirs.length);
  let [difference, size] = [0, 0];
  for (let i = 0; i < theirs.length; i++) {
    difference += (ours[i] - theirs[i]) ** 2;
    size += theirs[i] ** 2;
  }
  return Math.sqrt(difference / size);
}
