import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventSource } from '../dist/eventsource.js';
import { state } from '../dist/state.js';
import { Storage, live, open, until } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

let demo;
let user = 700;
before(async () => {
  demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms', REALTIME__TOPICS__PUBLIC: 'news,order:*' });
});
after(() => demo.stop());

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
};
const publish = (topic, message, more) => demo.api('POST', '/api/publish', { topics: [topic], message, ...more });
const granted = (client, topic) => until(client, topic, () => client.topics.includes(topic));

for (const [way, options] of Object.entries(WAYS)) {
  test(`${way}: topics come and go while the connection is live`, async t => {
    const client = open(t, { url: demo.url(), token: token(user++), ...options });
    const told = [];
    client.on('topics', value => told.push(value));
    await live(client);
    const got = [];
    const end = client.on('*', message => got.push(message), 'order:7');
    client.subscribe('secret');
    await granted(client, 'order:7');
    await publish('order:7', 'one');
    await publish('order:8', 'of another one');
    await until(client, 'one', () => got.length);
    assert.deepEqual([got[0].topic, got[0].data], ['order:7', 'one']);
    const refused = told.flatMap(({ refused }) => refused);
    assert.equal(refused[0].topic, 'secret');
    assert.ok(refused[0].reason);
    end();
    await until(client, 'the end of it', () => !client.topics.includes('order:7'));
    await publish('order:7', 'two');
    client.subscribe('news');
    await granted(client, 'news');
    await publish('news', 'three');
    await until(client, 'three', () => client.seen.some(({ data }) => data === 'three'));
    assert.deepEqual(client.seen.map(({ data }) => data), ['one', 'three']);
    assert.ok(client.states.every(({ state }) => state !== 'waiting'));
  });

  test(`${way}: topics survive broken connections without loss`, async t => {
    const proxy = await Proxy.start(demo.port);
    t.after(() => proxy.stop());
    const topic = `order:${user}`;
    const client = open(t, { url: proxy.url(), token: token(user++), topics: [topic], ...options });
    await granted(client, topic);
    const sent = [];
    for (let i = 0; i < 60; i++) {
      sent.push((await publish(topic, `${i}`)).position);
      if (i % 20 === 10) {
        await live(client);
        proxy.cut();
      }
    }
    await until(client, 'all', () => client.seen.length === 60);
    assert.deepEqual(client.seen.map(({ id }) => id), sent);
    assert.deepEqual(client.gaps, []);
  });

  test(`${way}: a reloaded page gets what its topics retain, and what it missed`, async t => {
    const topic = `order:${user}`;
    const storage = new Storage();
    const mine = { url: demo.url(), token: token(user++), topics: [topic], storage, ...options };
    await publish(topic, 'retained', { retain: true });
    const first = open(t, mine);
    await until(first, 'the retained message', () => first.seen.length);
    await publish(topic, 'not retained');
    await until(first, 'two', () => first.seen.length === 2);
    first.close();
    await publish(topic, 'missed');
    const again = open(t, mine);
    await until(again, 'both', () => again.seen.length === 2);
    assert.deepEqual(again.seen.map(({ id, data }) => [id === null, data]), [[true, 'retained'], [false, 'missed']]);
    // And a topic that is entered later.
    const other = `order:x${user}`;
    await publish(other, 'of another topic', { retain: true });
    again.subscribe(other);
    await until(again, 'the other one', () => again.seen.some(({ data }) => data === 'of another topic'));
  });

  test(`${way}: a reloaded page gets what the topics of its login retain`, async t => {
    const topic = `login:${user}`;
    const storage = new Storage();
    const mine = { url: demo.url(), token: token(user++, 3600, { topics: [topic] }), storage, ...options };
    await publish(topic, 'retained', { retain: true });
    for (let page = 0; page < 3; page++) {
      const client = open(t, mine);
      await until(client, 'the retained message', () => client.seen.length === 1);
      // The heartbeat behind it.
      while (!client.cursor) await new Promise(resolve => setTimeout(resolve, 2));
      assert.equal(client.seen[0].data, 'retained');
      client.close();
    }
  });

  test(`${way}: a state never misses an update, whatever races`, async t => {
    const proxy = await Proxy.start(demo.port);
    t.after(() => proxy.stop());
    const topic = `order:${user}`;
    const rows = new Map();
    let version = 0;
    const load = async () => {
      // As the service does it: first the cursor, then the query.
      const cursor = await demo.publish(1, 'for its position');
      await new Promise(resolve => setTimeout(resolve, Math.random() * 20));
      return { cursor, value: new Map(rows) };
    };
    const apply = (value, { data }) => {
      const { row, version } = JSON.parse(data);
      return version > (value.get(row) ?? 0) ? value.set(row, version) : value;
    };
    const client = open(t, { url: proxy.url(), token: token(user++), ...options });
    const states = Array.from({ length: 3 }, () => state(client, load, apply, { topic, backoff: { base: 5, cap: 50 } }));
    t.after(() => states.forEach(made => made.close()));
    for (let i = 0; i < 300; i++) {
      const row = `${i % 7}`;
      rows.set(row, ++version);
      await publish(topic, JSON.stringify({ row, version }));
      if (i % 50 === 20) states[i % 3].reload();
      if (i % 100 === 60) {
        await live(client);
        proxy.cut();
      }
    }
    rows.set('end', 1);
    await publish(topic, JSON.stringify({ row: 'end', version: 1 }));
    for (const made of states) {
      for (let i = 0; made.stale || !made.value.get('end'); i++) {
        assert.ok(i < 1000, `${made.error}`);
        await new Promise(resolve => setTimeout(resolve, 10));
      }
      assert.deepEqual(made.value, rows);
    }
  });
}

test('an EventSource brings the messages of topics, without their names', async t => {
  const topic = `order:${user}`;
  const client = open(t, { url: demo.url(), token: token(user++), topics: [topic], transports: ['sse'], sse: eventSource });
  await granted(client, topic);
  await publish(topic, 'one');
  await until(client, 'one', () => client.seen.length);
  assert.equal(client.seen[0].topic, undefined);
});

test('a stream knows its server\'s heartbeat', async t => {
  const proxy = await Proxy.start(demo.port);
  t.after(() => proxy.stop());
  // 500 ms, and five seconds of slack. By itself it would wait for 25 s.
  const client = open(t, { url: proxy.url(), token: token(user++), transports: ['sse'] });
  await until(client, 'hello', () => client.status.state === 'live');
  await new Promise(resolve => setTimeout(resolve, 200));
  proxy.stall();
  await until(client, 'the silence', () => client.states.some(({ reason }) => reason === 'silence'), 8000);
});
