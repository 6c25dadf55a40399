import type { Message } from './link.js';

interface Waiting {
  message: Message;
  /** Number of the message over all readers. */
  number: number;
  /** The cursor in front of it. */
  before: string | null;
}

interface Reader {
  /** The first message that it is not through with. */
  pending(): Waiting | undefined;
  push(waiting: Waiting): void;
  /** Lets it come to its end. */
  close(): void;
}

/** Iterations over the messages of a connection, each with a queue of its own. */
export class Readers {
  readonly #limit: number;
  readonly #moved: () => void;
  readonly #readers = new Set<Reader>();
  #number = 0;
  #closed = false;

  /** `moved` is called when a reader is through with a message. */
  constructor(limit: number, moved: () => void) {
    this.#limit = limit;
    this.#moved = moved;
  }

  /** A new iteration: over what comes from now on. */
  open(): AsyncIterableIterator<Message> {
    const limit = this.#limit;
    const moved = this.#moved;
    const readers = this.#readers;
    let queue: Waiting[] = [];
    /** The message that the loop's body has. */
    let taken: Waiting | undefined;
    let wanted: ((result: IteratorResult<Message>) => void)[] = [];
    let closed = this.#closed;
    let overrun = false;

    const reader: Reader = {
      pending: () => taken ?? queue[0],
      push(waiting) {
        if (closed) return;
        const want = wanted.shift();
        if (want) {
          taken = waiting;
          want({ value: waiting.message, done: false });
        } else if (queue.length < limit) queue.push(waiting);
        else overrun = closed = true;
      },
      close() {
        closed = true;
        for (const want of wanted) want({ value: undefined, done: true });
        wanted = [];
      },
    };
    readers.add(reader);

    return {
      async next() {
        taken = queue.shift();
        moved();
        if (taken) return { value: taken.message, done: false };
        if (overrun) {
          readers.delete(reader);
          throw new Error(`realtime: the reader was ${limit} messages behind`);
        }
        return closed ? this.return!() : new Promise(want => wanted.push(want));
      },
      async return() {
        taken = undefined;
        queue = [];
        reader.close();
        readers.delete(reader);
        moved();
        return { value: undefined, done: true };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  push(message: Message, before: string | null): void {
    const number = this.#number++;
    for (const reader of this.#readers) reader.push({ message, number, before });
  }

  /** Cursor in front of the first message that a reader is not through with; `undefined` when there is none. */
  behind(): string | null | undefined {
    let first: Waiting | undefined;
    for (const reader of this.#readers) {
      const pending = reader.pending();
      if (pending && (!first || pending.number < first.number)) first = pending;
    }
    return first?.before;
  }

  /** Lets the readers come to their ends. */
  close(): void {
    this.#closed = true;
    for (const reader of this.#readers) reader.close();
  }
}
