import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { live, open, texts, until } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

let demo;
let user = 100;
before(async () => (demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' })));
after(() => demo.stop());

async function through(t) {
  const proxy = await Proxy.start(demo.port);
  t.after(() => proxy.stop());
  return proxy;
}

test('where WebSockets are blocked an event stream takes over, and a WebSocket when it can', async t => {
  const proxy = await through(t);
  proxy.blocked = true;
  const me = user++;
  const client = open(t, { url: proxy.url(), token: token(me), upgradeAfter: 100 });
  await live(client, 'sse');
  assert.ok(proxy.handshakes >= 2);
  const sent = [];
  const publish = async () => sent.push(await demo.publish(me, String(sent.length)));
  for (let i = 0; i < 10; i++) await publish();
  proxy.blocked = false;
  // The switch falls into a stream of messages.
  let switched = false;
  const done = live(client, 'websocket').then(() => (switched = true));
  while (!switched) await publish();
  await done;
  for (let i = 0; i < 10; i++) await publish();
  await until(client, 'all', () => client.seen.length >= sent.length);
  assert.deepEqual(client.seen.map(({ id }) => id), sent);
  assert.deepEqual(client.gaps, []);
  for (;;) if ((await demo.sessions(me)).length === 1) break;
});

test('what both transports bring in a switch is handed out once', async t => {
  const proxy = await through(t);
  proxy.blocked = true;
  const me = user++;
  // The hello of the second transport is held back until the first has brought messages that both have.
  let release;
  const held = new Promise(resolve => (release = resolve));
  const { default: WebSocket } = await import('ws');
  class Late extends WebSocket {
    set onmessage(handler) {
      super.onmessage = handler && (async event => {
        await held;
        handler(event);
      });
    }
    get onmessage() {
      return super.onmessage;
    }
  }
  const client = open(t, { url: proxy.url(), token: token(me), upgradeAfter: 50, dial: { WebSocket: Late } });
  await live(client, 'sse');
  proxy.blocked = false;
  while ((await demo.sessions(me)).length < 2);
  for (let i = 0; i < 20; i++) await demo.publish(me, String(i));
  await until(client, 'all over the stream', () => client.seen.length === 20);
  release();
  await live(client, 'websocket');
  await demo.publish(me, 'end');
  await until(client, 'the end', () => texts(client).includes('end'));
  assert.deepEqual(texts(client), [...Array.from({ length: 20 }, (_, i) => String(i)), 'end']);
  assert.equal(client.duplicates, 20);
});

for (const transport of ['websocket', 'sse']) {
  test(`${transport}: silence is noticed, and the client comes back without loss`, async t => {
    const proxy = await through(t);
    const me = user++;
    const client = open(t, { url: proxy.url(), token: token(me), transports: [transport], heartbeat: 500 });
    await live(client);
    proxy.stall();
    await demo.publish(me, 'into the silence');
    await until(client, 'the message', () => client.seen.length === 1);
    assert.deepEqual(client.states.find(({ state }) => state === 'waiting').reason, 'silence');
    assert.deepEqual(texts(client), ['into the silence']);
  });
}

test('a wake-up asks at once, and redials after two seconds without an answer', async t => {
  const proxy = await through(t);
  const me = user++;
  let awake;
  const dial = { wake: call => ((awake = call), () => {}) };
  const client = open(t, { url: proxy.url(), token: token(me), dial });
  await live(client);
  awake();
  await demo.publish(me, 'answered');
  await until(client, 'the message', () => client.seen.length === 1);
  proxy.stall();
  await demo.publish(me, 'after the sleep');
  const states = client.states.length;
  awake();
  await until(client, 'the message', () => client.seen.length === 2);
  // It neither waited nor found out by the silence of five seconds and a half.
  assert.deepEqual(client.states.slice(states).map(({ state }) => state), ['connecting', 'live']);
});

test('a wake-up cuts a pause short that the client has chosen itself', async t => {
  const proxy = await through(t);
  let awake;
  const dial = { wake: call => ((awake = call), () => {}), random: () => 1 };
  const client = open(t, { url: proxy.url(), token: token(user++), dial, backoff: { base: 3_600_000, cap: 3_600_000 } });
  await live(client);
  proxy.cut();
  await until(client, 'the pause', () => client.status.state === 'waiting');
  awake();
  await live(client);
});

test('pauses grow up to the cap, at random', async t => {
  const proxy = await through(t);
  proxy.down = true;
  const chances = [0.5, 1, 0.25, 1, 1, 1];
  const pauses = [];
  const timers = new Set();
  const dial = {
    random: () => chances[pauses.length] ?? 1,
    now: () => 0,
    setTimeout: (run, ms) => {
      const timer = setTimeout(run, Math.min(ms, 500));
      timers.add(timer);
      return timer;
    },
  };
  const client = open(t, { url: proxy.url(), token: token(user++), dial, backoff: { base: 100, cap: 800 } });
  client.on('status', ({ state, until }) => state === 'waiting' && pauses.push(until));
  await until(client, 'six pauses', () => pauses.length === 6);
  client.close();
  assert.deepEqual(pauses, [50, 200, 100, 800, 800, 800]);
});

test('any faults at any time lose and double nothing', { timeout: 60_000 }, async t => {
  const proxy = await through(t);
  const me = user++;
  const client = open(t, { url: proxy.url(), token: token(me), upgradeAfter: 20, backoff: { base: 20, cap: 50 } });
  const reader = client[Symbol.asyncIterator]();
  await live(client);
  const sent = [];
  for (let round = 0; round < 60; round++) {
    proxy.blocked = Math.random() < 0.4;
    proxy.down = false;
    for (let i = Math.random() * 40; i > 0; i--) sent.push(await demo.publish(me, 'x'.repeat(Math.random() * 5000)));
    if (Math.random() < 0.3) await live(client);
    proxy.down = Math.random() < 0.2;
    proxy.cut();
  }
  proxy.blocked = proxy.down = false;
  await until(client, 'all', () => client.seen.length >= sent.length);
  const ids = client.seen.map(({ id }) => id);
  assert.deepEqual(ids, sent);
  assert.deepEqual(client.gaps, []);
  const transports = new Set(client.states.filter(({ state }) => state === 'live').map(({ transport }) => transport));
  assert.deepEqual(transports, new Set(['websocket', 'sse']));
  const read = [];
  while (read.length < sent.length) read.push((await reader.next()).value.id);
  assert.deepEqual(read, sent);
  const sessions = client.states.filter(({ state }) => state === 'live').length;
  t.diagnostic(`${sent.length} messages, ${sessions} sessions, ${client.duplicates} doubles left out`);
});
