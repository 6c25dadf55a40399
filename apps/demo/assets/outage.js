import { language, t } from './i18n.js';
import { announce, byId } from './ui.js';

const SHOWN_MS = 5_000;

const list = new Intl.ListFormat(language);

/** Tells above the cards why connections are away, and that they are back. */
export class Outage {
  #root = byId('outage');
  #why = byId('outage-why');
  #what = byId('outage-what');
  /** Names of the connections that are away. */
  #away = new Set();
  #end = null;
  #timer = 0;

  /**
   * @param {string} name of the connection
   * @param {ReturnType<import('./ends.js').passingEnd>} end
   */
  begin(name, end) {
    // What fails later in an outage knows less about its cause than what failed first.
    if (!this.#end || (end.known && !this.#end.known)) this.#end = end;
    if (this.#away.size === 0) announce(this.#end.now);
    this.#away.add(name);
    const names = [...this.#away].sort().reverse();
    this.#show('away', this.#end.now, t('Reconnecting: {0}.', list.format(names)));
  }

  /** @param {string} name */
  end(name) {
    if (!this.#away.delete(name) || this.#away.size > 0) return;
    this.#show('back', t('Connected again.'), this.#end.then);
    this.#end = null;
    this.#timer = setTimeout(() => (this.#root.hidden = true), SHOWN_MS);
  }

  #show(state, why, what) {
    clearTimeout(this.#timer);
    this.#root.dataset.state = state;
    this.#why.textContent = why;
    this.#what.textContent = what;
    this.#root.hidden = false;
  }
}
