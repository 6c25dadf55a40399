import { t } from './i18n.js';

const SVG = 'http://www.w3.org/2000/svg';
const TOAST_MS = 6_000;

/**
 * @param {string} id
 * @returns {any} the element; the page always has it
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Creates an element; text is only ever set as text, never parsed as HTML.
 * @param {string} tag
 * @param {{class?: string, text?: string | number, data?: object, attributes?: object, on?: object}} [options]
 * @param {...(Node | null)} children
 * @returns {any}
 */
export function create(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  if (options.class) element.className = options.class;
  if (options.text !== undefined) element.textContent = options.text;
  Object.assign(element.dataset, options.data);
  for (const [name, value] of Object.entries(options.attributes ?? {})) element.setAttribute(name, value);
  for (const [name, listener] of Object.entries(options.on ?? {})) element.addEventListener(name, listener);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * @param {string} tag
 * @param {object} [attributes]
 * @param {...Node} children
 * @returns {any}
 */
export function createSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** @param {string} name of a symbol in the page */
export function createIcon(name) {
  return createSvg('svg', { class: 'icon', 'aria-hidden': 'true' }, createSvg('use', { href: `#icon-${name}` }));
}

/**
 * @param {string} text
 * @param {{class?: string, data?: object, attributes?: object, click?: (event: Event) => void}} [options]
 * @returns {HTMLButtonElement}
 */
export function createButton(text, options = {}) {
  const { click, attributes, data } = options;
  const button = create('button', { class: `button ${options.class ?? ''}`.trim(), text, attributes, data });
  button.type = 'button';
  if (click) button.addEventListener('click', click);
  return button;
}

/**
 * @param {string} label
 * @param {HTMLElement} control
 * @param {string} [hint]
 */
export function createField(label, control, hint) {
  return create(
    'label',
    { class: 'field' },
    create('span', { class: 'field-label', text: label }),
    control,
    hint ? create('span', { class: 'hint', text: hint }) : null,
  );
}

/**
 * @param {{[name: string]: string}} attributes
 * @param {string} [value]
 * @returns {HTMLInputElement}
 */
export function createInput(attributes, value = '') {
  const all = { type: 'text', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', ...attributes };
  const input = create('input', { attributes: all });
  input.value = value;
  return input;
}

/**
 * @param {[value: string, text: string][]} options
 * @param {object} [attributes]
 * @returns {HTMLSelectElement}
 */
export function createSelect(options, attributes = {}) {
  return create('select', { attributes }, ...options.map(([value, text]) => new Option(text, value)));
}

/** @param {string} transport */
export function createTransport(transport) {
  const short = { websocket: 'WebSocket', sse: 'SSE' }[transport] ?? transport;
  return create('span', { class: 'tag', text: short, data: { transport } });
}

/**
 * A list that is empty, loading or has failed.
 * @param {string} title
 * @param {string} [text]
 * @param {...Node} actions
 */
export function createEmpty(title, text = '', ...actions) {
  return create(
    'div',
    { class: 'empty' },
    create('p', { class: 'empty-title', text: title }),
    text ? create('p', { class: 'empty-text', text }) : null,
    ...actions,
  );
}

export function createLoading() {
  return create('div', { class: 'empty', attributes: { 'aria-busy': 'true' } }, create('p', { class: 'spinner', text: t('Loading…') }));
}

/**
 * A table whose rows become cards on a phone, unless it is a narrow one.
 * @param {string} caption for screen readers
 * @param {string[]} columns
 * @param {(string | Node)[][]} rows
 * @param {{form?: 'cards' | 'narrow', keys?: (string | number)[]}} [options] `keys` tell the rows apart
 */
export function createTable(caption, columns, rows, { form = 'cards', keys } = {}) {
  const head = columns.map((text) => create('th', { text, attributes: { scope: 'col' } }));
  const cell = (content, index) => {
    const cell = create('td', { data: { label: columns[index] } });
    cell.append(content);
    return cell;
  };
  return create(
    'table',
    { class: `table ${form}` },
    create('caption', { class: 'visually-hidden', text: caption }),
    create('thead', {}, create('tr', {}, ...head)),
    create('tbody', {}, ...rows.map((row, index) => create('tr', keys ? { data: { key: keys[index] } } : {}, ...row.map(cell)))),
  );
}

/**
 * @param {HTMLElement} element
 * @param {string} text hides the element when empty
 */
export function setText(element, text) {
  element.textContent = text;
  element.hidden = text === '';
}

/**
 * Focuses a control, unless that would open the keyboard of a phone.
 * @param {HTMLElement} control
 */
export function focusFirst(control) {
  if (matchMedia('(pointer: fine)').matches) control.focus();
}

/**
 * Says a text to users of screen readers.
 * @param {string} text
 */
export function announce(text) {
  byId('announcer').textContent = text;
}

/**
 * Shows a text for some seconds.
 * @param {string} text
 * @param {'ok' | 'failed'} [state]
 */
export function toast(text, state = 'ok') {
  announce(text);
  const shown = create('p', { class: 'toast', text, data: { state } });
  byId('toasts').append(shown);
  setTimeout(() => shown.remove(), TOAST_MS);
}
