import { byId, create, createTag, createTime } from './ui.js';
import { summarize } from './message.js';

const LIMIT = 200;

/** The list of everything that has arrived, newest first. */
export class Feed {
  #list = byId('feed');
  #count = byId('feed-count');
  #nameOf;

  /** @param {import('./message.js').NameOf} nameOf */
  constructor(nameOf) {
    this.#nameOf = nameOf;
    byId('feed-clear').addEventListener('click', () => {
      this.#list.replaceChildren();
      this.#showCount();
    });
    for (const radio of document.getElementsByName('feed-filter')) {
      radio.addEventListener('change', () => {
        this.#list.dataset.filter = radio.value;
      });
    }
  }

  /**
   * @param {import('./message.js').Transport} transport
   * @param {import('./message.js').Message} message
   */
  addMessage(transport, message) {
    const head = createHead(transport, message.type, message.time);
    const text = create('span', { class: 'feed-text', text: summarize(message, this.#nameOf) });
    const details = create(
      'details',
      {},
      create('summary', {}, head, text),
      create('pre', { class: 'feed-raw', text: message.raw }),
    );
    this.#prepend(create('li', { data: { message: '', transport, type: message.type } }, details));
  }

  /**
   * @param {import('./message.js').Transport} transport
   * @param {string} reason
   */
  addGap(transport, reason) {
    const head = createHead(transport, `gap: ${reason}`, new Date());
    const text = create('span', { class: 'feed-text', text: 'Some messages may have been missed' });
    this.#prepend(create('li', { class: 'feed-gap', data: { gap: '', transport, type: 'gap' } }, head, text));
  }

  #prepend(item) {
    this.#list.prepend(item);
    if (this.#list.childElementCount > LIMIT) this.#list.lastElementChild.remove();
    this.#showCount();
  }

  #showCount() {
    this.#count.textContent = this.#list.childElementCount;
  }
}

function createHead(transport, label, time) {
  const type = create('span', { class: 'feed-type', text: label });
  return create('span', { class: 'feed-head' }, createTag(transport), type, createTime(time));
}
