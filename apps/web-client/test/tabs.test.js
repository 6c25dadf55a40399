import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open, until } from './client.js';
import { token } from './demo.js';
import { sockets } from './fakes.js';

/** Web Locks, as far as they are used. */
class Locks {
  #queues = new Map();

  request(name, options, run = options) {
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(name) ?? [];
      this.#queues.set(name, queue);
      const entry = { run, resolve, reject };
      options.signal?.addEventListener('abort', () => {
        const at = queue.indexOf(entry);
        // It does not end what holds the lock.
        if (at > 0) queue.splice(at, 1);
        if (at) reject(options.signal.reason);
      });
      if (options.steal) {
        queue.shift()?.reject(new DOMException('stolen', 'AbortError'));
        queue.unshift(entry);
        this.#begin(queue);
      } else if (queue.push(entry) === 1) this.#begin(queue);
    });
  }

  #begin(queue) {
    const entry = queue[0];
    queueMicrotask(async () => {
      const result = await entry.run({});
      entry.resolve(result);
      if (queue[0] !== entry) return;
      queue.shift();
      // Later than a word that was posted before.
      if (queue.length) setTimeout(() => this.#begin(queue), 10);
    });
  }
}
Object.defineProperty(globalThis, 'navigator', { value: { locks: new Locks() }, configurable: true });

/** A server of event streams, of which the test knows all: who is connected, and in which topics. */
class Server {
  connections = new Set();
  opened = 0;
  /** Topics that it refuses. */
  refused = [];
  #log = [];

