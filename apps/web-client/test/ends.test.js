import assert from 'node:assert/strict';
import { test } from 'node:test';
import { live, open, state, texts, until } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
};

async function start(t, variables) {
  const demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms', ...variables });
  t.after(() => demo.stop());
  return demo;
}

for (const [way, options] of Object.entries(WAYS)) {
  test(`${way}: a server that is killed and comes back tells of the gap`, async t => {
    const demo = await start(t);
    const client = open(t, { url: demo.url(), token: token(1), ...options });
    await live(client);
    await demo.publish(1, 'before');
    await until(client, 'before', () => client.seen.length === 1);
    await demo.stop('SIGKILL');
    await state(client, 'waiting');
    const again = await Demo.start({}, demo.port);
    t.after(() => again.stop());
    await live(client);
    await again.publish(1, 'after');
    await until(client, 'after', () => client.seen.length === 2);
    assert.deepEqual(texts(client), ['before', 'after']);
    assert.deepEqual(client.gaps.map(({ reason }) => reason), ['bus']);
  });

  test(`${way}: a server that drains says when to come back`, async t => {
    const demo = await start(t);
    // More than the client would wait for of its own accord.
    const client = open(t, { url: demo.url(), token: token(1), backoff: { base: 1, cap: 1 }, ...options });
    const waits = [];
    client.on('status', ({ state, until }) => state === 'waiting' && waits.push(until - Date.now()));
    await live(client);
    demo.signal('SIGTERM');
    const status = await state(client, 'waiting');
    assert.ok(waits[0] > 100 && waits[0] < 1000, `${waits}`);
    if (way === 'websocket') assert.deepEqual([status.code, status.reason], [1012, 'drain']);
  });

  test(`${way}: a kicked login is refused, and does not come back`, async t => {
    const demo = await start(t);
    const proxy = await Proxy.start(demo.port);
    t.after(() => proxy.stop());
    let asked = 0;
    const mine = token(1);
    const client = open(t, { url: proxy.url(), token: () => (asked++, mine), ...options });
    await live(client);
    await demo.publish(1, 'last words');
    await demo.kick(1);
    const status = await state(client, 'refused');
    if (way === 'websocket') assert.deepEqual([status.code, status.reason], [4409, 'kicked']);
    else assert.equal(status.code, 204);
    assert.deepEqual(texts(client), ['last words']);
    // A stream ends without a reason; the next answer says it.
    assert.equal(proxy.connections, way === 'websocket' ? 1 : 2);
    assert.equal(asked, 1);
  });

  test(`${way}: a token that ends is followed by another one, and nothing is lost`, async t => {
    const demo = await start(t);
    let asked = 0;
    const client = open(t, { url: demo.url(), token: async () => token(1, asked++ ? 3600 : 2), ...options });
    await live(client);
    // The session may get it without an end.
    while (asked < 2) await new Promise(setImmediate);
    await demo.publish(1, 'to the second token');
    await until(client, 'the message', () => client.seen.length === 1);
    assert.equal(client.status.state, 'live');
    assert.deepEqual(client.gaps, []);
  });

  test(`${way}: a token that ends and cannot be replaced is refused`, async t => {
    const demo = await start(t);
    const client = open(t, { url: demo.url(), token: token(1, 2), ...options });
    await live(client);
    const { code } = await state(client, 'refused');
    assert.equal(code, way === 'websocket' ? 4401 : 401);
  });
}

test('a token that was refused once is asked for once more', async t => {
  const demo = await start(t);
  const tokens = ['no token', 'neither'];
  let asked = 0;
  const client = open(t, { url: demo.url(), token: () => tokens[asked++], transports: ['sse'] });
  const { code, reason } = await state(client, 'refused');
  assert.equal(code, 401);
  assert.ok(reason);
  assert.equal(asked, 2);
});

test('refusals under the status 200 are understood', async t => {
  const demo = await start(t, { REALTIME__AUTH__ERRORSTATUS: '200' });
  const client = open(t, { url: demo.url(), token: 'no token', transports: ['sse'] });
  assert.equal((await state(client, 'refused')).code, 401);
});

test('an invalid token over WebSocket first is told by the event stream', async t => {
  const demo = await start(t);
  const client = open(t, { url: demo.url(), token: 'no token' });
  // A space cannot stand in a subprotocol, so it goes into the query.
  assert.equal((await state(client, 'refused')).code, 401);
  assert.ok(client.states.some(({ transport }) => transport === 'sse'));
});

test('without room the client waits as long as it is told', async t => {
  const demo = await start(t, { REALTIME__LIMITS__MAXCONNECTIONS: '1', REALTIME__SSE__RETRY: '8s' });
  await live(open(t, { url: demo.url(), token: token(1) }));
  const late = open(t, { url: demo.url(), token: token(2), transports: ['sse'], backoff: { base: 1, cap: 1 } });
  const { until: time, reason } = await state(late, 'waiting');
  assert.equal(reason, 'no room');
  assert.ok(time - Date.now() > 3000, 'half of sse.retry at least');
});

test('a login service that fails is asked again', async t => {
  const demo = await start(t);
  let asked = 0;
  const login = async () => {
    if (asked++ < 2) throw new Error('the login service is away');
    return token(1);
  };
  const client = open(t, { url: demo.url(), token: login });
  await live(client);
  assert.equal(asked, 3);
  assert.match(client.states.find(({ state }) => state === 'waiting').reason, /the login service is away/);
});

test('a client that closes is closed', async t => {
  const demo = await start(t);
  const client = open(t, { url: demo.url(), token: token(1) });
  await live(client);
  client.close();
  assert.equal(client.status.state, 'closed');
  for (;;) if ((await demo.sessions(1)).length === 0) break;
});
