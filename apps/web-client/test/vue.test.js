import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { renderToString } from '@vue/server-renderer';
import { createRenderer, createSSRApp, effectScope, h, nextTick, shallowRef } from 'vue';
import WebSocket from 'ws';
import { useRealtime, useTopic } from '../dist/vue.js';
import { Demo, token } from './demo.js';
import { fake, sockets } from './fakes.js';

let demo;
let user = 100;
before(async () => (demo = await Demo.start()));
after(() => demo.stop());

/** Nodes of nowhere. */
const node = text => ({ text, children: [], parent: null });
const remove = child => {
  if (child.parent) child.parent.children = child.parent.children.filter(other => other !== child);
};
const { createApp } = createRenderer({
  createElement: () => node(''),
  createText: node,
  createComment: () => node(''),
  setText: (target, text) => (target.text = text),
  setElementText: (target, text) => (target.text = text),
  patchProp: () => {},
  insert(child, parent) {
    remove(child);
    child.parent = parent;
    parent.children.push(child);
  },
  remove,
  parentNode: ({ parent }) => parent,
  nextSibling: () => null,
});

/** Mounts a component whose `setup` is given. */
function mount(t, setup, below) {
  const app = createApp({ setup: () => (setup(), () => below && h(below)) });
  let mounted = true;
  const unmount = () => mounted && ((mounted = false), app.unmount());
  t.after(unmount);
  app.mount(node(''));
  return unmount;
}

/** Waits until a condition holds. */
async function until(condition, ms = 10_000) {
  for (const end = Date.now() + ms; !condition(); await new Promise(setImmediate)) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition}`);
  }
}

function options(t, more = {}) {
  const { Socket, opened } = sockets();
  return { opened, options: { url: 'https://example.com/r', token: 'x', storage: null, dial: { WebSocket: Socket }, ...more } };
}

test('a mounted component has the connection, its status and messages, and closes it', async t => {
  const me = user++;
  let realtime;
  const seen = [];
  const unmount = mount(t, () => {
    realtime = useRealtime({ url: demo.url(), clientId: 'web', token: token(me), storage: null, dial: { WebSocket } });
    assert.equal(realtime.connection.value, undefined);
    assert.deepEqual(realtime.status.value, { state: 'idle' });
  });
  realtime.connection.value.on('*', ({ data }) => seen.push(data));
  await until(() => realtime.status.value.state === 'live');
  await demo.publish(me, 'hello');
  await until(() => seen.length);
  assert.deepEqual(seen, ['hello']);
  unmount();
  assert.equal(realtime.status.value.state, 'closed');
  while ((await demo.sessions(me)).length);
});

test('components below share it, and subscribe while they are mounted', async t => {
  const { options: source, opened } = options(t);
  const topic = shallowRef('a');
  const shown = shallowRef(true);
  const seen = [];
  let a;
  const Below = {
    setup() {
      a = useTopic(topic, ({ data }) => seen.push(data));
      return () => null;
    },
  };
  mount(t, () => useRealtime(source), { setup: () => () => (shown.value ? h(Below) : null) });
  const socket = await opened();
  assert.equal(new URL(socket.url).searchParams.get('topics'), 'a');
  socket.hello('7.0', { subscribed: ['a'], refused: [] });
  assert.equal(a.granted.value, true);
  socket.say({ type: 'message', id: '7.1', event: 'message', topic: 'a', data: 'one' });
  socket.say({ type: 'message', id: '7.2', event: 'message', topic: 'b', data: 'of another' });
  assert.deepEqual([seen, a.last.value.data], [['one'], 'one']);
  topic.value = 'b';
  await nextTick();
  assert.deepEqual(socket.sent, [
    { type: 'unsubscribe', topics: ['a'] },
    { type: 'subscribe', topics: ['b'] },
  ]);
  assert.deepEqual([a.last.value, a.granted.value], [undefined, undefined]);
  socket.say({ type: 'subscribed', topics: [], refused: [{ topic: 'b', reason: 'not allowed' }], cursor: '7.2' });
  assert.deepEqual([a.granted.value, a.refused.value], [false, 'not allowed']);
  shown.value = false;
  await nextTick();
  await nextTick();
  assert.deepEqual(socket.sent.slice(2), [{ type: 'unsubscribe', topics: ['b'] }]);
  socket.say({ type: 'message', id: '7.3', event: 'message', topic: 'b', data: 'too late' });
  assert.deepEqual(seen, ['one']);
});

test('a server renders without a connection', async () => {
  let dialed = 0;
  class Socket {
    constructor() {
      dialed++;
    }
  }
  const source = { url: 'https://example.com/r', token: 'x', storage: null, dial: { WebSocket: Socket } };
  const Below = {
    setup() {
      const { last } = useTopic('a');
      return () => h('b', String(last.value));
    },
  };
  const app = createSSRApp({
    setup() {
      const { status } = useRealtime(source);
      return () => h('p', [status.value.state, h(Below)]);
    },
  });
  assert.equal(await renderToString(app), '<p>idle<b>undefined</b></p>');
  await new Promise(setImmediate);
  assert.equal(dialed, 0);
});

test('a connection that is given stays open', async t => {
  const { client, opened } = fake(t);
  let realtime;
  const unmount = mount(t, () => (realtime = useRealtime(client)));
  (await opened()).hello();
  assert.equal(realtime.status.value.state, 'live');
  assert.equal(realtime.connection.value, client);
  unmount();
  assert.equal(client.status.state, 'live');
});

test('outside of components it connects at once, and ends with the scope', async t => {
  const { options: source, opened } = options(t);
  const scope = effectScope();
  const [realtime, topic] = scope.run(() => {
    const realtime = useRealtime(source);
    return [realtime, useTopic('a', undefined, { realtime, event: 'order' })];
  });
  const socket = await opened();
  socket.hello('7.0', { subscribed: ['a'], refused: [] });
  socket.say({ type: 'message', id: '7.1', event: 'message', topic: 'a', data: 'one' });
  socket.say({ type: 'message', id: '7.2', event: 'order', topic: 'a', data: 'two' });
  assert.equal(topic.last.value.data, 'two');
  scope.stop();
  assert.equal(realtime.status.value.state, 'closed');
});

test('without a connection above it says so', t => {
  t.mock.method(console, 'warn', () => {});
  assert.throws(() => mount(t, () => useTopic('a')), /no component above/);
});