  fetch = async (url, { signal }) => {
    const query = new URL(url).searchParams;
    const asked = query.get('topics')?.split(',') ?? [];
    const topics = asked.filter(topic => !this.refused.includes(topic));
    const refused = asked.filter(topic => !topics.includes(topic)).map(topic => ({ topic, reason: 'forbidden' }));
    const cursor = query.get('cursor');
    let controller;
    const body = new ReadableStream({ start: given => void (controller = given) });
    const connection = {
      asked,
      topics,
      say: text => controller.enqueue(new TextEncoder().encode(text)),
      end: () => {
        if (this.connections.delete(connection)) controller.close();
      },
    };
    signal.addEventListener('abort', () => this.connections.delete(connection));
    this.connections.add(connection);
    this.opened++;
    connection.say(`:connected\nretry:1\nid:${cursor ?? `7.${this.#log.length}`}\n\n`);
    const hello = { session: `s${this.opened}`, pingInterval: 20_000, ...(asked.length && { subscribed: topics, refused }) };
    connection.say(`event:realtime.hello\ndata:${JSON.stringify(hello)}\n\n`);
    // What is kept for newcomers would be in front of it.
    if (query.has('fresh')) connection.say(`:heartbeat\nid:${cursor}\n\n`);
    if (cursor) for (const message of this.#log.slice(Number(cursor.split('.')[1]))) this.#send(connection, message);
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  };

  #send(connection, { id, topic, data }) {
    if (!topic || connection.topics.includes(topic)) connection.say(`${topic ? `topic:${topic}\n` : ''}id:${id}\ndata:${data}\n\n`);
  }

  publish(data, topic) {
    const message = { id: `7.${this.#log.length + 1}`, topic, data };
    this.#log.push(message);
    for (const connection of this.connections) this.#send(connection, message);
  }

  heartbeat() {
    for (const connection of this.connections) connection.say(`:heartbeat\nid:7.${this.#log.length}\n\n`);
  }

  gap() {
    for (const connection of this.connections) {
      connection.say(`event:gap\nid:7.${this.#log.length}\ndata:{"reason":"slow","spread":5,"since":17}\n\n`);
    }
  }
}

/** Tells when a tab is ready to share. */
class Channel extends BroadcastChannel {
  static made = () => {};
  constructor(name) {
    super(name);
    Channel.made();
  }
  // A browser delivers what was posted before; Node does not.
  close() {
    setTimeout(() => super.close(), 5);
  }
}
globalThis.BroadcastChannel = Channel;

let user = 900;
function tab(t, server, me, options = {}) {
  const { dial, ...rest } = options;
  return open(t, {
    url: 'https://example.com',
    token: token(me),
    transports: ['sse'],
    shared: true,
    backoff: { base: 1, cap: 1 },
    dial: { fetch: server.fetch, ...dial },
    ...rest,
  });
}
/** A tab that has asked for the lead before any later one does. */
async function leader(t, server, me, options) {
  const made = new Promise(resolve => (Channel.made = resolve));
  const client = tab(t, server, me, options);
  await until(client, 'live', () => client.status.state === 'live');
  await made;
  return client;
}
const follows = client => until(client, 'following', () => client.status.shared && client.status.state === 'live');
const data = client => client.seen.map(({ data }) => data);
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

test('tabs follow the first one, and each has all messages once', async t => {
  const server = new Server();
  const me = user++;
  const first = await leader(t, server, me);
  const others = [1, 2, 3].map(() => tab(t, server, me));
  for (const other of others) await follows(other);
  assert.equal(server.connections.size, 1);
  for (let i = 0; i < 5; i++) server.publish(`${i}`);
  server.gap();
  server.publish('5');
  for (const client of [first, ...others]) {
    await until(client, 'all', () => client.seen.length === 6);
    assert.deepEqual(data(client), ['0', '1', '2', '3', '4', '5']);
    assert.deepEqual(client.gaps, [{ reason: 'slow', cursor: '7.5', spread: 5, since: 17 }]);
  }
});

test('a tab that is behind gets what the leader has kept, and one that is further behind asks the server', async t => {
  const server = new Server();
  const me = user++;
  const first = await leader(t, server, me);
  for (let i = 1; i <= 300; i++) server.publish(`${i}`);
  await until(first, 'all', () => first.seen.length === 300);
  for (const cursor of [50, 250, 300]) {
    const other = tab(t, server, me, { cursor: `7.${cursor}` });
    await until(other, 'all', () => other.seen.length === 300 - cursor);
    await follows(other);
    server.publish('end');
    await until(other, 'the end', () => other.seen.at(-1)?.data === 'end');
    assert.equal(new Set(other.seen.map(({ id }) => id)).size, other.seen.length);
  }
});

test('the leader closes, and another tab takes over without loss', async t => {
  const server = new Server();
  const me = user++;
  const clients = [await leader(t, server, me)];
  for (let i = 0; i < 3; i++) await follows(clients[clients.push(tab(t, server, me)) - 1]);
  const sent = [];
  for (let round = 0; round < 3; round++) {
    server.publish(`${sent.push(`${sent.length}`) - 1}`);
    clients.shift().close();
    server.publish(`${sent.push(`${sent.length}`) - 1}`);
    for (const client of clients) {
      await until(client, 'all', () => client.seen.length === sent.length);
      assert.deepEqual(data(client), sent);
    }
  }
  assert.equal(server.connections.size, 1);
});

test('the topics of all tabs are in the one connection, and each tab has its own', async t => {
  const server = new Server();
  const me = user++;
  const first = await leader(t, server, me, { topics: ['a'] });
  const second = tab(t, server, me);
  const got = [];
  second.on('*', ({ data }) => got.push(data), 'b');
  await follows(second);
  const [connection] = server.connections;
  assert.equal(server.connections.size, 1);
  assert.deepEqual(connection.topics, ['a', 'b']);
  assert.deepEqual(second.topics, ['b']);
  server.publish('of a', 'a');
  server.publish('of b', 'b');
  await until(second, 'of b', () => got.length);
  assert.deepEqual(got, ['of b']);
  // A topic that comes later.
  const later = [];
  second.on('*', ({ data }) => later.push(data), 'c');
  await until(second, 'c', () => second.topics.includes('c'));
  server.publish('first of c', 'c');
  await until(second, 'first of c', () => later.length);
  server.heartbeat();
  await follows(second);
  server.publish('second of c', 'c');
  await until(second, 'second of c', () => later.length === 2);
  assert.deepEqual(later, ['first of c', 'second of c']);
  second.close();
  await until(first, 'a alone', () => server.connections.size === 1 && [...server.connections][0].topics.length === 1);
});

test('a tab is told that a topic is refused, and the leader asks for it no more', async t => {
  const server = new Server();
  const me = user++;
  const first = await leader(t, server, me, { topics: ['a'] });
  const second = tab(t, server, me, { topics: ['b', 'c'] });
  await follows(second);
  const refused = [];
  second.on('topics', told => refused.push(...told.refused));
  server.refused = ['b'];
  for (const connection of server.connections) connection.end();
  await until(second, 'refused', () => refused.length);
  assert.deepEqual(refused, [{ topic: 'b', reason: 'forbidden' }]);
  await follows(second);
  assert.deepEqual(second.topics, ['c']);
  const one = () => server.connections.size === 1 && [...server.connections][0].asked;
  await until(first, 'a and c alone', () => `${one()}` === 'a,c');
  server.publish('of c', 'c');
  await until(second, 'of c', () => second.seen.length);
});

test('a text that is too large for the server ends the tab that leads, and no other', async t => {
  const server = new Server();
  const me = user++;
  const { Socket, opened } = sockets();
  const options = { transports: ['websocket'], dial: { WebSocket: Socket } };
  const leading = opened().then(socket => (socket.hello('7.0'), socket));
  const first = await leader(t, server, me, options);
  const second = tab(t, server, me, options);
  (await opened()).hello('7.0');
  await follows(second);
  const next = opened();
  const socket = await leading;
  socket.say({ type: 'bye', reason: 'too-big', retry: null });
  socket.end(1009);
  assert.equal(first.status.state, 'refused');
  (await next).hello('7.0');
  await until(second, 'live', () => second.status.state === 'live' && !second.status.shared);
});

test('messages of a new topic are never missing, whenever a tab goes over', async t => {
  const server = new Server();
  const me = user++;
  const clients = [await leader(t, server, me)];
  for (let i = 0; i < 3; i++) clients.push(tab(t, server, me));
  const got = clients.map(() => new Map());
  const sent = new Map();
  const topics = ['t0', 't1', 't2', 't3', 't4', 't5'];
  const since = new Map();
  /** A tab has the messages of a topic from where it is granted, and from where somebody listens. */
  const note = i => {
    for (const topic of clients[i].topics) {
      if (got[i].has(topic) && !since.has(`${i} ${topic}`)) since.set(`${i} ${topic}`, clients[i].cursor);
    }
  };
  for (const [i, client] of clients.entries()) client.on('topics', () => note(i));
  for (const topic of topics) sent.set(topic, []);
  let number = 0;
  for (let step = 0; step < 120; step++) {
    if (step % 10 === 0) {
      const i = (step / 10) % 4;
      const topic = topics[(step / 10) % 6];
      if (!got[i].has(topic)) {
        got[i].set(topic, []);
        clients[i].on('*', ({ id }) => got[i].get(topic).push(id), topic);
        note(i);
      }
    }
    const topic = topics[step % 6];
    server.publish('x', topic);
    sent.get(topic).push(`7.${++number}`);
    if (step % 7 === 0) server.heartbeat();
    await pause(Math.random() * 4);
  }
  server.heartbeat();
  for (const [i, client] of clients.entries()) {
    for (const [topic, ids] of got[i]) {
      const from = Number(since.get(`${i} ${topic}`).split('.')[1]);
      const expected = sent.get(topic).filter(id => Number(id.split('.')[1]) > from);
      await until(client, `${i} ${topic}`, () => ids.length >= expected.length);
      assert.deepEqual(ids.slice(-expected.length), expected, `${i} ${topic} since ${from}`);
      assert.equal(new Set(ids).size, ids.length);
    }
  }
});

test('a leader that does not answer is overtaken', async t => {
  const server = new Server();
  const me = user++;
  let silent = false;
  // The first tab's channel.
  globalThis.BroadcastChannel = class extends Channel {
    set onmessage(handler) {
      super.onmessage = event => silent || handler(event);
    }
    postMessage(word) {
      if (!silent) super.postMessage(word);
    }
  };
  const first = await leader(t, server, me);
  globalThis.BroadcastChannel = Channel;
  const others = [tab(t, server, me), tab(t, server, me)];
  for (const other of others) await follows(other);
  silent = true;
  server.publish('one');
  for (const other of others) await until(other, 'one', () => other.seen.length === 1);
  silent = false;
  await follows(first);
  server.publish('two');
  for (const client of [first, ...others]) {
    await until(client, 'two', () => client.seen.length === 2);
    assert.deepEqual(data(client), ['one', 'two']);
  }
  assert.equal(server.connections.size, 1);
});

test('a leader whose connection breaks takes its followers along, and their state says so', async t => {
  const server = new Server();
  const me = user++;
  let down = false;
  const dial = { fetch: (...request) => (down ? Promise.reject(new Error('down')) : server.fetch(...request)) };
  const first = await leader(t, server, me, { dial, backoff: { base: 50, cap: 50 } });
  const second = tab(t, server, me, { dial });
  await follows(second);
  const opened = server.opened;
  down = true;
  for (const connection of server.connections) connection.end();
  await until(second, 'waiting', () => second.status.state === 'waiting');
  server.publish('meanwhile');
  down = false;
  await until(second, 'meanwhile', () => second.seen.length === 1);
  await follows(second);
  assert.equal(server.opened, opened + 1);
});

test('followers send no texts once their leader is on a stream, and know it', async t => {
  const server = new Server();
  const me = user++;
  const { Socket, opened } = sockets();
  const options = { transports: ['websocket', 'sse'], dial: { WebSocket: Socket } };
  const begin = async () => {
    const socket = await opened();
    socket.hello('7.0');
    return socket;
  };
  const leading = begin();
  const first = await leader(t, server, me, { ...options, upgradeAfter: 500 });
  const second = tab(t, server, me, options);
  await begin();
  await follows(second);
  second.send('over the socket');
  const socket = await leading;
  while (!socket.sent.length) await pause(1);
  assert.deepEqual(socket.sent, [{ type: 'message', data: 'over the socket' }]);
  // WebSockets are blocked from now on.
  socket.end(1006);
  for (let i = 0; i < 2; i++) (await opened()).end(1006);
  await until(first, 'the stream', () => first.status.state === 'live' && first.status.transport === 'sse');
  await until(second, 'the stream', () => second.status.shared && second.status.transport === 'sse');
  assert.throws(() => second.send('lost'), /cannot send, live over sse/);
  server.publish('one');
  await until(second, 'one', () => second.seen.length === 1);
  assert.equal(server.connections.size, 1);
  const later = await begin();
  await until(second, 'the socket', () => second.status.transport === 'websocket');
  second.send('over the next socket');
  while (!later.sent.length) await pause(1);
  assert.deepEqual(later.sent, [{ type: 'message', data: 'over the next socket' }]);
});

test('a tab that takes over does not wait for a WebSocket that hangs', async t => {
  const server = new Server();
  const me = user++;
  let upgrade;
  /** Behind a proxy: the first two WebSockets break off, later ones hang. */
  const behind = () => {
    const { Socket, opened } = sockets();
    for (let i = 0; i < 2; i++) opened().then(socket => socket.end(1006));
    const dial = { WebSocket: Socket, setTimeout: (run, ms) => (ms < 60_000 ? setTimeout(run, ms) : void (upgrade = run)) };
    return { opened, options: { transports: ['websocket', 'sse'], dial } };
  };
  const first = await leader(t, server, me, behind().options);
  const { opened, options } = behind();
  const second = tab(t, server, me, options);
  await follows(second);
  upgrade();
  const hung = await opened();
  first.close();
  await until(second, 'a stream of its own', () => second.status.state === 'live' && !second.status.shared, 2000);
  assert.equal(second.status.transport, 'sse');
  assert.equal(hung.closed, true);
});

test('a tab goes over to another one\'s WebSocket when the server has answered its topics, and not before', async t => {
  const me = user++;
  const { Socket, opened } = sockets();
  const options = { transports: ['websocket'], dial: { WebSocket: Socket } };
  const begin = async () => {
    const socket = await opened();
    socket.hello('7.0');
    return socket;
  };
  const asked = async socket => {
    while (!socket.sent.some(({ type }) => type === 'subscribe')) await pause(1);
  };
  const answer = { type: 'subscribed', topics: ['a'], refused: [], cursor: '7.0' };
  const leading = begin();
  await leader(t, {}, me, options);
  const second = tab(t, {}, me, options);
  const own = await begin();
  second.subscribe('a');
  await asked(own);
  // It hears who leads.
  await pause(100);
  assert.equal(second.status.shared, undefined);
  own.say(answer, { type: 'ping', cursor: '7.0' });
  const socket = await leading;
  await asked(socket);
  socket.say(answer);
  await follows(second);
  socket.say({ type: 'message', id: '7.1', event: 'message', topic: 'a', data: 'of a' });
  await until(second, 'of a', () => second.seen.length === 1);
});

test('a tab whose token becomes another user\'s leaves the others', async t => {
  const server = new Server();
  const [one, two] = [user++, user++];
  const first = await leader(t, server, one);
  const tokens = [token(one, 1), token(two)];
  let now = Date.now();
  const second = tab(t, server, one, { token: () => tokens.shift(), dial: { now: () => now } });
  await follows(second);
  now += 3_600_000;
  first.close();
  // It takes over, with the next token.
  await until(second, 'live', () => second.status.state === 'live' && !second.status.shared && !tokens.length);
  const third = tab(t, server, one);
  await until(third, 'live', () => third.status.state === 'live');
  await pause(100);
  assert.equal(third.status.shared, undefined);
  assert.equal(server.connections.size, 2);
});

test('where the page may not use locks each tab has its own connection', async t => {
  const { locks } = navigator;
  t.after(() => (navigator.locks = locks));
  let calls = 0;
  // As in a sandboxed frame. The bound keeps a loop from hanging the test.
  const request = () => (++calls > 50 ? new Promise(() => {}) : Promise.reject(new DOMException('no storage', 'SecurityError')));
  navigator.locks = { request };
  const server = new Server();
  const me = user++;
  const clients = [tab(t, server, me), tab(t, server, me)];
  for (const client of clients) await until(client, 'live', () => client.status.state === 'live');
  while (calls < 2 * clients.length) await pause(1);
  await pause(50);
  assert.equal(calls, 2 * clients.length);
  server.publish('one');
  for (const client of clients) await until(client, 'one', () => client.seen.length === 1);
  assert.equal(server.connections.size, 2);
});
