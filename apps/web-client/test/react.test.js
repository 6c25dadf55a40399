import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Window } from 'happy-dom';
import WebSocket from 'ws';
import { Demo, token } from './demo.js';
import { fake, sockets } from './fakes.js';

// React looks at them when it is loaded.
const window = new Window();
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });
globalThis.navigator ??= window.navigator;
const { StrictMode, act, createElement: h } = await import('react');
const { createRoot } = await import('react-dom/client');
const { renderToString } = await import('react-dom/server');
const { RealtimeProvider, useRealtime, useTopic } = await import('../dist/react.js');

let demo;
let user = 100;
before(async () => (demo = await Demo.start()));
after(async () => {
  await demo.stop();
  await window.happyDOM.close();
});

/** Mounts an element; returns what renders it anew, or nothing. */
async function mount(t, element) {
  const root = createRoot(document.createElement('div'));
  const render = element => act(async () => root.render(element));
  await render(element);
  t.after(() => render(null));
  return render;
}

/** Waits until a condition holds. */
async function until(condition, ms = 10_000) {
  for (const end = Date.now() + ms; !condition(); await act(async () => new Promise(setImmediate))) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition}`);
  }
}

const wake = () => () => {};
function options(more = {}) {
  const { Socket, opened } = sockets();
  return { opened, source: { url: 'https://example.com/r', token: 'x', storage: null, dial: { WebSocket: Socket, wake }, ...more } };
}

test('a mounted component has the connection, its status and messages, and closes it', async t => {
  const me = user++;
  const source = { url: demo.url(), clientId: 'web', token: token(me), storage: null, dial: { WebSocket, wake } };
  let realtime;
  const seen = [];
  const Page = () => {
    realtime = useRealtime(source);
    return realtime.status.state;
  };
  const render = await mount(t, h(Page));
  const { connection } = realtime;
  connection.on('*', ({ data }) => seen.push(data));
  await until(() => realtime.status.state === 'live');
  await demo.publish(me, 'hello');
  await until(() => seen.length);
  assert.deepEqual(seen, ['hello']);
  await render(null);
  assert.equal(connection.status.state, 'closed');
  while ((await demo.sessions(me)).length);
});

test('components below share it, and subscribe while they are mounted', async t => {
  const { source, opened } = options();
  const seen = [];
  let a;
  const Below = ({ topic }) => {
    a = useTopic(topic, ({ data }) => seen.push(data));
    return null;
  };
  const page = topic => h(RealtimeProvider, { source }, topic && h(Below, { topic }));
  const render = await mount(t, page('a'));
  const socket = await opened();
  assert.equal(new URL(socket.url).searchParams.get('topics'), 'a');
  await act(async () => socket.hello('7.0', { subscribed: ['a'], refused: [] }));
  assert.equal(a.granted, true);
  await act(async () => {
    socket.say({ type: 'message', id: '7.1', event: 'message', topic: 'a', data: 'one' });
    socket.say({ type: 'message', id: '7.2', event: 'message', topic: 'b', data: 'of another' });
  });
  assert.deepEqual([seen, a.last.data], [['one'], 'one']);
  await render(page('b'));
  assert.deepEqual(socket.sent, [
    { type: 'unsubscribe', topics: ['a'] },
    { type: 'subscribe', topics: ['b'] },
  ]);
  assert.deepEqual(a, {});
  const refused = [{ topic: 'b', reason: 'not allowed' }];
  await act(async () => socket.say({ type: 'subscribed', topics: [], refused, cursor: '7.2' }));
  assert.deepEqual([a.granted, a.refused], [false, 'not allowed']);
  await render(page());
  assert.deepEqual(socket.sent.slice(2), [{ type: 'unsubscribe', topics: ['b'] }]);
  socket.say({ type: 'message', id: '7.3', event: 'message', topic: 'b', data: 'too late' });
  assert.deepEqual(seen, ['one']);
});

test('the newest handler is called', async t => {
  const { client, opened } = fake(t, { dial: { wake } });
  const seen = [];
  const Page = ({ name }) => {
    const realtime = useRealtime(client);
    useTopic('a', ({ data }) => seen.push(`${name} ${data}`), { realtime, event: 'order' });
    return null;
  };
  const render = await mount(t, h(Page, { name: 'first' }));
  const socket = await opened();
  await act(async () => socket.hello('7.0', { subscribed: ['a'], refused: [] }));
  await render(h(Page, { name: 'second' }));
  await act(async () => {
    socket.say({ type: 'message', id: '7.1', event: 'message', topic: 'a', data: 'one' });
    socket.say({ type: 'message', id: '7.2', event: 'order', topic: 'a', data: 'two' });
  });
  assert.deepEqual(seen, ['second two']);
  await render(null);
  assert.equal(client.status.state, 'live', 'a connection that is given stays open');
});

test('in strict mode one connection is left', async t => {
  const { source, opened } = options();
  let realtime;
  const Page = () => {
    realtime = useRealtime(source);
    return null;
  };
  await mount(t, h(StrictMode, null, h(Page)));
  const socket = await opened();
  await act(async () => socket.hello());
  assert.equal(realtime.status.state, 'live');
  await act(async () => socket.end(1006));
  assert.equal(realtime.status.state, 'waiting');
});

test('a server renders without a connection', async () => {
  let dialed = 0;
  class Socket {
    constructor() {
      dialed++;
    }
  }
  const source = { url: 'https://example.com/r', token: 'x', storage: null, dial: { WebSocket: Socket } };
  const Below = () => h('b', null, `${useRealtime().status.state} ${useTopic('a').last}`);
  assert.equal(renderToString(h(RealtimeProvider, { source }, h(Below))), '<b>idle undefined</b>');
  await new Promise(setImmediate);
  assert.equal(dialed, 0);
});

test('without a provider it says so', () => {
  const Page = () => useTopic('a').last ?? null;
  assert.throws(() => renderToString(h(Page)), /no RealtimeProvider/);
});
