import { connect } from './realtime.js';

/** Ends after which this login is not taken any more, and what they mean to its user. */
const OVER = new Map([
  ['kicked', 'an administrator ended it'],
  ['revoked', 'the login was revoked'],
  ['token-expired', 'the login has expired'],
]);

/**
 * @typedef {object} ChannelOptions
 * @property {import('./message.js').Transport} transport
 * @property {string} path
 * @property {import('./session.js').Session} session
 * @property {(message: {id: string | null, data: string}) => void} onMessage
 * @property {(reason: string) => void} onGap
 * @property {(state: import('./badge.js').ConnectionState, detail?: string) => void} onState
 * @property {(why?: string) => void} onSessionOver the server takes the login no longer
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

  #show({ state, code, reason }) {
    const { onState, onSessionOver } = this.#options;
    if (!this.#connection) return;
    if (state === 'live') {
      this.#attempts = 0;
      onState('connected');
    } else if (state === 'waiting') {
      this.#attempts += 1;
      onState('reconnecting', String(this.#attempts));
    } else if (state === 'connecting' && this.#attempts === 0) {
      onState('connecting');
    } else if (state === 'refused' || state === 'closed') {
      onState('closed', reason || `code ${code}`);
      // A stream is told by its status alone.
      if (OVER.has(reason) || code === 401 || code === 204) onSessionOver(OVER.get(reason));
    }
  }
}
