import { t } from './i18n.js';
import { announce, byId, create } from './ui.js';

/** @typedef {'connected' | 'connecting' | 'reconnecting' | 'disabled' | 'closed'} ConnectionState */

/** Shows the state of one connection in the header, and the way back when it is closed. */
export class Badge {
  #root;
  #label;
  #name;
  #onReconnect;
  #alert = null;

  /**
   * @param {import('./message.js').Transport} transport
   * @param {string} name
   * @param {() => void} onReconnect
   */
  constructor(transport, name, onReconnect) {
    this.#root = byId(`badge-${transport}`);
    this.#label = this.#root.querySelector('.badge-state');
    this.#name = name;
    this.#onReconnect = onReconnect;
  }

  /**
   * @param {ConnectionState} state
   * @param {string} [detail] the reconnect count, or why the connection is closed
   */
  show(state, detail) {
    // Every further attempt is a change of the count only, which nobody wants to hear.
    if (this.#root.dataset.state !== state) announce(`${this.#name} ${t(state)}`);
    this.#root.dataset.state = state;
    this.#label.textContent = state === 'reconnecting' ? t('reconnecting ({0})', detail) : t(state);
    this.#root.title = `${this.#name}: ${this.#label.textContent}`;
    this.#alert?.remove();
    if (state === 'closed') this.#offerReconnect(detail);
  }

  #offerReconnect(reason) {
    const button = create('button', { class: 'button button-small', text: t('Reconnect') });
    button.type = 'button';
    button.addEventListener('click', this.#onReconnect);
    const text = create('p', { text: t('{0} is closed: {1}.', this.#name, reason) });
    this.#alert = create('div', { class: 'alert' }, text, button);
    byId('connection-alerts').append(this.#alert);
  }
}
