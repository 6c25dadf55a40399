import { byId, create, createTag, createTime } from './ui.js';
import { parseMessage, summarize } from './message.js';
import { t } from './i18n.js';

const LIMIT = 200;
/** Events that come so often that they would cover all others; shown when they are asked for. */
const NOISY = new Set(['dashboard']);

/** The list of everything that has arrived, newest first, over reloads of the page. */
export class Feed {
  #list = byId('feed');
  #count = byId('feed-count');
  #filters = byId('feed-filters');
  #empty = byId('feed-empty');
  #nameOf;
  #storageKey;
  /** What the list shows, oldest first. */
  #items = [];
  #hidden = new Set(NOISY);
  /** The number of messages of each type, beside its button. */
  #types = new Map();

  /**
   * @param {import('./message.js').NameOf} nameOf
   * @param {string} storageKey where the messages are kept over a reload
   */
  constructor(nameOf, storageKey) {
    this.#nameOf = nameOf;
    this.#storageKey = storageKey;
    byId('feed-clear').addEventListener('click', () => {
      this.#items = [];
      this.#list.replaceChildren();
      this.#refresh();
    });
    this.#restore();
    this.#refresh();
  }

  /**
   * @param {import('./message.js').Transport} transport
   * @param {string | null} id the message's position
   * @param {import('./message.js').Message} message
   */
  addMessage(transport, id, message) {
    const key = id ?? message.raw;
    // Anywhere: after a reload one transport may replay all before the other begins.
    const twin = this.#items.find(
      (item) => item.key === key && item.transports && !item.transports.includes(transport),
    );
    if (twin) {
      twin.transports.push(transport);
      twin.element.querySelector('.feed-tags').append(createTag(transport));
      return;
    }
    this.#show({ key, transports: [transport], payload: message.payload, time: message.time.getTime() }, message);
    this.#refresh();
  }

  /**
   * @param {import('./message.js').Transport} transport
   * @param {string} reason
   */
  addGap(transport, reason) {
    this.#show({ gap: transport, reason, time: Date.now() });
    this.#refresh();
  }

  /** The messages of the list, oldest first. */
  get messages() {
    return this.#items.filter((item) => !item.gap).map((item) => parseMessage(item.payload, item.time));
  }

  /** Keeps the messages for the page that follows a reload. */
  store() {
    const items = this.#items.map(({ element, ...item }) => item);
    try {
      sessionStorage.setItem(this.#storageKey, JSON.stringify(items));
    } catch {
      // No room: the messages stay on the server, the list begins anew.
      sessionStorage.removeItem(this.#storageKey);
    }
  }

  #restore() {
    const items = JSON.parse(sessionStorage.getItem(this.#storageKey) ?? '[]');
    sessionStorage.removeItem(this.#storageKey);
    for (const item of items) this.#show(item, item.gap ? undefined : parseMessage(item.payload, item.time));
  }

  #show(item, message) {
    const element = item.gap ? createGap(item) : this.#createMessage(item, message);
    this.#list.prepend(element);
    this.#items.push({ ...item, element });
    if (this.#items.length > LIMIT) this.#items.shift().element.remove();
  }

  #createMessage({ transports }, message) {
    this.#offerFilter(message.type);
    const head = createHead(transports, message.type, message.time);
    const text = create('span', { class: 'feed-text', text: summarize(message, this.#nameOf) });
    const raw = create('pre', { class: 'feed-raw', text: message.raw });
    const details = create('details', {}, create('summary', {}, head, text), raw);
    const item = create('li', { data: { message: '', type: message.type } }, details);
    item.hidden = this.#hidden.has(message.type);
    return item;
  }

  #offerFilter(type) {
    if (this.#types.has(type)) return;
    const count = create('span', { class: 'chip-count' });
    const filter = create('button', { class: 'chip' }, create('span', { text: type }), count);
    filter.type = 'button';
    filter.setAttribute('aria-pressed', String(!this.#hidden.has(type)));
    filter.addEventListener('click', () => this.#toggle(type, filter));
    this.#filters.append(filter);
    this.#types.set(type, count);
  }

  #toggle(type, filter) {
    const hide = !this.#hidden.delete(type);
    if (hide) this.#hidden.add(type);
    filter.setAttribute('aria-pressed', String(!hide));
    for (const { element } of this.#items) if (element.dataset.type === type) element.hidden = hide;
    this.#refresh();
  }

  #refresh() {
    const shown = this.#items.filter(({ element }) => !element.hidden).length;
    this.#count.textContent = shown;
    this.#empty.hidden = shown > 0;
    this.#empty.textContent =
      this.#items.length > 0
        ? t('All that has come is hidden. Choose above what to show.')
        : t('Nothing here yet. Messages appear as they arrive.');
    for (const [type, count] of this.#types) {
      count.textContent = this.#items.filter(({ element }) => element.dataset.type === type).length;
    }
  }
}

function createGap({ gap, reason, time }) {
  const head = createHead([gap], t('gap: {0}', reason), new Date(time));
  const text = create('span', { class: 'feed-text', text: t('Some messages may have been missed') });
  return create('li', { class: 'feed-gap', data: { gap: '', type: 'gap' } }, head, text);
}

function createHead(transports, label, time) {
  const tags = create('span', { class: 'feed-tags' }, ...transports.map((transport) => createTag(transport)));
  const type = create('span', { class: 'feed-type', text: label });
  return create('span', { class: 'feed-head' }, type, tags, createTime(time));
}
