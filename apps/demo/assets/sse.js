import { authQuery } from './api.js';

/**
 * @typedef {object} SseOptions
 * @property {string} path
 * @property {string} token
 * @property {(payload: string) => void} onMessage
 * @property {(reason: string) => void} onGap
 * @property {(state: import('./badge.js').ConnectionState, detail?: string) => void} onState
 */

/** An event stream; the browser itself reconnects it and resumes at the last event. */
export class SseConnection {
  #options;
  #source = null;
  #attempt = 0;

  /** @param {SseOptions} options */
  constructor(options) {
    this.#options = options;
  }

  start() {
    const { path, token, onMessage, onGap, onState } = this.#options;
    this.#source?.close();
    this.#attempt = 0;
    onState('connecting');

    const source = new EventSource(`${path}?${authQuery(token)}&clientid=web`);
    source.onopen = () => {
      this.#attempt = 0;
      onState('connected');
    };
    source.onmessage = (event) => onMessage(event.data);
    source.addEventListener('presence', (event) => onMessage(event.data));
    source.addEventListener('gap', (event) => onGap(JSON.parse(event.data).reason));
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) {
        onState('closed', 'the server ended the stream');
        return;
      }
      this.#attempt += 1;
      onState('reconnecting', String(this.#attempt));
    };
    this.#source = source;
  }

  /** Tells the server too: it would notice the end of a stream only at its next write. */
  stop() {
    const { path, token } = this.#options;
    this.#source?.close();
    navigator.sendBeacon(`${path}/close?${authQuery(token)}&clientid=web`);
  }
}
