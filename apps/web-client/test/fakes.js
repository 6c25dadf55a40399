// Servers that the test speaks for.
import { open } from './client.js';

/** WebSockets whose server is the test: `opened` gives the next one that the client opens. */
export function sockets() {
  const made = [];
  const wanted = [];
  class Socket {
    readyState = 1;
    sent = [];
    constructor(url, protocols) {
      Object.assign(this, { url, protocols });
      const next = wanted.shift();
      if (next) next(this);
      else made.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {
      this.closed = true;
    }
    say(...frames) {
      for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) });
    }
    hello(cursor = '7.0', more = {}) {
      this.say({ type: 'hello', session: 's', recovered: null, cursor, pingInterval: 20_000, ...more });
    }
    message(id, data = id, event = 'message') {
      this.say({ type: 'message', id, event, data });
    }
    end(code, reason = '') {
      this.onclose?.({ code, reason });
    }
  }
  const opened = () => made.shift() ?? new Promise(resolve => wanted.push(resolve));
  return { Socket, opened };
}

/** Event streams whose server is the test. */
export function streams() {
  const made = [];
  const wanted = [];
  const posts = [];
  const fetch = async (url, { signal, method, headers }) => {
    if (method === 'POST') {
      const answer = await new Promise(answer => posts.push({ url, headers, answer }));
      return new Response(JSON.stringify(answer));
    }
    let controller;
    const body = new ReadableStream({ start: given => void (controller = given) });
    const stream = {
      url,
      signal,
      say: text => controller.enqueue(new TextEncoder().encode(text)),
      end: () => controller.close(),
    };
    const next = wanted.shift();
    if (next) next(stream);
    else made.push(stream);
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  };
  const opened = () => made.shift() ?? new Promise(resolve => wanted.push(resolve));
  return { fetch, opened, posts };
}

/** A client whose WebSockets the test serves. */
export function fake(t, options = {}) {
  const { Socket, opened } = sockets();
  const { dial, ...rest } = options;
  const client = open(t, {
    url: 'https://example.com/resource/',
    token: 'the-token',
    transports: ['websocket'],
    backoff: { base: 1, cap: 1 },
    dial: { WebSocket: Socket, ...dial },
    ...rest,
  });
  return { client, opened };
}
