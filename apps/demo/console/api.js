import { t } from './i18n.js';

const TIMEOUT_MS = 10_000;

/** A request which the server refused, which did not reach it (status 0), or whose answer cannot be read. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server's API with the operator's key. Addresses are relative, so that a path prefix of a proxy may precede them. */
export class Api {
  #key;
  #refused;

  /**
   * @param {string} key
   * @param {(why: string) => void} refused called when the key is not accepted any more
   */
  constructor(key, refused) {
    this.#key = key;
    this.#refused = refused;
  }

  /**
   * Sends one request and returns the parsed answer.
   * @param {string} method
   * @param {string} path below `/api`
   * @param {{body?: object, signal?: AbortSignal, timeout?: number}} [options]
   * @returns {Promise<any>}
   * @throws {ApiError}
   */
  async call(method, path, { body, signal, timeout = TIMEOUT_MS } = {}) {
    const ends = [AbortSignal.timeout(timeout), ...(signal ? [signal] : [])];
    const response = await this.#send(method, path, body, AbortSignal.any(ends));
    const answer = await response.json().catch(() => null);
    if (!response.ok) throw this.#error(response.status, answer?.msg);
    // The page of a proxy, or a body that was cut off.
    if (answer === null) throw new ApiError(response.status, t('The answer cannot be read.'));
    return answer;
  }

  /**
   * Sends one request and returns the answer's body as it arrives.
   * @param {string} path below `/api`
   * @param {object} body
   * @param {AbortSignal} signal
   * @returns {Promise<ReadableStream<Uint8Array>>}
   * @throws {ApiError}
   */
  async stream(path, body, signal) {
    const response = await this.#send('POST', path, body, signal);
    if (response.ok && response.body) return response.body;
    const answer = await response.json().catch(() => null);
    throw this.#error(response.status, answer?.msg);
  }

  async #send(method, path, body, signal) {
    const headers = { 'X-API-Key': this.#key };
    if (body) headers['Content-Type'] = 'application/json';
    try {
      return await fetch(`../api/${path}`, { method, headers, signal, body: body && JSON.stringify(body) });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new ApiError(0, t('The server cannot be reached.'));
    }
  }

  #error(status, message) {
    if (status === 401) this.#refused(t('The key is not accepted.'));
    return new ApiError(status, message || t('The server answered with status {0}.', status));
  }
}
