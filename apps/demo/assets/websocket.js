import { authQuery } from './api.js';

const PROTOCOL = 'realtime.v1';
const DEFAULT_PING_INTERVAL_MS = 20_000;
const BACKOFF_BASE_MS = 500;
const BACKOFF_LIMIT_MS = 10_000;
const FRESH_DIAL_MS = 2_000;

const FINAL_CODES = new Set([1000, 1008, 4401, 4403, 4409]);
const SESSION_OVER_CODES = new Set([4401, 4409]);

/**
 * @typedef {object} WebSocketOptions
 * @property {string} path
 * @property {string} token
 * @property {(payload: string) => void} onMessage
 * @property {(reason: string) => void} onGap
 * @property {(state: import('./badge.js').ConnectionState, detail?: string) => void} onState
 * @property {() => void} onSessionOver the server ended the session of this token
 */

/** A WebSocket which reconnects and resumes at the last seen position. */
export class WebSocketConnection {
  #options;
  #socket = null;
  #running = false;
  #cursor = null;
  #bye = null;
  #attempt = 0;
  #dialedAt = 0;
  #pingInterval = DEFAULT_PING_INTERVAL_MS;
  #redialTimer = 0;
  #watchdogTimer = 0;

  /** @param {WebSocketOptions} options */
  constructor(options) {
    this.#options = options;
  }

  start() {
    this.#running = true;
    this.#attempt = 0;
    this.#dial();
  }

  stop() {
    this.#running = false;
    this.#release(1000);
  }

  /** Redials at once: for moments at which the network or the page has just come back. */
  wake() {
    const open = this.#socket?.readyState === WebSocket.OPEN;
    const dialing = this.#socket && Date.now() - this.#dialedAt < FRESH_DIAL_MS;
    if (this.#running && !open && !dialing) this.#dial();
  }

  /**
   * @param {string} data
   * @returns {boolean} whether the message was handed to the network
   */
  send(data) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#write({ type: 'message', data });
    return true;
  }

  #dial() {
    this.#release();
    this.#bye = null;
    this.#dialedAt = Date.now();
    if (this.#attempt === 0) this.#options.onState('connecting');
    else this.#options.onState('reconnecting', String(this.#attempt));

    const socket = new WebSocket(this.#url(), [PROTOCOL]);
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.#lose(event.code, event.reason);
    this.#socket = socket;
    this.#expectFrame();
  }

  #url() {
    const url = new URL(this.#options.path, location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    url.search = `${authQuery(this.#options.token)}&clientid=web`;
    if (this.#cursor) url.search += `&cursor=${encodeURIComponent(this.#cursor)}`;
    return url.href;
  }

  #receive(frame) {
    if (frame.type === 'hello') {
      this.#attempt = 0;
      this.#pingInterval = frame.pingInterval ?? DEFAULT_PING_INTERVAL_MS;
      this.#options.onState('connected');
    }
    this.#expectFrame();
    // Message frames carry their position as `id`, all the others as `cursor`.
    this.#cursor = frame.id ?? frame.cursor ?? this.#cursor;

    if (frame.type === 'message') this.#options.onMessage(frame.data);
    else if (frame.type === 'gap') this.#options.onGap(frame.reason);
    else if (frame.type === 'ping') this.#write({ type: 'pong' });
    else if (frame.type === 'bye') this.#bye = frame;
  }

  #lose(code, reason) {
    this.#release();
    if (FINAL_CODES.has(code) || this.#bye?.retry === null) {
      this.#running = false;
      this.#options.onState('closed', reason || this.#bye?.reason || `code ${code}`);
      if (SESSION_OVER_CODES.has(code)) this.#options.onSessionOver();
      return;
    }
    const ceiling = Math.min(BACKOFF_LIMIT_MS, BACKOFF_BASE_MS * 2 ** this.#attempt);
    const delay = this.#bye?.retry ?? Math.random() * ceiling;
    this.#attempt += 1;
    this.#options.onState('reconnecting', String(this.#attempt));
    this.#redialTimer = setTimeout(() => this.#dial(), delay);
  }

  #expectFrame() {
    clearTimeout(this.#watchdogTimer);
    const silence = this.#pingInterval * 1.5 + 2_000;
    this.#watchdogTimer = setTimeout(() => this.#lose(1006, ''), silence);
  }

  /** Detaches from the current socket first: its late events must not disturb the next one. */
  #release(code) {
    clearTimeout(this.#redialTimer);
    clearTimeout(this.#watchdogTimer);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(code);
  }

  #write(frame) {
    this.#socket.send(JSON.stringify(frame));
  }
}
