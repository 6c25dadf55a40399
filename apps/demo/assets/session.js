import { request } from './api.js';
import { endOfLogin } from './ends.js';
import { t } from './i18n.js';

const STORAGE_KEY = 'realtime.session';

/** @typedef {{id: import('./message.js').UserId, username: string, name: string, role: string}} User */

/**
 * @typedef {object} Config
 * @property {string} node
 * @property {string} version
 * @property {boolean} login logins are made here
 * @property {string | null} passwordHint
 * @property {{enabled: boolean, path: string}} websocket
 * @property {{enabled: boolean, path: string}} sse
 * @property {User[]} users
 */

/** One user signed in on this page. */
export class Session {
  #abort = new AbortController();
  #onUnauthorized;

  /**
   * @param {Config} config
   * @param {string} token
   * @param {User} user
   * @param {(why: string) => void} onUnauthorized the server does not accept the token any more
   */
  constructor(config, token, user, onUnauthorized) {
    this.config = config;
    this.token = token;
    this.user = user;
    this.#onUnauthorized = onUnauthorized;
  }

  /** Aborted when the session ends on this page. */
  get signal() {
    return this.#abort.signal;
  }

  end() {
    this.#abort.abort();
  }

  /**
   * Calls the server as this user and returns the `data` of the reply.
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @returns {Promise<any>}
   */
  async call(method, path, body) {
    try {
      const reply = await request(method, path, { token: this.token, body });
      // Some answers are bare.
      return reply.data === undefined ? reply : reply.data;
    } catch (error) {
      const over = endOfLogin({ state: 'refused', code: error.status, reason: error.message });
      if (over !== null && !this.signal.aborted) this.#onUnauthorized(over);
      throw error;
    }
  }

  /**
   * @param {string} id as the value of an option has it
   * @returns {User}
   */
  userOf(id) {
    return this.config.users.find((user) => String(user.id) === id);
  }

  /** @type {import('./message.js').NameOf} */
  nameOf(userId) {
    return this.config.users.find((user) => user.id === userId)?.name ?? t('user {0}', userId);
  }
}

/**
 * Keeps the sign-in over a reload; per tab, so that two tabs can be two users.
 * @param {string} token
 * @param {string} username
 */
export function storeSignIn(token, username) {
  sessionStorage.setItem(STORAGE_KEY, JSON.stringify({ token, username }));
}

/** @returns {{token: string, username: string} | null} */
export function storedSignIn() {
  return JSON.parse(sessionStorage.getItem(STORAGE_KEY));
}

export function forgetSignIn() {
  sessionStorage.removeItem(STORAGE_KEY);
}
