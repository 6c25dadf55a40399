import type { End } from './end.js';
import type { Options, Platform, Transport } from './options.js';

export interface Message {
  /** Its cursor; `null` when it has none, as what was sent to this session alone. */
  id: string | null;
  event: string;
  /** The text; empty in a message of bytes. */
  data: string;
  /** The bytes of a message that is no text. */
  bytes?: Uint8Array;
}

/** Notice that messages are missing here. */
export interface Gap {
  reason: string;
  cursor: string | null;
  /** Milliseconds to wait before the state is loaded afresh. */
  spread: number;
}

/** State of the bus behind the server. */
export interface Bus {
  /** Since when nothing arrives, in ms since 1970; `null`: it is up. */
  downSince: number | null;
}

/** What a link tells its owner. */
export interface Sink {
  /** The session has begun. */
  live(cursor: string | null, pingInterval?: number): void;
  /** The link is broken and mends itself. */
  broken(): void;
  /** Something came. */
  heard(): void;
  message(message: Message): void;
  gap(gap: Gap): void;
  cursor(cursor: string | null | undefined): void;
  bus(downSince: number | null): void;
  /** The last call. */
  end(end: End): void;
}

/** Open connection, or one that is being opened. */
export interface Link {
  send?(text: string): void;
  ping?(): void;
  /** Takes note of a message event that somebody waits for. */
  listen?(event: string): void;
  /** Ends it; the sink is told nothing any more. */
  close(): void;
}

/** What is needed to open a link. */
export interface Request {
  platform: Platform;
  options: Options;
  token: string;
  cursor: string | null;
  /** Message events with a handler. */
  events: Iterable<string>;
}

/** Address of an endpoint; `undefined` when the options have none. */
export function endpoint({ url }: Options, transport: Transport): string | undefined {
  return typeof url === 'string' ? `${url.replace(/\/$/, '')}/${transport}` : url[transport];
}

/** Headers of a request with its token; `undefined` when the options have none. */
export function headersOf({ options, token }: Request): Record<string, string> | undefined {
  const { headers, tokenName = 'Authorization' } = options;
  return headers && { [tokenName]: `Bearer ${token.replace(/^Bearer /i, '')}`, ...headers };
}

/** Address of an endpoint with its query. */
export function address(
  { options, cursor, token }: Request,
  transport: Transport,
  withToken: boolean,
): string {
  const query = [
    [options.tokenName ?? 'Authorization', withToken && token],
    ['clientid', options.clientId],
    ['cursor', cursor],
  ].flatMap(([name, value]) => (value ? `${name}=${encodeURIComponent(value)}` : []));
  let url = endpoint(options, transport)!;
  if (globalThis.location) url = new URL(url, location.href).href;
  return query.length ? `${url}${url.includes('?') ? '&' : '?'}${query.join('&')}` : url;
}
