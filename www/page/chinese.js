/**
 * Chinese prompts for the embedded model, whose English is better than its Chinese: by a lexicon of its nouns, colours,
 * grounds and scenes, and the few patterns in which they stand.
 */
/**
 * The words that the model's captions have (www/lexicon-zh.json, which its training reads too).
 * @typedef {object} Lexicon
 * @property {Record<string, { names: string[], measure: string, article?: boolean, plural?: string }>} nouns
 * @property {Record<string, string[]>} colours
 * @property {Record<string, { before: string[], after: string[] }>} scenes
 */

const HAN = /\p{Script=Han}/u;
/** The plainest place for each, as the captions have it. */
const NUMBERS = new Map([
  ['一', 1], ['1', 1], ['两', 2], ['二', 2], ['2', 2], ['三', 3], ['3', 3],
]);
const COUNTED = [, '', 'two', 'three'];
/** What stands around a thing and says nothing of it. */
const ASKING = /^(?:请|帮我|给我)*(?:画|绘制|生成)?(?:一(?:张|幅|个))?(?=.)/u;
const OF_A_PICTURE = /的(?:图片|图画|图像|画|照片|表情符号|表情)$/u;
const AND = /(?:和|与|跟|以及|还有|、)/u;
const PLAYS_GUITAR = /^(.+?)(?:正在|在)?弹吉他$|^(?:正在|在)?弹吉他的(.+)$/u;

/** What a Chinese keyboard types for signs that mean something in a prompt. */
const FULL_WIDTH = '（）［］｛｝：｜＜＞，';
const HALF_WIDTH = '()[]{}:|<>,';

/** A prompt with those as ASCII has them: sign for sign, so that places in it stay. @param {string} prompt */
export const halfWidth = (prompt) => prompt.replace(/[（）［］｛｝：｜＜＞，]/gu, (sign) => HALF_WIDTH[FULL_WIDTH.indexOf(sign)]);

/** @returns {Promise<Lexicon>} */
export const readLexicon = async () => (await fetch(new URL('../lexicon-zh.json', import.meta.url))).json();

/** Whether there is Chinese in a text. @param {string} text */
export const isChinese = (text) => HAN.test(text);

/** What in a prompt is no sentence: names of LoRAs, brackets, weights and steps, AND and BREAK, lines. */
const SIGNS = /(<[^<>]*>|:\s*[\d.]+(?=[)\]])|[()[\]{}|\\\n:]|\b(?:AND|BREAK)\b)/;

/**
 * A prompt, its Chinese parts translated one by one: a translator knows nothing of the signs between them.
 * @param {string} prompt
 * @param {(text: string) => Promise<string>} translate
 */
export async function translated(prompt, translate) {
  let words = '';
  let wasWords = false;
  for (const part of prompt.split(SIGNS)) {
    const [, before = '', text = '', after = ''] = /^(\s*)(.*?)(\s*)$/su.exec(part) ?? [];
    const chinese = isChinese(text) && !text.startsWith('<');
    // Chinese has no room between words.
    const joins = (chinese || wasWords) && !before && /[\p{L}\p{N})\]}>"]$/u.test(words) && /^[^)\]}|:,\n]/u.test(text);
    const english = chinese ? (await translate(text)).trim().replace(/[.。]$/u, '') : text;
    words += `${joins ? ' ' : ''}${before}${english}${after}`;
    if (part) wasWords = chinese;
  }
  return words;
}

/** Longest first, so that 熊猫 is not read as 熊. @param {Record<string, string[]>} words @returns {[string, string][]} */
const byLength = (words) =>
  Object.entries(words).flatMap(([english, names]) =>
    names.map((name) => /** @type {[string, string]} */ ([name, english])))
    .sort(([a], [b]) => b.length - a.length);

/** @param {string} words that a noun ends */
const withArticle = (words) => `${/^[aeio]|^umbrella/.test(words) ? 'an' : 'a'} ${words}`;

export class ChineseReader {
  #nouns;
  #names;
  #colours;
  #scenes;
  #counted;

