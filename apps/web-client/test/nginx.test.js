import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { live, open, until } from './client.js';
import { Demo, token } from './demo.js';
import { Nginx } from './nginx.js';

const UPGRADE = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;';
let demo, nginx;
let user = 100;
before(async () => {
  // Silent for longer than an idle proxy lets it be.
  demo = await Demo.start({ REALTIME__SSE__RETRY: '100ms', REALTIME__HEARTBEAT__INTERVAL: '20s' });
  nginx = await Nginx.start(demo.port, {
    // With nginx's defaults otherwise: it buffers answers.
    '/default/': UPGRADE,
    '/no-websockets/': 'proxy_set_header Connection "";',
    '/idle/': `${UPGRADE} proxy_read_timeout 1s;`,
    // It compresses besides, and buffers against the server's word.
    '/compressed/': `${UPGRADE} proxy_ignore_headers X-Accel-Buffering;
      gzip on; gzip_proxied any; gzip_min_length 0; gzip_types text/event-stream;`,
  });
});
after(async () => {
  await nginx?.stop();
  await demo.stop();
});

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
};

for (const [way, options] of Object.entries(WAYS)) {
  for (const place of ['/default', '/compressed']) {
    test(`${way}: each message comes before the next one, where nginx buffers (${place})`, async t => {
      const me = user++;
      const client = open(t, { url: nginx.url(place), token: token(me), ...options });
      await live(client);
      for (let i = 0; i < 30; i++) {
        await demo.publish(me, `${i}`);
        await until(client, `message ${i}`, () => client.seen.length === i + 1);
      }
      assert.equal(client.states.filter(({ state }) => state === 'live').length, 1);
    });
  }

  test(`${way}: connections that an idle proxy cuts lose nothing`, async t => {
    const me = user++;
    const client = open(t, { url: nginx.url('/idle'), token: token(me), ...options });
    const sent = [];
    for (let round = 0; round < 3; round++) {
      await live(client);
      sent.push(await demo.publish(me, 'live'));
      await until(client, 'the cut', () => client.status.state === 'waiting');
      sent.push(await demo.publish(me, 'cut off'));
    }
    await until(client, 'all', () => client.seen.length >= sent.length);
    assert.deepEqual(client.seen.map(({ id }) => id), sent);
    assert.deepEqual(client.gaps, []);
  });

  test(`${way}: a restart of nginx in the middle of a burst loses nothing`, async t => {
    const me = user++;
    const client = open(t, { url: nginx.url('/default'), token: token(me), ...options });
    await live(client);
    const sent = [];
    const burst = async count => {
      while (count--) sent.push(await demo.publish(me, 'x'.repeat(5000)));
    };
    for (let round = 0; round < 3; round++) {
      await Promise.all([burst(100), nginx.end()]);
      await burst(10);
      await Promise.all([burst(100), nginx.begin()]);
      await live(client);
    }
    await until(client, 'all', () => client.seen.length >= sent.length);
    assert.deepEqual(client.seen.map(({ id }) => id), sent);
    assert.deepEqual(client.gaps, []);
  });
}

test('where nginx lets no WebSocket through, a stream brings everything', async t => {
  const me = user++;
  const client = open(t, { url: nginx.url('/no-websockets'), token: token(me), upgradeAfter: 50 });
  await live(client, 'sse');
  const sent = [];
  for (let i = 0; i < 100; i++) sent.push(await demo.publish(me, `${i}`));
  await until(client, 'all', () => client.seen.length >= sent.length);
  assert.deepEqual(client.seen.map(({ id }) => id), sent);
  assert.equal(client.status.transport, 'sse');
  assert.deepEqual(client.gaps, []);
});
