import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { live, open, state, texts, until } from './client.js';
import { fake, sockets, streams } from './fakes.js';
import { token } from './demo.js';

/** A client that is live over a stream at `7.5` and has begun to open a WebSocket beside it. */
async function switching(t, options) {
  const { Socket, opened } = sockets();
  const { fetch, opened: streamed, posts } = streams();
  const client = open(t, {
    url: 'https://example.com/resource',
    token: 'x',
    upgradeAfter: 1,
    backoff: { base: 1, cap: 1 },
    dial: { WebSocket: Socket, fetch },
    ...options,
  });
  (await opened()).end(1006);
  (await opened()).end(1006);
  const stream = await streamed();
  stream.say(':connected\nid:7.5\n\n');
  await live(client, 'sse');
  const trial = await opened();
  assert.match(trial.url, /cursor=7.5/);
  return { client, stream, trial, opened, streamed, posts };
}

test('the token goes into the subprotocol, and into the query when it has other characters', async t => {
  const plain = await fake(t).opened();
  assert.equal(plain.url, 'wss://example.com/resource/websocket?clientid=web');
  assert.deepEqual(plain.protocols, ['realtime.v1', 'bearer.the-token']);
  const bearer = await fake(t, { token: 'Bearer x/y=' }).opened();
  assert.equal(bearer.url, 'wss://example.com/resource/websocket?Authorization=Bearer%20x%2Fy%3D&clientid=web');
  assert.deepEqual(bearer.protocols, ['realtime.v1']);
});

test('bytes, and frames of types that are not known', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello();
  socket.say({ type: 'of a later version' }, { type: 'message', id: '7.1', event: 'file', base64: 'AP+A' });
  assert.deepEqual(client.seen, [{ id: '7.1', event: 'file', data: '', bytes: Uint8Array.of(0, 255, 128) }]);
});

test('pings are answered, and tell of the bus', async t => {
  const { client, opened } = fake(t);
  const told = [];
  client.on('bus', ({ downSince }) => told.push(downSince));
  const socket = await opened();
  socket.hello();
  const ping = { type: 'ping', cursor: '7.4' };
  socket.say(ping, { ...ping, busDownSince: 17 }, { ...ping, busDownSince: 17 }, ping);
  assert.deepEqual(told, [17, null]);
  assert.deepEqual(socket.sent, Array.from({ length: 4 }, () => ({ type: 'pong' })));
  assert.equal(client.cursor, '7.4');
});

test('messages without a position are never taken for doubles', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello(null);
  socket.message(null, 'a');
  socket.message(null, 'a');
  assert.deepEqual(texts(client), ['a', 'a']);
  assert.equal(client.cursor, null);
});

test('a history that lies before the known one is announced and handed out', async t => {
  const { client, opened } = fake(t);
  const first = await opened();
  first.hello('7.99');
  first.message('7.100');
  first.end(1006);
  const second = await opened();
  assert.match(second.url, /cursor=7.100/);
  // The server has lost what was behind 7.50.
  second.hello('7.100', { recovered: false });
  second.say({ type: 'gap', reason: 'cursor', cursor: '7.50', spread: 0 });
  second.message('7.51');
  assert.equal(client.gaps.length, 1);
  assert.deepEqual(texts(client), ['7.100', '7.51']);
});

test('messages whose event has the name of a state come with the others', async t => {
  const { client, opened } = fake(t);
  const states = [];
  client.on('status', value => states.push(value));
  const socket = await opened();
  socket.hello();
  socket.message('7.1', 'a', 'status');
  assert.deepEqual(texts(client), ['a']);
  assert.ok(states.every(value => value.state));
});

test('a frame that is no JSON ends the connection, and the client comes back', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello();
  socket.onmessage({ data: 'hello' });
  assert.equal(socket.closed, true);
  assert.equal(client.status.reason, 'a frame is no JSON');
  (await opened()).hello();
  await live(client);
});

test('a text on a socket that is closing is refused aloud', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello();
  socket.readyState = 2;
  assert.throws(() => client.send('lost'), /closing/);
});

test('a socket that cannot be made counts as a failure', async t => {
  class Socket {
    constructor() {
      throw new SyntaxError('no such protocol');
    }
  }
  const client = open(t, { url: '/resource', token: 'x', transports: ['websocket'], dial: { WebSocket: Socket } });
  assert.match((await state(client, 'waiting')).reason, /no such protocol/);
});

