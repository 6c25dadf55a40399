import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import vm from 'node:vm';
import { until, live, texts } from './client.js';
import { API_KEY, Demo, token } from './demo.js';
import { FakeUni } from './fake-uni.js';
import { code, openMini } from './mini.js';
import { fromBase64, Utf8Decoder } from '../build/utf8.js';

let demo;
let user = 100;
before(async () => (demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' })));
after(() => demo.stop());

/** Connects to the demo, in a mini-program. */
const open = (t, options) => openMini(t, { url: demo.url(), ...options });
const got = (client, count) => until(client, `${count} messages`, () => client.seen.length >= count);

for (const transport of ['websocket', 'sse']) {
  test(`${transport}: messages arrive where nothing of a browser is there, the token in a header`, async t => {
    const me = user++;
    const { client, app } = open(t, { transports: [transport], token: token(me) });
    await live(client, transport);
    const sent = Array.from({ length: 50 }, (_, i) => `你好 ${i} 😀 ${'é'.repeat(i)}\nsecond`);
    for (const text of sent) await demo.publish(me, text);
    await got(client, sent.length);
    assert.deepEqual(texts(client), sent);
    const [[, { url, header, timeout }]] = app.calls;
    // Otherwise the platform ends it after a minute.
    if (transport === 'sse') assert.ok(timeout > 3_600_000);
    assert.match(header.Authorization, /^Bearer ey/);
    assert.doesNotMatch(url, /Authorization/);
    assert.equal(client.cursor, client.seen.at(-1).id);
    assert.equal([...app.stored.values()][0], client.cursor);
    client.close();
    assert.equal(app.listening, 0);
  });

  test(`${transport}: the background ends it, and the way back redials at once`, async t => {
    const me = user++;
    // A pause that is never over.
    const { client, app, clock } = open(t, {
      transports: [transport],
      token: token(me),
      backoff: { base: 3_600_000, cap: 3_600_000 },
      dial: { random: () => 1 },
    });
    await live(client);
    await demo.publish(me, 'before');
    await got(client, 1);
    for (const round of [1, 2, 3]) {
      app.hide();
      await demo.publish(me, `meanwhile ${round}`);
      clock.ahead += 5000;
      app.show();
      await got(client, 1 + round);
    }
    assert.deepEqual(texts(client), ['before', 'meanwhile 1', 'meanwhile 2', 'meanwhile 3']);
    assert.deepEqual(client.gaps, []);
    assert.ok(app.sockets.length <= 1 && app.requests.size <= 1);
  });

  test(`${transport}: an attempt in the background is in nobody's way`, async t => {
    const me = user++;
    const { client, app, clock } = open(t, { transports: [transport], token: token(me), backoff: { base: 20, cap: 20 } });
    await live(client);
    app.hide();
    clock.ahead += 60_000;
    await until(client, 'failures', () => client.states.filter(({ state }) => state === 'waiting').length >= 3);
    await demo.publish(me, 'meanwhile');
    app.show();
    await got(client, 1);
    assert.deepEqual(client.gaps, []);
  });

  test(`${transport}: a login that is refused is known as such`, async t => {
    const { client } = open(t, { transports: [transport], token: 'nonsense' });
    await until(client, 'the end', () => client.status.state !== 'idle' && client.status.state !== 'connecting');
    if (transport === 'sse') assert.deepEqual([client.status.state, client.status.code], ['refused', 401]);
    else assert.equal(client.status.state, 'waiting', 'a refused handshake looks like a broken network');
  });
}

for (const crossed of [false, true]) {
  for (const silent of [false, true]) {
    const faults = `${crossed ? 'events of old sockets at the newest' : 'own events'}, ${silent ? 'no' : 'an'} onClose after onError`;
    test(`a network that goes and comes loses nothing and makes no loop: ${faults}`, async t => {
      const me = user++;
      const { client, app } = open(t, {
        token: token(me),
        transports: ['websocket'],
        backoff: { base: 20, cap: 50 },
        // Five times as fast.
        dial: { now: () => Date.now() * 5, setTimeout: (run, ms) => setTimeout(run, ms / 5) },
      });
      Object.assign(app, { crossed, silent });
      await live(client);
      const sent = [];
      for (let round = 0; round < 8; round++) {
        sent.push(await demo.publish(me, `${round} online`));
        app.disconnect();
        for (let i = 0; i < 5; i++) sent.push(await demo.publish(me, `${round}.${i}`));
        const before = client.states.length;
        // In each second round it gives its socket up, which cannot be closed; the server goes on sending to it.
        await until(client, 'the loss', () => round % 2 === 0 || client.states.length > before);
        await app.reconnect();
        for (let i = 0; i < 5; i++) sent.push(await demo.publish(me, `${round}.${i} again`));
        await until(client, 'all', () => client.seen.length >= sent.length);
      }
      assert.deepEqual(client.seen.map(({ id }) => id), sent);
      assert.deepEqual(client.gaps, []);
      const settled = async () =>
        (await demo.sessions(me)).length === 1 && app.sockets.length === 1 && client.status.state === 'live';
      for (const end = Date.now() + 10_000; !(await settled()); ) assert.ok(Date.now() < end, 'old sockets stay');
      const sessions = client.states.length;
      for (let i = 0; i < 20; i++) await demo.publish(me, 'calm');
      await got(client, sent.length + 20);
      assert.equal(client.states.length, sessions, 'it redials for no reason');
    });
  }
}

test('a socket that cannot be closed while it opens is closed then', async t => {
  const { client, app } = open(t, { token: token(user++), transports: ['websocket'] });
  while (!app.sockets.length) await null;
  const opened = new Promise(resolve => app.sockets[0].onOpen(resolve));
  client.close();
  await opened;
  for (const end = Date.now() + 5000; app.sockets.length; await new Promise(setImmediate)) {
    assert.ok(Date.now() < end, 'it stays open');
  }
});

test('no more than five sockets are asked for, and a full platform is tried again', async t => {
  const me = user++;
  const { client, app } = open(t, { token: token(me), transports: ['websocket'] });
  await live(client);
  const [{ socket }] = app.sockets;
  // Of other parts of the application.
  app.sockets.push({}, {}, {}, {}, {});
  socket.terminate();
  await until(client, 'a refusal', () => client.states.some(({ reason }) => /exceed/.test(reason)));
  app.sockets.pop();
  await live(client);
  await demo.publish(me, 'after all');
  await got(client, 1);
});

test('where requests bring no chunks the stream is given up at once, aloud', async t => {
  const { client, app } = open(t, { token: token(user++), transports: ['sse'] });
  app.chunked = false;
  await until(client, 'the end', () => client.status.state === 'waiting');
  assert.equal(client.status.reason, 'no streams here');
  for (;;) {
    await new Promise(setImmediate);
    if (!app.requests.size) break;
  }
});

test('the origin of a mini-game on iOS is refused until it is listed', async t => {
  const origin = 'weapp://wechat-game-runtime';
  const options = { token: token(user++), transports: ['websocket'] };
  const refused = open(t, options);
  refused.app.origin = origin;
  await until(refused.client, 'the refusal', () => refused.client.status.state === 'waiting');
  const lenient = await Demo.start({ REALTIME__WEBSOCKET__ALLOWEDORIGINS: origin });
  t.after(() => lenient.stop());
  const { client, app } = open(t, { ...options, url: lenient.url() });
  app.origin = origin;
  await live(client);
});

test('in a browser everything is left to it', () => {
  const context = vm.createContext({ uni: new FakeUni(), document: {} });
  assert.equal(vm.runInContext(`${code}; Object.keys(realtime.miniApp()).length`, context), 0);
});

test('a restarted application goes on behind the stored cursor', async t => {
  const me = user++;
  const { client, app, connect, miniApp } = open(t, { token: token(me) });
  await live(client);
  await demo.publish(me, 'one');
  await got(client, 1);
  client.close();
  await demo.publish(me, 'two');
  const again = connect({ url: demo.url(), clientId: 'web', token: token(me), ...miniApp(app) });
  t.after(() => again.close());
  const seen = [];
  await new Promise(resolve => again.on('*', ({ data }) => resolve(seen.push(data))));
  assert.deepEqual(seen, ['two']);
});

test('state works there, and so do requests', async t => {
  const me = user++;
  const { client, app, dial, state, snapshot } = open(t, { token: token(me), transports: ['sse'] });
  const options = { method: 'GET', headers: { 'X-API-Key': API_KEY } };
  const load = async () => {
    const response = await dial.fetch(demo.url(`/api/online/${me}`), options);
    assert.equal(response.headers.get('content-type'), 'application/json');
    return { ...(await snapshot(response)), cursor: client.cursor };
  };
  const online = state(client, load, value => ({ ...value, changed: true }));
  t.after(() => online.close());
  await until(client, 'the state', () => client.status.state === 'live');
  await new Promise(resolve => online.on(({ value }) => value && resolve()));
  assert.deepEqual([online.value.sessions.length, online.stale, online.error], [1, false, undefined]);
  await demo.publish(me, 'news');
  await until(client, 'the change', () => online.value.changed);
  await assert.rejects(dial.fetch('http://127.0.0.1:1/', options), /ECONNREFUSED/);
  app.foreground = false;
  await assert.rejects(dial.fetch(demo.url('/'), options), /interrupted/);
  app.foreground = true;
});

test('the bytes of a stream are counted without an encoder', t => {
  const { stream } = open(t, { token: 'none', url: 'http://127.0.0.1:1' });
  let take;
  const on = (event, handler) => {
    if (event === 'realtime.stream') take = handler;
    return () => {};
  };
  const connection = { on, status: { state: 'live' } };
  const answer = stream(connection, 'a');
  const frame = fields => take({ data: JSON.stringify({ stream: 'a', run: 1, ...fields }) });
  const text = 'aé你😀';
  frame({ at: 0, text });
  frame({ at: 10, text: '!' });
  frame({ at: 3, text: '你😀!?', prefix: true });
  frame({ at: 12, state: 'done' });
  assert.deepEqual([answer.text, answer.state], ['aé你😀!?', 'done']);
});

test('UTF-8 is decoded as TextDecoder does, however it is cut', () => {
  const text = '\u0000aé߿ࠀ你好￿𐀀😀\u{10ffff}\r\n';
  const bytes = new TextEncoder().encode(`\ufeff${text}\ufeff`);
  for (let a = 0; a <= bytes.length; a++) {
    for (let b = a; b <= bytes.length; b++) {
      const decoder = new Utf8Decoder();
      const parts = [bytes.subarray(0, a), bytes.subarray(a, b), bytes.subarray(b)];
      assert.equal(parts.map(part => decoder.decode(part)).join(''), `${text}\ufeff`);
    }
  }
});

test('what is no UTF-8 is replaced, and what follows is whole', () => {
  for (const bad of [[0x80], [0xff], [0xc3], [0xe4, 0xbd], [0xf0, 0x9f, 0x98], [0xf4, 0x90, 0x80, 0x80]]) {
    const text = new Utf8Decoder().decode(Uint8Array.from([...bad, ...Buffer.from('你好')]));
    assert.match(text, /^\ufffd+你好$/);
  }
});

test('base64', () => {
  for (let length = 0; length < 40; length++) {
    const bytes = Buffer.from(Array.from({ length }, () => Math.random() * 256));
    assert.equal(fromBase64(bytes.toString('base64')), bytes.toString('latin1'));
  }
});
