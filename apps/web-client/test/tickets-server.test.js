import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { eventSource } from '../dist/eventsource.js';
import { live, open, texts, until } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

let demo;
before(async () => (demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms', REALTIME__AUTH__EXPIRINGNOTICE: '2s' })));
after(() => demo.stop());

// As in docs/protocol.md: a ticket where a token would be, so that no token is in an address.
const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
  EventSource: { transports: ['sse'], sse: eventSource },
};
const options = { tokenName: 'ticket', websocketToken: 'query' };
let user = 900;

async function ticket(token) {
  const headers = { Authorization: `Bearer ${token}` };
  const answer = await fetch(demo.url('/resource/ticket'), { method: 'POST', headers });
  return (await answer.json()).data.ticket;
}

for (const [way, more] of Object.entries(WAYS)) {
  test(`${way}: each connection has a ticket of its own`, async t => {
    const me = user++;
    const proxy = await Proxy.start(demo.port);
    t.after(() => proxy.stop());
    let asked = 0;
    const client = open(t, { url: proxy.url(), token: () => (asked++, ticket(token(me))), ...options, ...more });
    await live(client);
    await demo.publish(me, 'before');
    await until(client, 'the first message', () => client.seen.length === 1);
    proxy.cut();
    await demo.publish(me, 'meanwhile');
    await until(client, 'the second message', () => client.seen.length === 2);
    assert.deepEqual(texts(client), ['before', 'meanwhile']);
    assert.deepEqual(client.gaps, []);
    assert.ok(asked >= 2);
  });
}

test('a login that ends is renewed by another ticket', async t => {
  const me = user++;
  const ends = [3, 3600];
  const client = open(t, { url: demo.url(), token: () => ticket(token(me, ends.shift() ?? 3600)), ...options });
  await live(client);
  await new Promise(resolve => setTimeout(resolve, 4500));
  await demo.publish(me, 'to the second login');
  await until(client, 'the message', () => client.seen.length);
  assert.deepEqual(texts(client), ['to the second login']);
});

test('a client that has fallen back to an event stream comes back to a WebSocket with another ticket', async t => {
  const me = user++;
  const proxy = await Proxy.start(demo.port);
  t.after(() => proxy.stop());
  proxy.blocked = true;
  let asked = 0;
  const client = open(t, { url: proxy.url(), token: () => (asked++, ticket(token(me))), upgradeAfter: 50, ...options });
  await live(client, 'sse');
  const states = client.states.length;
  const before = asked;
  const handshakes = proxy.handshakes;
  // The attempts beside the stream take nothing from it.
  while (proxy.handshakes < handshakes + 2) await new Promise(resolve => setTimeout(resolve, 5));
  assert.ok(asked > before);
  await demo.publish(me, 'over the stream');
  await until(client, 'the first message', () => client.seen.length === 1);
  assert.equal(client.states.length, states);
  proxy.blocked = false;
  await live(client, 'websocket');
  assert.deepEqual(client.states.slice(states).map(({ state }) => state), ['live']);
  await demo.publish(me, 'over the WebSocket');
  await until(client, 'the second message', () => client.seen.length === 2);
  proxy.cut();
  await demo.publish(me, 'meanwhile');
  await until(client, 'the third message', () => client.seen.length === 3);
  assert.deepEqual(texts(client), ['over the stream', 'over the WebSocket', 'meanwhile']);
  assert.deepEqual(client.gaps, []);
});