test('what an earlier socket still says is not heard', async t => {
  const { client, opened } = fake(t);
  const first = await opened();
  first.hello();
  const { onmessage, onclose } = first;
  first.end(1006);
  const second = await opened();
  second.hello();
  onmessage({ data: JSON.stringify({ type: 'message', id: '7.1', event: 'message', data: 'late' }) });
  onclose({ code: 4409, reason: 'kicked' });
  assert.equal(client.status.state, 'live');
  assert.deepEqual(client.seen, []);
});

test('a token whose end has passed is replaced before it is refused', async t => {
  const tokens = [token(1, 3600), token(1, 7200)];
  let now = Date.now();
  let asked = 0;
  const { opened } = fake(t, { token: () => tokens[asked++], dial: { now: () => now } });
  const first = await opened();
  first.hello();
  now += 3_700_000;
  first.end(1006);
  assert.deepEqual((await opened()).protocols[1], `bearer.${tokens[1]}`);
});

test('a switch between histories begins anew instead of telling it twice', async t => {
  const { client, stream, trial, opened } = await switching(t);
  stream.say('event:gap\nid:8.0\ndata:{"reason":"bus","spread":5}\n\nid:8.1\ndata:one\n\n');
  await until(client, 'one', () => client.seen.length === 1);
  trial.hello('7.5');
  assert.equal(trial.closed, true);
  const next = await opened();
  assert.match(next.url, /cursor=8.1/);
  next.hello('8.1');
  next.message('8.2', 'two');
  await live(client, 'websocket');
  assert.deepEqual(texts(client), ['one', 'two']);
  assert.equal(client.gaps.length, 1);
});

test('a gap that both transports tell in a switch is told once', async t => {
  const { client, stream, trial } = await switching(t);
  stream.say('event:gap\nid:7.9\ndata:{"reason":"history","spread":5}\n\nid:7.10\ndata:one\n\n');
  await until(client, 'one', () => client.seen.length === 1);
  trial.hello('7.5', { recovered: false });
  assert.equal(stream.signal.aborted, true);
  trial.say({ type: 'gap', reason: 'history', cursor: '7.9', spread: 7 });
  trial.message('7.10', 'one');
  trial.message('7.11', 'two');
  assert.deepEqual(texts(client), ['one', 'two']);
  assert.deepEqual(client.gaps, [{ reason: 'history', cursor: '7.9', spread: 5, since: client.gaps[0].since }]);
  assert.equal(client.duplicates, 1);
});

test('a WebSocket that does not open leaves the stream alone, and is tried again', async t => {
  const { client, stream, trial, opened } = await switching(t);
  trial.end(1006);
  assert.equal(stream.signal.aborted, false);
  assert.equal(client.status.state, 'live');
  (await opened()).hello('7.5');
  assert.equal(client.status.transport, 'websocket');
});

test('a WebSocket that is tried again has a token of its own, and the stream keeps its one until then', async t => {
  let now = 'one';
  const asked = [];
  const late = [];
  const ask = () => {
    asked.push(now);
    return asked.length < 4 ? now : new Promise(answer => late.push(answer));
  };
  const { client, stream, trial, opened, streamed, posts } = await switching(t, { token: ask });
  assert.equal(trial.protocols[1], 'bearer.one');
  assert.deepEqual(asked, ['one']);
  now = 'two';
  trial.end(1006);
  const second = await opened();
  assert.equal(second.protocols[1], 'bearer.two');
  // The live session has yet to get it.
  stream.say('event:realtime.hello\ndata:{"session":"s","pingInterval":20000}\n\nevent:realtime.expiring\ndata:{}\n\n');
  while (!posts.length) await new Promise(setImmediate);
  assert.match(posts[0].url, /Authorization=two/);
  posts[0].answer({ code: 200, data: {} });
  // Another stream takes over while the next token is waited for.
  second.end(1006);
  while (!late.length) await new Promise(setImmediate);
  stream.end();
  const next = await streamed();
  next.say(':connected\nid:7.5\n\n');
  await until(client, 'the next stream', () => client.states.filter(({ state }) => state === 'live').length === 2);
  late.shift()('three');
  const third = await opened();
  assert.equal(third.protocols[1], 'bearer.three');
  third.hello('7.5');
  assert.equal(client.status.transport, 'websocket');
  third.end(1006);
  assert.equal((await opened()).protocols[1], 'bearer.three');
});

