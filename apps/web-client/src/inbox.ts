import { StoredCursor, order } from './cursor.js';
import type { Bus, Gap, Message } from './link.js';
import { Readers } from './readers.js';

/** What came in: the position behind it, and those who want it. */
export class Inbox {
  /** Position behind the last message, `null` where none is known yet. */
  cursor: string | null;
  /** Messages that came a second time and were left out. */
  duplicates = 0;
  readonly readers: Readers;
  readonly #stored: StoredCursor;
  readonly #handlers = new Map<string, Set<(value: any) => void>>();
  readonly #report: (error: unknown) => void;
  #downSince: Bus['downSince'] = null;

  /** `report` is given what a handler throws. */
  constructor(stored: StoredCursor, cursor: string | undefined, maxBehind: number, report: (error: unknown) => void) {
    this.#stored = stored;
    this.cursor = cursor ?? stored.read();
    this.readers = new Readers(maxBehind, () => this.#store());
    this.#report = report;
  }

  /** The message events that somebody listens to. */
  get events(): string[] {
    return [...this.#handlers.keys()].filter(event => !OWN.has(event));
  }

  on(event: string, handler: (value: any) => void): () => void {
    const handlers = this.#handlers.get(event) ?? new Set();
    // Each call is a registration of its own.
    const own = (value: unknown) => handler(value);
    this.#handlers.set(event, handlers.add(own));
    return () => void handlers.delete(own);
  }

  /** Calls the handlers of an event. What one throws keeps no other back. */
  emit(event: string, value: unknown): void {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) {
      try {
        handler(value);
      } catch (error) {
        this.#report(error);
      }
    }
  }

  /** Takes a message of a session that began behind the cursor `begun`, where other ones have `brought` something. */
  message(message: Message, { cursor: begun, brought }: Begun): void {
    const { id, event } = message;
    let before = this.cursor;
    if (!this.#knows(id)) this.cursor = id ?? before;
    // The others were not in its topic.
    else if (brought && !brought.has(id) && order(id!, begun!)! > 0) before = begun;
    else {
      this.duplicates++;
      return;
    }
    brought?.add(id);
    this.readers.push(message, before);
    if (!OWN.has(event)) this.emit(event, message);
    this.emit('*', message);
    this.#store();
  }

  /** Takes a gap from an attempt that began behind the cursor `begun`. */
  gap(gap: Gap, begun: string | null): void {
    const { cursor } = gap;
    // In a switch the other transport has told it. A gap in front of where the attempt began is another matter: a
    // history that lost its end.
    if (cursor && cursor !== this.cursor && this.#knows(cursor) && begun && order(begun, cursor)! <= 0) return;
    this.cursor = cursor ?? this.cursor;
    this.emit('gap', gap);
    this.#store();
  }

  /** Takes the cursor of a heartbeat or of a session's beginning. */
  advance(cursor: string | null | undefined): void {
    if (!cursor || this.#knows(cursor)) return;
    this.cursor = cursor;
    this.#store();
  }

  bus(downSince: Bus['downSince']): void {
    if (downSince === this.#downSince) return;
    this.#downSince = downSince;
    this.emit('bus', { downSince });
  }

  /** Whether a position is at or before the cursor. */
  #knows(id: string | null): boolean {
    return id !== null && this.cursor !== null && (order(id, this.cursor) ?? 1) <= 0;
  }

  /** Keeps the cursor for a reload, which has to bring again what a reader is not through with. */
  #store(): void {
    const behind = this.readers.behind();
    const cursor = behind === undefined ? this.cursor : behind;
    if (cursor) this.#stored.write(cursor);
  }
}

interface Begun {
  cursor: string | null;
  brought: Set<string | null> | undefined;
}

/** Names of events that are no messages. */
const OWN = new Set(['gap', 'status', 'bus', 'topics', '*']);
