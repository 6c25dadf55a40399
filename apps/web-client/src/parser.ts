/** Block of an event stream: what stands between two blank lines. */
export interface Block {
  event: string;
  /** Absent when the block has no `data` line: nothing is to be delivered then. */
  data?: string;
  /** The `id` of this very block, not an inherited one. */
  id?: string;
  /** The topic of a message to a single one; other parsers leave the field out. */
  topic?: string;
  retry?: number;
  /** The last comment. */
  comment?: string;
}

/**
 * Parser of `text/event-stream` (WHATWG HTML, section 9.2.6). Takes bytes cut anywhere: in a character, between CR and
 * LF. A block that the end of the stream cuts off is never delivered.
 */
export class EventParser {
  /** Decodes UTF-8 over chunks, and drops a byte order mark. */
  readonly #decoder: Pick<TextDecoder, 'decode'>;
  readonly #deliver: (block: Block) => void;
  #line = '';
  #afterCr = false;
  #data: string[] = [];
  #block: Block = { event: '' };
  #blank = true;

  constructor(deliver: (block: Block) => void, decoder: Pick<TextDecoder, 'decode'> = new TextDecoder()) {
    this.#deliver = deliver;
    this.#decoder = decoder;
  }

  push(bytes: Uint8Array): void {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return;
    if (this.#afterCr && text[0] === '\n') text = text.slice(1);
    this.#afterCr = text.endsWith('\r');
    const lines = text.split(/\r\n?|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop()!;
    for (const line of lines) this.#take(line);
  }

  #take(line: string): void {
    if (line === '') {
      const block = this.#block;
      if (this.#data.length) block.data = this.#data.join('\n');
      if (!this.#blank) this.#deliver({ ...block, event: block.event || 'message' });
      this.#data = [];
      this.#block = { event: '' };
      this.#blank = true;
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
    if (field === '') this.#block.comment = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'event' || field === 'topic') this.#block[field] = value;
    else if (field === 'id' && !value.includes('\0')) this.#block.id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.#block.retry = +value;
    else return;
    this.#blank = false;
  }
}
