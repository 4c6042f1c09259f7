// Chinese prompts for the embedded model, read by its lexicon: captions of its training, whose English is known
// (training/make_chinese.py), what people write besides, and what is not known and stays.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../support/browser.mjs';

const { ChineseReader } = await import(join(root, 'www/page/chinese.js'));
const reader = new ChineseReader(JSON.parse(readFileSync(join(root, 'www/lexicon-zh.json'), 'utf8')));
/** @type {[string, string][]} */
const captions = JSON.parse(readFileSync(join(root, 'tests/web/data/chinese.json'), 'utf8'));

test('the captions of the training are read as their English', () => {
  assert.ok(captions.length > 800);
  for (const [chinese, english] of captions) assert.equal(reader.english(chinese), english, chinese);
});

test('what people write', () => {
  for (const [chinese, english] of [
    ['一个红色的苹果', 'a red apple'],
    ['红苹果', 'a red apple'],
    ['蓝色背景上的猫', 'a cat on a blue background'],
    ['猫，蓝色背景。', 'a cat on a blue background'],
    ['夜里的火箭', 'a rocket at night'],
    ['请画一只熊猫！', 'a panda'],
    ['帮我画一张夜里的火箭的图片', 'a rocket at night'],
    ['老鼠在弹吉他', 'mouse is playing guitar'],
    ['一只老鼠正在弹吉他', 'mouse is playing guitar'],
    ['弹吉他的猫', 'a cat and a guitar'],
    ['两只猫', 'two cats'],
    ['３只蓝色的猫', 'three blue cats'],
    ['一只猫 和 一只狗', 'a cat and a dog'],
    ['在沙滩上的螃蟹', 'a crab on the beach'],
  ]) assert.equal(reader.english(chinese), english, chinese);
});

test('what is not known is not guessed', () => {
  for (const text of ['', '宇航员骑马', '一只透明的猫', '猫和宇航员', '红色', '的', '一', '背景', '猫'.repeat(2000), '和'.repeat(2000)])
    assert.equal(reader.english(text), undefined, text.slice(0, 20));
});
