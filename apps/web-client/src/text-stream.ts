import type { Connection } from './connection.js';

/**
 * End of a stream: by its writer, by a stop, by a fault of the writer, or because the writer's node is gone. `lost` is the
 * client's own word: the server has not all of it any more, the topic is refused, or the connection has ended for good.
 */
export type StreamState = 'done' | 'stopped' | 'failed' | 'interrupted' | 'lost';

/** What came of a stream. */
export interface Part {
  /** What comes behind the text so far. */
  text: string;
  /** The writer has begun afresh: `text` is the whole of it so far. */
  reset?: true;
  /** The end. No part comes after it. */
  state?: StreamState;
}

/** The options of a stream. */
export interface StreamOptions {
  /**
   * The stream's topic, where it is not in one of the session's own; subscribed to until the end. Without it, streams of
   * this id in any topic are taken for this one.
   */
  topic?: string;
  /** Whether it may have begun before this call. The text so far is asked for, then; it is `lost` where there is none. */
  begun?: boolean;
}

/** A text that grows. */
export interface TextStream extends AsyncIterable<Part> {
  readonly id: string;
  /** The text so far. */
  readonly text: string;
  /** The end; `undefined` while text may come. */
  readonly state: StreamState | undefined;
  /** Calls a handler with each part that comes from now on. Returns what ends that. */
  on(part: (part: Part) => void): () => void;
  /** Takes nothing any more. Iterations come to their ends. */
  close(): void;
}

/**
 * A stream of a text, such as the answer of a model. An iteration begins with the text so far, whenever it begins, and
 * ends with the stream's end.
 */
export function stream(connection: Connection, id: string, { topic, begun }: StreamOptions = {}): TextStream {
  let text = '';
  /** Bytes of the text in UTF-8. */
  let length = 0;
  let run = -1;
  let state: StreamState | undefined;
  let closed = false;
  /** Parts behind bytes that are missing yet. */
  let early: Frame[] = [];
  /** Whether something is missing, or may be after a gap. */
  let missing = begun;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let tries = 0;
  const handlers = new Set<(part: Part) => void>();
  const readers = new Set<Reader>();

  const close = () => {
    if (closed) return;
    closed = true;
    clearTimeout(timer);
    for (const end of ends) end();
    for (const reader of readers) reader.wake();
  };
  const tell = (part: Part) => {
    for (const reader of readers) reader.push(part);
    for (const handler of [...handlers]) {
      try {
        handler(part);
      } catch (error) {
        // As any uncaught error.
        setTimeout(() => {
          throw error;
        }, 0);
      }
    }
  };
  const take = (frame: Frame) => {
    if (frame.run < run || (frame.run === run && state)) return;
    const reset = frame.run > run;
    const again = reset && run >= 0;
    if (reset) {
      run = frame.run;
      text = '';
      length = 0;
      state = undefined;
      early = [];
    }
    if (frame.at > length) {
      // What is between comes with the prefix.
      early.push(frame);
      miss(PATIENCE);
      if (again) tell({ text: '', reset: again });
      return;
    }
    const { bytes, rest: added } = behind(frame.text ?? '', length - frame.at);
    text += added;
    length = Math.max(length, frame.at + bytes);
    state = frame.state;
    missing = false;
    const part: Part = { text: added };
    if (again) part.reset = again;
    if (state) part.state = state;
    if (added || state || again) {
      tries = 0;
      clearTimeout(timer);
      timer = undefined;
      tell(part);
    }
    for (const next of early.splice(0).sort((a, b) => a.at - b.at)) take(next);
  };
  /** Waits for what is missing, and asks for it then. */
  const miss = (ms: number) => {
    missing = true;
    timer ??= setTimeout(seek, ms);
  };
  /** Asks for the text so far while it is missing: after a gap, or where nobody has listened before. */
  const seek = () => {
    timer = undefined;
    if (!missing || connection.status.state !== 'live') tries = 0;
    if (!missing) return;
    if (tries > 2) {
      lose();
      return;
    }
    connection.renew();
    miss(PATIENCE * 2 ** ++tries);
  };
  /** Ends it here, where its end cannot come any more. */
  const lose = () => take({ run, at: length, state: 'lost' });
  const look = () => {
    // `closed` and `refused`.
    if (/ed$/.test(connection.status.state)) lose();
  };
  // An `EventSource` does not tell topics.
  const ends = [
    connection.on('realtime.stream', ({ data, topic: its = topic }) => {
      const frame = JSON.parse(data);
      if (frame.stream === id && (!topic || its === topic)) take(frame);
    }),
    // The text so far follows, unless the server has it no longer.
    connection.on('gap', ({ spread }) => {
      if (run >= 0 && !state) miss(PATIENCE + spread);
    }),
    connection.on('status', look),
    connection.on('topics', ({ refused }) => refused.some(other => other.topic === topic) && lose()),
    topic === undefined ? () => {} : connection.subscribe(topic),
  ];
  look();
  if (begun && !state) seek();

  return {
    id,
    get text() {
      return text;
    },
    get state() {
      return state;
    },
    on(part) {
      // Each call is a registration of its own.
      const handler = (value: Part) => part(value);
      handlers.add(handler);
      return () => void handlers.delete(handler);
    },
    close,
    [Symbol.asyncIterator]() {
      const reader = new Reader(() => closed);
      if (text || state) reader.push(state ? { text, state } : { text });
      readers.add(reader);
      reader.onReturn = () => readers.delete(reader);
      return reader;
    },
  };
}

/** What the server sends of a stream. */
interface Frame {
  run: number;
  /** Bytes in front of it. */
  at: number;
  text?: string;
  state?: StreamState;
}

/** One iteration. What it is behind is put together to one part. */
class Reader implements AsyncIterableIterator<Part> {
  readonly #closed: () => boolean;
  #next: Part | undefined;
  #ended = false;
  #wanted: (() => void)[] = [];
  onReturn = () => {};

  constructor(closed: () => boolean) {
    this.#closed = closed;
  }

  push(part: Part): void {
    const before = this.#next;
    this.#next = !before || part.reset ? part : { ...before, ...part, text: before.text + part.text };
    this.wake();
  }

  wake(): void {
    for (const wanted of this.#wanted.splice(0)) wanted();
  }

  async next(): Promise<IteratorResult<Part>> {
    for (;;) {
      const part = this.#next;
      if (part && !this.#ended) {
        this.#next = undefined;
        this.#ended = part.state !== undefined;
        return { value: part, done: false };
      }
      if (this.#ended || this.#closed()) return this.return();
      await new Promise<void>(wanted => this.#wanted.push(wanted));
    }
  }

  async return(): Promise<IteratorResult<Part>> {
    this.#ended = true;
    this.#next = undefined;
    this.onReturn();
    this.wake();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/**
 * Bytes of a text in UTF-8, and what is left of it behind those that are known already. Both texts are whole characters,
 * so that no cut is inside of one. Mini-programs have no `TextEncoder`.
 */
function behind(text: string, known: number): { bytes: number; rest: string } {
  let bytes = 0;
  let rest = known ? '' : text;
  for (const character of text) {
    if (known && bytes >= known) rest += character;
    const point = character.codePointAt(0)!;
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  }
  return { bytes, rest };
}

/** Milliseconds for the prefix to come by itself. */
const PATIENCE = 1000;
