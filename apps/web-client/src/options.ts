import type { CursorStorage } from './cursor.js';
import type { Open } from './link.js';

export type Transport = 'websocket' | 'sse';

export interface Options {
  /** Address of the endpoints' folder, such as `https://example.com/resource`, or of each endpoint. */
  url: string | { websocket?: string; sse?: string };
  /**
   * The token, or a function that gets one within 30 s. The function is asked at the first attempt, again before the
   * login ends, when the server no longer takes the last one, and from the second try at the preferred transport on.
   */
  token: string | (() => string | Promise<string>);
  /** Topics that are asked for at every connect. */
  topics?: string[];
  /** The kind of application, the claim `clientid` of the token. */
  clientId?: string;
  /**
   * Headers of event streams, and of WebSockets where the platform can. With them the token goes into a header there,
   * too, and not into the URL.
   */
  headers?: Record<string, string>;
  /** Transports in order of preference. Default `['websocket', 'sse']`. */
  transports?: Transport[];
  /** Name of the parameter and header with the token. Default `Authorization`. */
  tokenName?: string;
  /** Where a WebSocket's token goes: as subprotocol (default, kept out of logs) or into the query. */
  websocketToken?: 'protocol' | 'query';
  /** Reader of event streams in place of `fetch`: `eventSource` of `@realtime/client/eventsource`. */
  sse?: Open;
  /** Cursor to begin behind. It beats the stored one. */
  cursor?: string;
  /** Where the cursor survives a reload. Default `sessionStorage`, where there is one; `null` for nowhere. */
  storage?: CursorStorage | null;
  /** Part of the storage's key, for several connections to one address, or one per user. */
  name?: string;
  /** Milliseconds: bounds of the random pause before an attempt, which double from `base` up to `cap`. */
  backoff?: { base?: number; cap?: number };
  /** Milliseconds between heartbeats of event streams, as the server's `heartbeat.interval`. Default 20000. */
  heartbeat?: number;
  /** Milliseconds on another transport until the preferred one is tried again; doubles up to ten times. Default 60000. */
  upgradeAfter?: number;
  /**
   * Whether the tabs of one login share one connection. `auto`, the default: over event streams on HTTP/1.1, where a
   * browser has six connections for all its tabs. `true`: over any transport.
   */
  shared?: boolean | 'auto';
  /** Messages that a reader may lie behind before its iteration fails. Default 10000. */
  maxBehind?: number;
  /** The platform, where it is no browser. */
  dial?: Dial;
}

/** Sockets, requests, timers, chance and codecs. What is absent is taken from the global object. */
export interface Dial {
  WebSocket?: new (url: string, protocols: string[], init?: { headers: Record<string, string> }) => SocketLike;
  /** Whether this `WebSocket` takes headers, which a browser's does not: `headers` are for both transports then. */
  socketHeaders?: boolean;
  EventSource?: new (url: string) => EventSourceLike;
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  AbortController?: new () => Pick<AbortController, 'abort' | 'signal'>;
  TextDecoder?: new () => Pick<TextDecoder, 'decode'>;
  atob?: (base64: string) => string;
  setTimeout?: (run: () => void, ms: number) => unknown;
  clearTimeout?: (timer: any) => void;
  /** Milliseconds since 1970. */
  now?: () => number;
  /** From 0 to 1. */
  random?: () => number;
  /** Calls `awake` when the application comes back to the network or to the foreground. Returns what ends that. */
  wake?: (awake: () => void) => () => void;
}

/** The part of `WebSocket` that is used. */
export interface SocketLike {
  readonly readyState: number;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(code?: number): void;
}

/** The part of `EventSource` that is used. */
export interface EventSourceLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  addEventListener(type: string, listener: (event: any) => void): void;
  close(): void;
}

type Optional = 'WebSocket' | 'socketHeaders' | 'fetch';

export type Platform = Required<Omit<Dial, Optional | 'EventSource'>> & Pick<Dial, Optional>;

/** The given parts and the global object's in place of the others. */
export function platform(dial: Dial = {}): Platform {
  const g = globalThis;
  return {
    WebSocket: g.WebSocket,
    fetch: g.fetch && ((url, init) => g.fetch(url, init)),
    AbortController: g.AbortController,
    TextDecoder: g.TextDecoder,
    atob: base64 => g.atob(base64),
    // A longer one would not wait at all.
    setTimeout: (run, ms) => g.setTimeout(run, Math.min(ms, 2e9)),
    clearTimeout: timer => g.clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
    wake,
    ...dial,
  };
}

/** `sessionStorage`, or `null` where there is none or the page may not use it. */
export function defaultStorage(): CursorStorage | null {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

function wake(awake: () => void): () => void {
  if (typeof document === 'undefined') return () => {};
  const abort = new AbortController();
  addEventListener('online', awake, abort);
  addEventListener('pageshow', awake, abort);
  document.addEventListener('visibilitychange', () => document.hidden || awake(), abort);
  return () => abort.abort();
}
