/** The names of the transports as tags show them. */
export const TRANSPORT_TAGS = { websocket: 'WS', sse: 'SSE' };

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

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
 * @param {{class?: string, text?: string, data?: Record<string, string | number | boolean>}} [options]
 * @param {...Node} children
 * @returns {any}
 */
export function create(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  if (options.class) element.className = options.class;
  if (options.text !== undefined) element.textContent = options.text;
  Object.assign(element.dataset, options.data);
  element.append(...children);
  return element;
}

/**
 * @param {import('./message.js').Transport} transport
 * @param {string} [text]
 */
export function createTag(transport, text = TRANSPORT_TAGS[transport]) {
  return create('span', { class: 'tag', text, data: { transport } });
}

/** @param {Date} date */
export function createTime(date) {
  const time = create('time', { text: clock.format(date) });
  time.dateTime = date.toISOString();
  return time;
}

/** @param {string} name */
export function initials(name) {
  return name.split(/\s+/).map((word) => word[0]).join('').slice(0, 2).toUpperCase();
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
 * Says a text to users of screen readers.
 * @param {string} text
 */
export function announce(text) {
  byId('announcer').textContent = text;
}

/** Time for which a control shows that its action is done. */
const DONE_MS = 1_200;

/**
 * Runs an action of the user, and reports its outcome next to the control and on it.
 * @param {HTMLElement} output
 * @param {() => Promise<string>} action returns the text to show on success
 * @param {HTMLElement | null} [control] what was pressed
 */
export async function perform(output, action, control) {
  delete output.dataset.failed;
  output.setAttribute('aria-busy', 'true');
  if (control) control.dataset.busy = '';
  try {
    output.textContent = await action();
    if (control) showDone(control);
  } catch (error) {
    output.dataset.failed = '';
    output.textContent = error.message;
  } finally {
    output.removeAttribute('aria-busy');
    if (control) delete control.dataset.busy;
  }
}

function showDone(control) {
  control.dataset.done = '';
  setTimeout(() => delete control.dataset.done, DONE_MS);
}
