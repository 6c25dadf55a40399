import type { Connection } from './connection.js';
import { order } from './cursor.js';
import type { Message } from './link.js';

/** What a load brings: a value, and the cursor behind the last message that it contains. */
export interface Snapshot<T> {
  value: T;
  /** `null` on a server without positions: what comes during a load may be in it already, then. */
  cursor: string | null;
}

/** The options of a state. */
export interface StateOptions {
  /** The messages that it is made of. Default: all. An `EventSource` brings only events that are named. */
  events?: string[];
  /** The topic whose messages they are, which is subscribed to meanwhile. */
  topic?: string;
  /** Milliseconds: bounds of the random pause before a load is tried again, which double from `base` up to `cap`. */
  backoff?: { base?: number; cap?: number };
}

/** Value that follows the server's: a snapshot, and each message behind it once. */
export interface State<T> {
  /** Its newest form; `undefined` before the first load. */
  readonly value: T | undefined;
  /** Whether messages are known to be missing in it, which the next load brings. */
  readonly stale: boolean;
  /**
   * Why the last load failed, or why there can be none: the topic is refused, or the connection has ended for good.
   * `undefined` after a load that did not fail.
   */
  readonly error: unknown;
  /** Calls a handler after each change. Returns what ends that. */
  on(changed: (state: State<T>) => void): () => void;
  /** Loads now, for a reason of the application's own. */
  reload(): void;
  /** Ends it. The connection stays. */
  close(): void;
}

/**
 * Keeps a value up to date: loads it, applies the messages behind it, and loads it again after a gap, once its `spread`
 * is over. A load that fails is tried again after a random pause.
 *
 * `apply` returns the value with a message in it; the same object, if it likes.
 */
export function state<T>(
  connection: Connection,
  load: (signal: AbortSignal) => Promise<Snapshot<T>>,
  apply: (value: T, message: Message) => T,
  options: StateOptions = {},
): State<T> {
  const { events = ['*'], topic, backoff: { base = 1000, cap = 30_000 } = {} } = options;
  const handlers = new Set<(state: State<T>) => void>();
  let value: T | undefined;
  let error: unknown;
  /** The cursor of the last load. */
  let place: string | null = null;
  let fresh = false;
  let failures = 0;
  /** Messages that came since the load began. */
  let buffer: Message[] | undefined;
  /** Whether a load waits for the connection. */
  let waiting = false;
  let abort: AbortController | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let closed = false;

  const self: State<T> = {
    get value() {
      return value;
    },
    get stale() {
      return !fresh;
    },
    get error() {
      return error;
    },
    on(changed) {
      // Each call is a registration of its own.
      const handler = (state: State<T>) => changed(state);
      handlers.add(handler);
      return () => void handlers.delete(handler);
    },
    reload: () => plan(0),
    close() {
      closed = true;
      stop();
      for (const end of ends) end();
      handlers.clear();
    },
  };
  const tell = () => {
    for (const handler of [...handlers]) {
      try {
        handler(self);
      } catch (error) {
        report(error);
      }
    }
  };
  const stop = () => {
    clearTimeout(timer);
    abort?.abort();
    abort = buffer = undefined;
  };
  /** Loads after a while. What comes until then is in the load. */
  const plan = (ms: number) => {
    if (closed) return;
    stop();
    fresh = false;
    timer = setTimeout(begin, ms);
  };
  const fail = (reason: unknown) => {
    error = reason;
    plan(Math.random() * Math.min(cap, base * 2 ** failures++));
    tell();
  };
  /** Waits for the connection, which brings no messages. */
  const deny = (reason: string) => {
    stop();
    fresh = false;
    waiting = true;
    error = new Error(`realtime: ${reason}`);
    tell();
  };
  // `closed` and `refused`.
  const isOver = () => /ed$/.test(connection.status.state);
  const begin = async () => {
    const { status, cursor: begun } = connection;
    if (isOver()) {
      deny(`the connection is ${status.state}, ${status.reason}`);
      return;
    }
    // Where the connection begins has to be known. Otherwise a message behind the load might be in front of it.
    if ((begun === null && status.state !== 'live') || (topic !== undefined && !connection.topics.includes(topic))) {
      waiting = true;
      return;
    }
    waiting = false;
    // Mini-programs have none.
    const mine = globalThis.AbortController ? new AbortController() : NO_ABORT();
    abort = mine;
    buffer = [];
    try {
      const { value: loaded, cursor } = await load(mine.signal);
      if (mine !== abort) return;
      const known = begun ?? connection.cursor;
      if (cursor === null && known !== null) throw new Error('the load has no cursor; CORS has to expose its header');
      // Another node may be behind, but not for long.
      if (cursor !== null && (known === null || (order(cursor, known) ?? -1) < 0)) {
        throw new Error(`the load, at ${cursor}, is older than the connection, at ${known}`);
      }
      place = cursor;
      let next = loaded;
      for (const message of buffer!) if (isBehind(message)) next = apply(next, message);
      value = next;
      fresh = true;
      failures = 0;
      error = abort = buffer = undefined;
      tell();
    } catch (reason) {
      if (mine === abort) fail(reason);
    }
  };
  const isBehind = ({ id }: Message) => id === null || place === null || (order(id, place) ?? 1) > 0;
  const take = (message: Message) => {
    if (buffer) {
      if (buffer.push(message) > LIMIT) fail(new Error(`more than ${LIMIT} messages came during the load`));
    } else if (fresh && isBehind(message)) {
      try {
        value = apply(value!, message);
      } catch (reason) {
        fail(reason);
        return;
      }
      tell();
    }
  };
  const retry = () => {
    if (waiting || isOver()) void begin();
  };
  const ends = [
    ...events.map(event => connection.on(event, message => take(message as Message), topic)),
    connection.on('gap', ({ spread, cursor }) => {
      // Without a cursor the gap's place is in the heartbeat that follows.
      plan(cursor ? spread : Math.max(spread, 1000));
      tell();
    }),
    connection.on('status', retry),
    connection.on('topics', ({ refused }) => {
      const no = refused.find(other => other.topic === topic);
      if (no) deny(`the topic ${topic} is refused, ${no.reason}`);
      else retry();
    }),
  ];
  plan(0);
  return self;
}

/** The snapshot in a response whose header `X-Realtime-Cursor` has its cursor. `read` reads the body; default: JSON. */
export async function snapshot<T = any>(
  response: Response,
  read: (response: Response) => Promise<T> = response => response.json(),
): Promise<Snapshot<T>> {
  if (!response.ok) throw new Error(`realtime: the load was answered by HTTP ${response.status}`);
  return { value: await read(response), cursor: response.headers.get('X-Realtime-Cursor') };
}

/** Tells of an error as of any uncaught one. */
function report(error: unknown): void {
  setTimeout(() => {
    throw error;
  }, 0);
}

const NO_ABORT = () => ({ signal: undefined as unknown as AbortSignal, abort() {} }) as AbortController;
/** Messages that may come during a load. */
const LIMIT = 10_000;
