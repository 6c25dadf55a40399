import type { Message } from './link.js';

interface Waiting {
  message: Message;
  /** Number of the message over all readers. */
  number: number;
  /** The cursor in front of it. */
  before: string | null;
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
    const reader = new Reader(this.#limit, () => this.#moved());
    reader.onReturn = () => this.#readers.delete(reader);
    if (this.#closed) reader.close();
    else this.#readers.add(reader);
    return reader;
  }

  push(message: Message, before: string | null): void {
    const number = this.#number++;
    for (const reader of this.#readers) reader.push({ message, number, before });
  }

  /** Cursor in front of the first message that a reader is not through with; `undefined` when there is none. */
  behind(): string | null | undefined {
    let first: Waiting | undefined;
    for (const { pending } of this.#readers) {
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

class Reader implements AsyncIterableIterator<Message> {
  readonly #limit: number;
  readonly #moved: () => void;
  #queue: Waiting[] = [];
  #head = 0;
  /** The message that the loop's body has. */
  #taken: Waiting | undefined;
  #wanted: ((result: IteratorResult<Message>) => void)[] = [];
  #closed = false;
  #overrun = false;
  onReturn = () => {};

  constructor(limit: number, moved: () => void) {
    this.#limit = limit;
    this.#moved = moved;
  }

  get pending(): Waiting | undefined {
    return this.#taken ?? this.#queue[this.#head];
  }

  push(waiting: Waiting): void {
    if (this.#closed) return;
    const wanted = this.#wanted.shift();
    if (wanted) {
      this.#taken = waiting;
      wanted({ value: waiting.message, done: false });
    } else if (this.#queue.length - this.#head < this.#limit) {
      this.#queue.push(waiting);
    } else {
      this.#overrun = this.#closed = true;
    }
  }

  close(): void {
    this.#closed = true;
    for (const wanted of this.#wanted.splice(0)) wanted({ value: undefined, done: true });
  }

  async next(): Promise<IteratorResult<Message>> {
    this.#taken = this.#queue[this.#head];
    if (this.#taken) {
      if (++this.#head > 1000) {
        this.#queue = this.#queue.slice(this.#head);
        this.#head = 0;
      }
      this.#moved();
      return { value: this.#taken.message, done: false };
    }
    this.#moved();
    if (this.#overrun) {
      this.onReturn();
      throw new Error(`realtime: the reader was ${this.#limit} messages behind`);
    }
    if (this.#closed) return this.return();
    return new Promise(wanted => this.#wanted.push(wanted));
  }

  async return(): Promise<IteratorResult<Message>> {
    this.#taken = undefined;
    this.#queue = [];
    this.#head = 0;
    this.close();
    this.onReturn();
    this.#moved();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