test('streams for new topics do not put off the next WebSocket, and pauses double with those that fail', async t => {
  const { Socket, opened } = sockets();
  const { fetch, opened: streamed } = streams();
  const upgrades = new Set();
  let now = 0;
  const dial = {
    WebSocket: Socket,
    fetch,
    setTimeout(run, ms) {
      if (ms < 60_000) return setTimeout(run, ms);
      const upgrade = { run, at: now + ms };
      upgrades.add(upgrade);
      return upgrade;
    },
    clearTimeout: timer => upgrades.delete(timer) || clearTimeout(timer),
  };
  const client = open(t, { url: 'https://example.com', token: 'x', backoff: { base: 1, cap: 1 }, dial });
  for (let i = 0; i < 2; i++) (await opened()).end(1006);
  const sessions = () => client.states.filter(({ state }) => state === 'live').length;
  const begin = async count => {
    (await streamed()).say(':connected\nid:7.5\n\n');
    await until(client, `session ${count}`, () => sessions() === count);
  };
  await begin(1);
  const tries = [];
  for (let step = 1; step <= 14; step++) {
    client.subscribe(`${step}`);
    await begin(step + 1);
    now += 30_000;
    for (const upgrade of upgrades) {
      if (upgrade.at > now) continue;
      upgrades.delete(upgrade);
      tries.push(now);
      upgrade.run();
      (await opened()).end(1006);
    }
  }
  assert.deepEqual(tries, [60_000, 180_000, 420_000]);
});

test('a stream that breaks does not wait for a WebSocket that hangs, and one that is ended for it does', async t => {
  const broken = await switching(t);
  broken.stream.end();
  await until(broken.client, 'the next attempt', () => broken.client.states.at(-1).state === 'connecting');
  assert.equal(broken.client.status.transport, 'sse');
  assert.equal(broken.trial.closed, true);
  const ended = await switching(t);
  ended.stream.say(':disconnected\nretry:86400000\n\n');
  ended.stream.end();
  await until(ended.client, 'the switch', () => ended.client.status.state === 'connecting');
  ended.trial.hello('7.5');
  assert.equal(ended.client.status.transport, 'websocket');
});

test('a WebSocket is tried again also where streams are cut before its turn', async t => {
  const { Socket, opened: socketOpened } = sockets();
  const { fetch, opened: streamOpened } = streams();
  let due;
  const setTimeout = (run, ms) => (ms === 60_000 ? (due = run) : globalThis.setTimeout(run, ms));
  const clearTimeout = timer => (timer === due ? (due = undefined) : globalThis.clearTimeout(timer));
  const dial = { WebSocket: Socket, fetch, setTimeout, clearTimeout };
  const { client } = fake(t, { transports: ['websocket', 'sse'], dial });
  for (let i = 0; i < 2; i++) (await socketOpened()).end(1006);
  for (let i = 0; i < 2; i++) {
    const stream = await streamOpened();
    stream.say(`:connected\nid:7.${i}\n\n`);
    await until(client, 'live', () => client.status.state === 'live');
    const planned = due;
    stream.end();
    await until(client, 'cut', () => client.status.state !== 'live');
    assert.equal(due, planned);
  }
  (await streamOpened()).say(':connected\nid:7.2\n\n');
  await until(client, 'live', () => client.status.state === 'live');
  due();
  (await socketOpened()).hello('7.2');
  assert.equal(client.status.transport, 'websocket');
});

for (const [name, pauses] of Object.entries({ 'a pause without an end': Infinity, 'a pause of a month': 2_592_000_000 })) {
  test(`${name} is waited for`, async t => {
    const { Socket, opened: socketOpened } = sockets();
    const { fetch, opened: streamOpened } = streams();
    const { client } = fake(t, { transports: ['websocket', 'sse'], upgradeAfter: pauses, dial: { WebSocket: Socket, fetch } });
    for (let i = 0; i < 2; i++) (await socketOpened()).end(1006);
    (await streamOpened()).say(':connected\nid:7.0\n\n');
    await until(client, 'live', () => client.status.state === 'live');
    const next = await Promise.race([socketOpened(), new Promise(end => setTimeout(end, 50))]);
    assert.equal(next, undefined);
  });
}

