import type { End } from './end.js';
import type { Options, Platform, Transport } from './options.js';

export interface Message {
  /** Its cursor; `null` when it has none, as what was sent to this session alone. */
  id: string | null;
  event: string;
  /** The topic, when it was published to a single one that has a name. An `EventSource` does not show it. */
  topic?: string;
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
  /**
   * Since when messages may be missing, in ms since 1970: by the server's word, or else by this side's clock when
   * something came last. `null` where neither is known.
   */
  since: number | null;
}

/** Answer of the server about topics that were asked for. */
export interface Topics {
  subscribed: string[];
  refused: { topic: string; reason: string }[];
}

/** What the server says of a session. */
export interface Told extends Partial<Topics> {
  pingInterval?: number;
}

/** State of the bus behind the server. */
export interface Bus {
  /** Since when nothing arrives, in ms since 1970; `null`: it is up. */
  downSince: number | null;
}

/** What a link tells its owner. */
export interface Sink {
  /** The session has begun, over another tab's `transport` where that is not the attempt's. */
  live(cursor: string | null, transport?: Transport): void;
  /** What the server says of the session and its topics. */
  told(told: Told): void;
  /** The link is broken and mends itself. */
  broken(): void;
  /** Something came. */
  heard(): void;
  message(message: Message): void;
  /** `begun`: the cursor that the session began behind, where that is not the request's. */
  gap(gap: Gap, begun?: string | null): void;
  /** The login ends soon. */
  expiring(): void;
  /** The session has taken the new token. */
  refreshed(): void;
  /** The server does not take the new token for this session. */
  unrefreshed(): void;
  cursor(cursor: string | null | undefined): void;
  bus(downSince: number | null): void;
  /** The last call. */
  end(end: End): void;
}

/** Open connection, or one that is being opened. */
export interface Link {
  send?(text: string): void;
  ping?(): void;
  /** Puts the session into topics and takes it out of others. Without it a new session has to. */
  topics?(added: string[], removed: string[]): void;
  /** Brings the session a new token. Without it a new session has to. */
  refresh?(token: string): void;
  /** Takes note of a message event that somebody waits for. */
  listen?(event: string): void;
  /** Ends it; the sink is told nothing any more. */
  close(): void;
}

/** Opens a link, and tells the sink about it from then on. */
export type Open = (request: Request, sink: Sink) => Link;

/** What is needed to open a link. */
export interface Request {
  platform: Platform;
  options: Options;
  token: string;
  cursor: string | null;
  topics: string[];
  /** Those of which the page has had nothing yet; `*` for all of the session's. */
  fresh: string[];
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

/** Address of an endpoint with its query, or of what is below it. */
export function address(
  { options, cursor, token, topics, fresh }: Request,
  transport: Transport,
  withToken: boolean,
  below = '',
  more: Record<string, string | null | false> = {
    cursor,
    topics: topics.join(),
    fresh: cursor && fresh.join(),
    hello: transport === 'sse' && '1',
  },
): string {
  const query = Object.entries({
    [options.tokenName ?? 'Authorization']: withToken && token,
    clientid: options.clientId,
    ...more,
  }).flatMap(([name, value]) => (value ? `${name}=${encodeURIComponent(value)}` : []));
  let url = endpoint(options, transport)!.replace(/(?=\?)|$/, below);
  if (globalThis.location) url = new URL(url, location.href).href;
  return query.length ? `${url}${url.includes('?') ? '&' : '?'}${query.join('&')}` : url;
}

/** A gap out of what the server tells of it. */
export function gapOf({ reason, spread = 0, since = null }: any, cursor: string | null | undefined): Gap {
  return { reason, cursor: cursor ?? null, spread, since };
}
