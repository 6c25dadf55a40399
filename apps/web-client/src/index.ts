import { Connection } from './connection.js';
import type { Options } from './options.js';

/**
 * Connects to a realtime server.
 * @throws {Error} when no transport has an address and is supported here
 */
export function connect(options: Options): Connection {
  return new Connection(options);
}

export type { Connection, EventOf, Status } from './connection.js';
export type { CursorStorage } from './cursor.js';
export type { Bus, Gap, Link, Message, Open, Request, Sink, Topics } from './link.js';
export type { Dial, EventSourceLike, Options, SocketLike, Transport } from './options.js';