test('a wake-up redials a stream that was silent, and leaves one alone that was not', async t => {
  let now = 0;
  let awake;
  const { fetch, opened } = streams();
  const dial = { fetch, now: () => now, wake: call => ((awake = call), () => {}) };
  const client = open(t, { url: 'https://example.com', token: 'x', transports: ['sse'], dial });
  const first = await opened();
  first.say(':connected\nid:7.5\n\n');
  await live(client);
  awake();
  assert.equal(client.status.state, 'live');
  now += 3000;
  awake();
  assert.equal(client.status.state, 'connecting');
  assert.equal(first.signal.aborted, true);
  assert.match((await opened()).url, /cursor=7.5/);
});

test('an event that the end of its stream cuts off is no message', async t => {
  const { fetch, opened } = streams();
  const client = open(t, { url: 'https://example.com', token: 'x', transports: ['sse'], dial: { fetch } });
  const first = await opened();
  first.say(':connected\nretry:1\nid:7.5\n\nid:7.6\ndata:ha');
  await live(client);
  first.end();
  const second = await opened();
  assert.match(second.url, /cursor=7.5/);
  second.say(':connected\nid:7.5\n\nid:7.6\ndata:half\n\n');
  await until(client, 'the message', () => client.seen.length === 1);
  assert.deepEqual(texts(client), ['half']);
});

