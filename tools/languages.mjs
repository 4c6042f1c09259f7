// The pages in other languages. English stands in www/NAME.html and nowhere else; languages/LANGUAGE/NAME.txt has what it
// becomes, text by text, and www/LANGUAGE/NAME.html is made of both:
//   node tools/languages.mjs          (build.sh does it wherever the pages are served or published)
// An English text is its own key. So a text that changes has no translation any more, and that is said: a page in half
// of two languages is never made.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What stands in `lang`, where that is not the folder's name. @type {Record<string, string>} */
const TAGS = { zh: 'zh-Hans' };

/** These stand within a text; every other tag ends one. */
const INLINE = /^<\/?(?:a|abbr|b|bdi|br|cite|code|em|i|kbd|mark|math|q|s|small|span|strong|sub|sup|var)[\s>/]/i;
/** What stands in them is for no reader, or for every reader alike. */
const SAME_FOR_ALL = /<(math|code|kbd|var)[\s>].*?<\/\1>/gis;
const ATTRIBUTES = /\s(?:title|placeholder|alt|label|aria-label|aria-description|aria-valuetext)="([^"]*)"/g;
const DESCRIPTION = /^<meta name="description" content="([^"]*)"/;
const TOKENS = /<!--.*?-->|<(script|style)[\s>].*?<\/\1>|<(?:\/?[a-z]|!)(?:"[^"]*"|'[^']*'|[^"'>])*>|[^<]+/gis;
const VOID = /^<(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)[\s>/]/i;

const collapsed = (/** @type {string} */ text) => text.replace(/\s+/g, ' ').trim();
const hasWords = (/** @type {string} */ html) =>
  /\p{L}/u.test(html.replace(SAME_FOR_ALL, '').replace(/<[^>]*>/g, '').replace(/&\w+;/g, ''));
const tagsOf = (/** @type {string} */ html) => (html.match(/<[^>]*>/g) ?? []).sort().join('');

/**
 * Reads `English`, below it `= translation`; "= =" is the same. Lines that begin with "#" are comments.
 * @param {string} text
 * @returns {Map<string, string>}
 */
export function readCatalogue(text) {
  /** @type {Map<string, string>} */
  const found = new Map();
  let english = '';
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('= ')) {
      const said = line.slice(2).trim();
      if (!english) throw new Error(`no English above "${line}"`);
      if (found.has(english)) throw new Error(`twice: ${english}`);
      found.set(english, said === '=' ? english : said);
      english = '';
    } else if (line.trim() !== '' && !line.startsWith('#')) {
      if (english) throw new Error(`no translation below "${english}"`);
      english = collapsed(line);
    }
  }
  if (english) throw new Error(`no translation below "${english}"`);
  return found;
}

/**
 * A page with every text replaced.
 * @param {string} html
 * @param {(english: string) => string} say
 */
export function translated(html, say) {
  let out = '', text = '';
  /** Elements around what is read now that are not to be translated, or that are math. */
  let untouched = 0, math = 0;
  const flush = () => {
    const [, before, inner, after] = /^(\s*)(.*?)(\s*)$/s.exec(text) ?? [];
    out += inner && hasWords(inner) ? before + say(collapsed(inner)) + after : text;
    text = '';
  };
  for (const [token, raw] of html.matchAll(TOKENS)) {
    const isTag = token.startsWith('<'), closes = token.startsWith('</');
    if (/^<math[\s>]/i.test(token)) math++;
    if (untouched > 0) {
      out += token;
      if (isTag && !raw && !VOID.test(token) && !token.startsWith('<!')) untouched += closes ? -1 : 1;
    } else if (!isTag || (INLINE.test(token) || math > 0)) {
      text += token;
    } else {
      flush();
      if (/\stranslate="no"/.test(token)) {
        untouched = VOID.test(token) ? 0 : 1;
        out += token;
      } else if (raw || token.startsWith('<!')) {
        out += token;
      } else {
        const one = (/** @type {string} */ whole, /** @type {string} */ english) =>
          (hasWords(english) ? whole.replace(`"${english}"`, () => `"${say(collapsed(english))}"`) : whole);
        out += token.replace(ATTRIBUTES, one).replace(DESCRIPTION, one);
      }
    }
    if (/^<\/math>/i.test(token)) math--;
  }
  flush();
  return out;
}