  /** @param {Lexicon} lexicon */
  constructor({ nouns, colours, scenes }) {
    this.#nouns = nouns;
    this.#names = byLength(Object.fromEntries(Object.entries(nouns).map(([noun, { names }]) => [noun, names])));
    this.#colours = byLength(colours);
    const measures = new Set(['个', ...Object.values(nouns).map(({ measure }) => measure)]);
    this.#counted = new RegExp(`^([${[...NUMBERS.keys()].join('')}]?)(?:${[...measures].join('|')})?(.*)$`, 'u');
    this.#scenes = byLength(Object.fromEntries(
      Object.entries(scenes).map(([scene, { before, after }]) => [scene, [...before, ...after]])));
  }

  /** The caption that a Chinese prompt asks for; undefined where a word of it is not known. @param {string} prompt */
  english(prompt) {
    // Full-width signs are what a Chinese keyboard types.
    let text = prompt.normalize('NFKC').replace(/\s+/gu, '').replace(/[.!?。]+$/u, '');
    text = text.replace(ASKING, (asking) => (/^一/u.test(asking) ? asking : '')).replace(OF_A_PICTURE, '');
    const ground = this.#ground(text);
    const scene = ground ? undefined : this.#scene(text);
    const things = this.#things((ground ?? scene)?.rest ?? text);
    return things && things + ((ground ?? scene)?.words ?? '');
  }

  /** `蓝色背景上的…`, `…，蓝色背景`. @param {string} text */
  #ground(text) {
    for (const [name, colour] of this.#colours) {
      const before = new RegExp(`^在?${name}的?背景[上下里中前]?的?[,、]?`, 'u');
      const after = new RegExp(`[,、]?在?${name}的?背景[上下里中]?$`, 'u');
      for (const pattern of [before, after]) {
        const rest = text.replace(pattern, '');
        if (rest !== text) return { rest, words: ` on ${withArticle(colour)} background` };
      }
    }
    return undefined;
  }

  /** `夜里的…`, `…在夜里`. @param {string} text */
  #scene(text) {
    for (const [name, scene] of this.#scenes) {
      const bare = name.replace(/^在/u, '').replace(/的$/u, '');
      const rest = text.replace(new RegExp(`^在?${bare}的?[,、]?|[,、]?在?${bare}$`, 'u'), '');
      if (rest !== text) return { rest, words: ` ${scene}` };
    }
    return undefined;
  }

  /** @param {string} text */
  #things(text) {
    const player = PLAYS_GUITAR.exec(text);
    if (player) {
      const who = this.#thing(player[1] ?? player[2]);
      return who?.noun === 'mouse' && !who.colour ? 'mouse is playing guitar' : who && `${who.words} and a guitar`;
    }
    const parts = text.split(AND).map((part) => this.#thing(part));
    if (parts.some((part) => !part)) return undefined;
    return parts.map((part) => part?.words).join(' and ');
  }

  /** `一只红色的猫`. @param {string} text */
  #thing(text) {
    const [, number = '', described = ''] = this.#counted.exec(text) ?? [];
    // Some names begin as a count does: they are looked for whole first.
    for (const [count, words] of /** @type {const} */ ([['', text], [number, described]])) {
      for (const [name, noun] of this.#names) {
        if (!words.endsWith(name)) continue;
        const adjective = words.slice(0, -name.length).replace(/的$/u, '');
        const colour = adjective && this.#colours.find(([word]) => word === adjective)?.[1];
        if (adjective && !colour) continue;
        return { noun, colour, words: this.#words(noun, colour, NUMBERS.get(count) ?? 1) };
      }
    }
    return undefined;
  }

  /** @param {string} noun @param {string | undefined} colour @param {number} count */
  #words(noun, colour, count) {
    const { article = true, plural } = this.#nouns[noun];
    const described = [COUNTED[count], colour, count > 1 ? plural ?? pluralOf(noun) : noun].filter(Boolean).join(' ');
    return count > 1 || !article ? described : withArticle(described);
  }
}

/** The plainest Chinese for what the captions have: `ChineseReader` reads it as that again. @param {Lexicon} lexicon */
export const writeChinese = ({ nouns, colours, scenes }) => ({
  /** @param {string} noun @param {string} [colour] */
  thing(noun, colour) {
    const { names: [name], measure } = nouns[noun];
    return `一${measure}${colour ? `${colours[colour][0]}的` : ''}${name}`;
  },
  /** @param {string} noun @param {string} colour */
  onGround: (noun, colour) => `${colours[colour][0]}背景上的${nouns[noun].names[0]}`,
  /** @param {string} noun @param {string} scene */
  inScene: (noun, scene) => `${scenes[scene].before[0]}${nouns[noun].names[0]}`,
});

/** @param {string} noun */
function pluralOf(noun) {
  if (/(?:s|x|ch)$/.test(noun)) return `${noun}es`;
  return /[^aeiou]y$/.test(noun) ? `${noun.slice(0, -1)}ies` : `${noun}s`;
}