test('Retry-After is kept to, and waking up does not cut it short', async t => {
  const server = createServer((_, response) => response.writeHead(503, { 'Retry-After': '7' }).end('{"msg":"later"}'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  let awake;
  const client = open(t, {
    url: `http://127.0.0.1:${server.address().port}`,
    token: 'x',
    transports: ['sse'],
    dial: { now: () => 0, wake: call => ((awake = call), () => {}) },
  });
  const { code, reason, until: time } = await state(client, 'waiting');
  assert.deepEqual([code, reason, time], [503, 'later', 7000]);
  awake();
  assert.equal(client.status.state, 'waiting');
});

test('after a session that lasted pauses are short again, also when waking up has ended it', async t => {
  let now = 0;
  let awake;
  const dial = { now: () => now, random: () => 1, wake: call => ((awake = call), () => {}) };
  const { client, opened } = fake(t, { dial, backoff: { base: 1, cap: 100 } });
  const pauses = [];
  client.on('status', ({ state, until }) => state === 'waiting' && pauses.push(until - now));
  for (let i = 0; i < 3; i++) (await opened()).end(1006);
  const lasted = await opened();
  lasted.hello();
  now += 10_000;
  lasted.send = () => {
    throw new Error('dead');
  };
  awake();
  (await opened()).end(1006);
  assert.deepEqual(pauses, [1, 2, 4, 1]);
});

test('a token in a header has the name that the server goes by', async t => {
  const asked = [];
  const fetch = async (url, { headers }) => {
    asked.push([url, headers]);
    return new Response(null, { status: 204 });
  };
  const options = { url: 'https://example.com', token: 'x', tokenName: 'satoken', headers: {}, transports: ['sse'] };
  await state(open(t, { ...options, dial: { fetch } }), 'refused');
  assert.deepEqual(asked, [
    ['https://example.com/sse?clientid=web&hello=1', { Accept: 'text/event-stream', satoken: 'Bearer x' }],
  ]);
});

test('a wake-up asks once, and an answer ends the wait for it', async t => {
  const pending = new Map();
  let number = 0;
  let awake;
  let woken = true;
  const dial = {
    setTimeout: (run, ms) => {
      if (ms === 1) setTimeout(run, 1);
      else pending.set(++number, ms);
      return number;
    },
    clearTimeout: timer => pending.delete(timer),
    wake: call => ((awake = call), () => (woken = false)),
  };
  const { client, opened } = fake(t, { dial });
  const socket = await opened();
  socket.hello();
  const waits = () => [...pending.values()].filter(ms => ms === 2000).length;
  awake();
  awake();
  assert.deepEqual(socket.sent, [{ type: 'ping' }]);
  assert.equal(waits(), 1);
  socket.say({ type: 'pong' });
  assert.equal(waits(), 0);
  client.close();
  assert.equal(woken, false);
  assert.equal(pending.size, 0);
});

test('a token that was refused is not brought a second time', async t => {
  let requests = 0;
  const fetch = async () => (requests++, new Response('{"code":401,"msg":"no"}', { status: 401 }));
  let asked = 0;
  const login = () => (asked++, 'the same');
  const client = open(t, { url: 'https://example.com', token: login, transports: ['sse'], dial: { fetch } });
  await state(client, 'refused');
  assert.deepEqual([requests, asked], [1, 2]);
});

/**
 * A client whose tokens, `ticket-1` and so on, open one connection each. The server takes a ticket before it looks whether
 * it has room, which it has not for those that are `busy`.
 */
function ticketed(t, busy = []) {
  const { fetch: stream, opened } = streams();
  const used = new Set();
  const fetch = async (url, init) => {
    const ticket = new URL(url).searchParams.get('ticket');
    if (used.has(ticket)) return new Response('{"code":401,"msg":"the ticket is not valid"}', { status: 401 });
    used.add(ticket);
    if (!busy.includes(ticket)) return stream(url, init);
    return new Response(':disconnected\nretry:1\n\n', { headers: { 'content-type': 'text/event-stream' } });
  };
  let asked = 0;
  const client = open(t, {
    url: 'https://example.com',
    tokenName: 'ticket',
    token: () => `ticket-${++asked}`,
    transports: ['sse'],
    backoff: { base: 1, cap: 1 },
    dial: { fetch },
  });
  const final = new Promise(resolve => client.on('status', status => status.state === 'refused' && resolve(status)));
  const begin = async () => {
    const connection = await Promise.race([opened(), final]);
    assert.ok(connection.say, connection.reason);
    connection.say(':connected\nretry:1\nid:7.5\n\n');
    await live(client);
    return connection;
  };
  return { client, begin, asked: () => asked };
}

test('tokens that open one connection each are asked for at every break, however soon it comes', async t => {
  const { client, begin, asked } = ticketed(t);
  (await begin()).end();
  (await begin()).end();
  await begin();
  // A second stream, for other topics.
  client.subscribe('a');
  await begin();
  assert.equal(asked(), 4);
});

test('a token that a passing answer has used up is no refusal', async t => {
  const { begin } = ticketed(t, ['ticket-1', 'ticket-3']);
  for (const ticket of ['ticket-2', 'ticket-4']) {
    const connection = await begin();
    assert.match(connection.url, new RegExp(`ticket=${ticket}&`));
    connection.end();
  }
});

test('a new token in the place of a refused one is the last', async t => {
  let requests = 0;
  const fetch = async () => (requests++, new Response('{"code":401,"msg":"no"}', { status: 401 }));
  let asked = 0;
  const client = open(t, { url: 'https://example.com', token: () => `token-${++asked}`, transports: ['sse'], dial: { fetch } });
  await state(client, 'refused');
  assert.deepEqual([requests, asked], [2, 2]);
});

test('a token that is refused after its session began is not brought again either', async t => {
  const { fetch: stream, opened } = streams();
  let requests = 0;
  const fetch = (url, init) => (requests++ ? new Response('{"code":401,"msg":"no"}', { status: 401 }) : stream(url, init));
  const dial = { fetch: async (...request) => fetch(...request) };
  const client = open(t, { url: 'https://example.com', token: () => 'x', transports: ['sse'], backoff: { base: 1, cap: 1 }, dial });
  const first = await opened();
  first.say(':connected\nretry:1\nid:7.5\n\n');
  await live(client);
  first.end();
  await state(client, 'refused');
  assert.equal(requests, 2);
});

test('a WebSocket alone that does not open twice in a row brings another token', async t => {
  let asked = 0;
  const { opened } = fake(t, { token: () => `token-${++asked}` });
  const brought = [];
  for (let i = 0; i < 3; i++) {
    const socket = await opened();
    brought.push(socket.protocols[1]);
    socket.end(1006);
  }
  assert.deepEqual(brought, ['bearer.token-1', 'bearer.token-1', 'bearer.token-2']);
});