/**
 * What stands a folder deeper: other pages of its language lie beside it, all else above.
 * @param {string} html
 * @param {{ tag: string, language: string, pages: string[] }} where pages: names of those in this language
 */
function moved(html, { tag, language, pages }) {
  const beside = new Set(pages.flatMap(page => (page === 'index.html' ? ['./', page] : [page])));
  return html
    .replace(/<html lang="[^"]*"/, `<html lang="${tag}"`)
    .replace(/"messages\/(.*?)en\.js"/g, `"messages/$1${language}.js"`)
    .replace('"manifest.webmanifest"', `"manifest-${language}.webmanifest"`)
    .replace(/<[a-z](?:"[^"]*"|[^">])*>/gi, element => {
      const of = /\shreflang="([^"]*)"/.exec(element)?.[1];
      const addressed = element.replace(/\s(href|src)="([^"]*)"/g, (whole, name, address) => {
        const stays = /^(?:[a-z]+:|\/\/|#|$)/i.test(address) || (!of && beside.has(address.split(/[?#]/)[0]));
        return stays ? whole : ` ${name}="../${address.replace(/^\.\//, '')}"`;
      });
      if (!of || !/^<a\s/i.test(element)) return addressed;
      const current = addressed.replace(/ aria-current="[^"]*"/, '');
      return of === tag ? current.replace(/>$/, ' aria-current="true">') : current;
    });
}

/**
 * Makes the pages of all languages, beside the English ones.
 * @param {string} www
 * @param {string} catalogues folder of languages
 * @returns {string[]} the pages that were made, from www
 * @throws {Error} which lists every text that has no translation and every translation that has no text
 */
export function render(www, catalogues = join(root, 'languages')) {
  /** @type {string[]} */
  const wrong = [], made = [];
  const english = readdirSync(www).filter(name => name.endsWith('.html'))
    .map(name => ({ name, html: readFileSync(join(www, name), 'utf8') }))
    .filter(({ html }) => !/<html[^>]* translate="no"/.test(html));
  const pages = english.map(({ name }) => name);
  const languages = readdirSync(catalogues, { withFileTypes: true }).filter(entry => entry.isDirectory());
  for (const { name: language } of languages) {
    const tag = TAGS[language] ?? language;
    rmSync(join(www, language), { recursive: true, force: true });
    mkdirSync(join(www, language));
    for (const { name, html } of english) {
      const path = join(catalogues, language, `${basename(name, '.html')}.txt`);
      if (!existsSync(path)) wrong.push(`languages/${language}/${basename(path)} is missing: ${name} has no translation`);
      const catalogue = readCatalogue(existsSync(path) ? readFileSync(path, 'utf8') : '');
      const used = new Set();
      const page = translated(html, text => {
        used.add(text);
        const said = catalogue.get(text);
        if (said === undefined) wrong.push(`${language}/${name} lacks: ${text}`);
        else if (tagsOf(said) !== tagsOf(text)) wrong.push(`${language}/${name} has other tags than: ${text}`);
        return said ?? text;
      });
      for (const text of catalogue.keys()) if (!used.has(text)) wrong.push(`${language}/${name} does not have: ${text}`);
      writeFileSync(join(www, language, name), moved(page, { tag, language, pages }));
      made.push(`${language}/${name}`);
    }
  }
  if (wrong.length > 0) throw new Error([...new Set(wrong)].join('\n'));
  return made;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    render(join(root, 'www'));
  } catch (error) {
    console.error(/** @type {Error} */ (error).message);
    process.exitCode = 1;
  }
}
