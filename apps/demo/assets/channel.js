import { endOfLogin, passingEnd } from './ends.js';
import { connect } from './realtime.js';

/**
 * @typedef {object} ChannelOptions
 * @property {import('./message.js').Transport} transport
 * @property {string} path
 * @property {import('./session.js').Session} session
 * @property {(message: {id: string | null, data: string}) => void} onMessage
 * @property {(reason: string) => void} onGap
 * @property {(state: import('./badge.js').ConnectionState, detail?: string) => void} onState
 * @property {(end: ReturnType<typeof passingEnd>) => void} onAway it has ended, and comes back
 * @property {(why: string) => void} onSessionOver the server takes the login no longer
 */

/** One of the page's two connections: each keeps to its transport, so that the page can show both. */
export class Channel {
  #options;
  #connection = null;
  #attempts = 0;

  /** @param {ChannelOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /** The connection of `@realtime/client`. */
  get connection() {
    return this.#connection;
  }

  start() {
    const { transport, path, session, onMessage, onGap } = this.#options;
    this.stop();
    this.#attempts = 0;
    this.#connection = connect({
      // Relative to the page, which may be behind a path of its own.
      url: { [transport]: new URL(`.${path}`, document.baseURI).href },
      token: session.token,
      clientId: 'web',
      transports: [transport],
      // Keeps the stream's token out of its address.
      headers: {},
      name: String(session.user.id),
    });
    this.#connection.on('*', onMessage);
    this.#connection.on('gap', ({ reason }) => onGap(reason));
    this.#connection.on('status', (status) => this.#show(status));
  }

  stop() {
    this.#connection?.close();
    this.#connection = null;
  }

  /** @param {string} text */
  send(text) {
    if (!this.#connection) throw new Error('not connected');
    this.#connection.send(text);
  }

  #show(status) {
    const { onState, onAway, onSessionOver } = this.#options;
    if (!this.#connection) return;
    const { state, code, reason } = status;
    const over = endOfLogin(status);
    if (over !== null) {
      onState('closed', over || reason || `code ${code}`);
      onSessionOver(over);
    } else if (state === 'live') {
      this.#attempts = 0;
      onState('connected');
    } else if (state === 'waiting') {
      this.#attempts += 1;
      onState('reconnecting', String(this.#attempts));
      onAway(passingEnd(reason));
    } else if (state === 'connecting' && this.#attempts === 0) {
      onState('connecting');
    } else if (state === 'refused' || state === 'closed') {
      onState('closed', reason || `code ${code}`);
    }
  }
}
