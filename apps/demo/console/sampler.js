import { poll } from './polling.js';

const EVERY_MS = 1_000;
const USERS_EVERY_MS = 2_000;

/** Time that is kept. */
export const WINDOW_MS = 5 * 60_000;

/**
 * What the node said at one time, with rates since the time before.
 * @typedef {object} Sample
 * @property {number} at in milliseconds since 1970
 * @property {any} stats the answer of `/api/stats`; null when there was none
 * @property {{[counter: string]: number}} rates by counter, per second; empty for the first one
 */

/** Asks the node for its state each second while the page is visible. Sends `sample` after each answer or failure. */
export class Sampler extends EventTarget {
  /** @type {Sample[]} */
  samples = [];
  /** @type {{total: number, sessions: number} | null} users and sessions of the cluster */
  online = null;
  /** Reason for which the last question had no answer. */
  failure = '';
  #api;
  #signal;
  /** Users are counted. */
  #counts = false;

  /**
   * @param {import('./api.js').Api} api
   * @param {AbortSignal} signal ends it
   */
  constructor(api, signal) {
    super();
    this.#api = api;
    this.#signal = signal;
    this.#run();
  }

  get last() {
    return this.samples.at(-1);
  }

  async #run() {
    while (!this.#signal.aborted) {
      const began = Date.now();
      if (!document.hidden) await this.#ask();
      if (!this.#counts && this.last?.stats) this.#count();
      const rest = Math.max(100, EVERY_MS - (Date.now() - began));
      await new Promise((resolve) => setTimeout(resolve, rest));
    }
  }

  async #ask() {
    try {
      const stats = await this.#api.call('GET', 'stats', { signal: this.#signal, timeout: 5_000 });
      this.failure = '';
      this.#push({ at: Date.now(), stats, rates: this.#rates(stats, Date.now()) });
    } catch (error) {
      if (this.#signal.aborted) return;
      this.failure = error.message;
      this.#push({ at: Date.now(), stats: null, rates: {} });
    }
    this.dispatchEvent(new Event('sample'));
  }

  /** Counts users apart from the node's own state: presence may be slow to answer that it is away. */
  #count() {
    this.#counts = true;
    if (this.last.stats.presence === 'off') return;
    const ask = async () => {
      try {
        this.online = await this.#api.call('GET', 'online?size=1', { signal: this.#signal });
      } catch {
        this.online = null;
      }
    };
    poll(ask, USERS_EVERY_MS, this.#signal);
  }

  #push(sample) {
    this.samples.push(sample);
    while (this.samples[0].at < sample.at - WINDOW_MS - EVERY_MS) this.samples.shift();
  }

  #rates(stats, at) {
    const before = this.last;
    // A restarted node counts from zero, and a page that was hidden knows nothing of the time between.
    if (before?.stats?.startedAt !== stats.startedAt || at - before.at > 5 * EVERY_MS) return {};
    const seconds = (at - before.at) / 1000;
    const rates = {};
    for (const [name, value] of Object.entries(stats.metrics)) {
      if (typeof value === 'number') rates[name] = Math.max(0, value - before.stats.metrics[name]) / seconds;
    }
    return rates;
  }
}
