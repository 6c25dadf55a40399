import { zh } from './zh.js';

const chinese = navigator.languages.find((language) => /^(zh|en)\b/i.test(language))?.toLowerCase().startsWith('zh');

/** The language of the page, as a BCP 47 tag. */
export const language = chinese ? 'zh-CN' : 'en';

const ATTRIBUTES = ['aria-label', 'placeholder'];

/**
 * A text of the page in the visitor's language; `{0}`, `{1}` stand for the arguments.
 * @param {string} text in English
 * @param {...(string | number)} values
 * @returns {string}
 */
export function t(text, ...values) {
  const found = (chinese && zh[text]) || text;
  return found.replace(/\{(\d)\}/g, (_, index) => String(values[index]));
}

/**
 * Translates what the page's HTML holds.
 * @param {HTMLElement} root
 */
export function translate(root) {
  if (!chinese) return;
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node instanceof Text) {
      const text = node.data.trim().replace(/\s+/g, ' ');
      if (zh[text]) node.data = zh[text];
    } else if (node instanceof Element) {
      for (const name of ATTRIBUTES) {
        const text = node.getAttribute(name);
        if (text && zh[text]) node.setAttribute(name, zh[text]);
      }
    }
  }
}
