import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventSource } from '../dist/eventsource.js';
import { Storage, live, open, texts, until } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

let demo, proxy;
let user = 100;
before(async () => {
  demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' });
  proxy = await Proxy.start(demo.port);
});
after(async () => {
  proxy.stop();
  await demo.stop();
});

const WAYS = {
  websocket: { transports: ['websocket'] },
  'websocket with the token in the query': { transports: ['websocket'], websocketToken: 'query' },
  'websocket with headers': { transports: ['websocket'], headers: { 'X-Of-The-Test': 'yes' }, dial: { socketHeaders: true } },
  'fetch stream': { transports: ['sse'] },
  'fetch stream with headers': { transports: ['sse'], headers: { 'X-Of-The-Test': 'yes' } },
  EventSource: { transports: ['sse'], sse: eventSource },
};
const many = Array.from({ length: 200 }, (_, i) => `message ${i}\nsecond line, 你好 ${i}`);

for (const [way, options] of Object.entries(WAYS)) {
  test(`${way}: messages arrive in order, with their ids and events`, async t => {
    const me = user++;
    const client = open(t, { url: demo.url(), token: token(me), ...options });
    const orders = [];
    client.on('order', ({ data }) => orders.push(data));
    await live(client);
    const positions = [];
    for (const text of many) positions.push(await demo.publish(me, text));
    await demo.publish(me, 'paid', { event: 'order' });
    await until(client, 'all', () => client.seen.length === many.length + 1);
    assert.deepEqual(texts(client), [...many, 'paid']);
    assert.deepEqual(client.seen.slice(0, -1).map(({ id }) => id), positions);
    assert.deepEqual(orders, ['paid']);
    assert.deepEqual(client.gaps, []);
    assert.equal(client.cursor, client.seen.at(-1).id);
  });

  test(`${way}: broken connections lose and double nothing`, async t => {
    const me = user++;
    const client = open(t, { url: proxy.url(), token: token(me), ...options });
    await live(client);
    for (const [i, text] of many.entries()) {
      await demo.publish(me, text);
      if (i % 40 !== 20) continue;
      await live(client);
      proxy.cut();
    }
    await until(client, 'all', () => client.seen.length >= many.length);
    assert.deepEqual(texts(client), many);
    assert.deepEqual(client.gaps, []);
    assert.ok(client.states.some(({ state }) => state === 'waiting'));
  });
}

test('a reader gets the messages, and the stored cursor stays behind its last one', async t => {
  const me = user++;
  const storage = new Storage();
  const client = open(t, { url: demo.url(), token: token(me), storage, name: 'mine' });
  const reader = client[Symbol.asyncIterator]();
  await live(client);
  const [first, second] = [await demo.publish(me, 'one'), await demo.publish(me, 'two')];
  await until(client, 'both', () => client.seen.length === 2);
  const stored = () => storage.getItem(`realtime:${demo.url()}:mine`);
  assert.equal((await reader.next()).value.data, 'one');
  assert.notEqual(stored(), first, 'the first message is still being worked on');
  assert.equal((await reader.next()).value.data, 'two');
  assert.equal(stored(), first);
  const third = reader.next();
  await new Promise(setImmediate);
  assert.equal(stored(), second);
  client.close();
  assert.equal((await third).done, true);
});

test('a reload loses nothing, over the other transport as well', async t => {
  const me = user++;
  const storage = new Storage();
  const url = demo.url();
  const old = open(t, { url, token: token(me), storage });
  await live(old, 'websocket');
  await demo.publish(me, 'one');
  await until(old, 'one', () => old.seen.length === 1);
  old.close();
  await demo.publish(me, 'two');
  const reloaded = open(t, { url, token: token(me), storage, transports: ['sse'] });
  await until(reloaded, 'two', () => reloaded.seen.length === 1);
  reloaded.close();
  await demo.publish(me, 'three');
  const again = open(t, { url, token: token(me), storage });
  await until(again, 'three', () => again.seen.length === 1);
  assert.deepEqual([old, reloaded, again].map(texts), [['one'], ['two'], ['three']]);
});

test('a reader that falls too far behind is told', async t => {
  const me = user++;
  const client = open(t, { url: demo.url(), token: token(me), maxBehind: 2 });
  const reader = client[Symbol.asyncIterator]();
  await live(client);
  for (const text of ['one', 'two', 'three']) await demo.publish(me, text);
  await until(client, 'all', () => client.seen.length === 3);
  assert.equal((await reader.next()).value.data, 'one');
  assert.equal((await reader.next()).value.data, 'two');
  await assert.rejects(reader.next(), /2 messages behind/);
});

test('a text reaches the handler of the service, and its answer comes back', async t => {
  const client = open(t, { url: demo.url(), token: token(user++) });
  assert.throws(() => client.send('too early'), /cannot send, idle/);
  await live(client, 'websocket');
  client.send('hello');
  const [answer] = await until(client, 'the answer', () => client.seen.length && client.seen);
  assert.deepEqual(answer, { id: null, event: 'message', data: 'hello' });
});

test('a text over an event stream is refused aloud', async t => {
  const client = open(t, { url: demo.url(), token: token(user++), transports: ['sse'] });
  await live(client, 'sse');
  assert.throws(() => client.send('hello'), /cannot send, live over sse/);
});

test('a handler that throws keeps nobody from the next message', async t => {
  const me = user++;
  const errors = [];
  const dial = { setTimeout: (run, ms) => setTimeout(() => { try { run(); } catch (error) { errors.push(error.message); } }, ms) };
  const client = open(t, { url: demo.url(), token: token(me), dial });
  client.on('message', () => { throw new Error('of the handler'); });
  await live(client);
  await demo.publish(me, 'one');
  await demo.publish(me, 'two');
  await until(client, 'both', () => client.seen.length === 2);
  await new Promise(resolve => setTimeout(resolve, 0));
  assert.ok(errors.includes('of the handler'));
});

test('a cursor of another history is a gap', async t => {
  const client = open(t, { url: demo.url(), token: token(user++), cursor: '17.5' });
  // As it is told: the heartbeat behind it takes the cursor on.
  const cursors = [];
  client.on('gap', () => cursors.push(client.cursor));
  await until(client, 'the gap', () => client.gaps.length);
  assert.equal(client.gaps[0].reason, 'bus');
  assert.equal(typeof client.gaps[0].spread, 'number');
  assert.deepEqual(cursors, [client.gaps[0].cursor]);
});
