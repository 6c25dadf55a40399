/**
 * Consequence of an end. `retry`: come back later. `token`: come back with another token. `refused`: do not come back.
 * `closed`: the server ended the session in order; do not come back.
 */
export type Verdict = 'retry' | 'token' | 'refused' | 'closed';

/** End of a connection, or of the attempt to open one. */
export interface End {
  /** Close code of a WebSocket or HTTP status of an event stream. */
  code?: number;
  reason: string;
  /** The server's wish: milliseconds until the next attempt. */
  retry?: number;
  verdict: Verdict;
  /** Whether `retry` was meant for broken connections in general: waking up may cut it short. */
  broken?: boolean;
  /** Whether the cause may have been a token that the server no longer takes, which could not be told. */
  stale?: boolean;
}

/** The server's farewell over a WebSocket. `retry`: milliseconds until the next attempt, absent or `null` for none. */
export interface Bye {
  reason: string;
  retry?: number | null;
}

/** Verdict on a WebSocket's end, by its close code and the `bye` frame before it, if there was one. */
export function verdictOfClose(code: number, bye?: Bye): Verdict {
  if (code === 4401 || bye?.reason === 'token-expired' || bye?.reason === 'revoked') return 'token';
  if (bye && bye.retry != null) return 'retry';
  if (code === 1000) return 'closed';
  if (bye || (/^(100[23789]|4)/.test(`${code}`) && code !== 4408 && code !== 4429)) return 'refused';
  return 'retry';
}

/** Verdict on the HTTP status of an event stream. 204 is the standard's "do not come back". */
export function verdictOfStatus(status: number): Verdict {
  if (status === 401) return 'token';
  return status === 204 || status === 403 ? 'refused' : 'retry';
}
