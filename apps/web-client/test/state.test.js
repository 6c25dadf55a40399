import assert from 'node:assert/strict';
import { test } from 'node:test';
import { snapshot, state } from '../dist/state.js';
import { live } from './client.js';
import { fake } from './fakes.js';

const turn = () => new Promise(resolve => setTimeout(resolve, 2));
const until = async condition => {
  for (let i = 0; !condition(); i++) {
    assert.ok(i < 2000, String(condition));
    await turn();
  }
};

/** A state that is the list of what it has seen, with loads that the test answers. */
function list(t, options) {
  const { client, opened } = fake(t, options?.connect);
  const loads = [];
  const load = signal =>
    new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
      loads.push({ signal, fail: reject, answer: (cursor, value = [`until ${cursor}`]) => resolve({ cursor, value }) });
    });
  const made = state(client, load, (value, { data }) => [...value, data], { backoff: { base: 1, cap: 1 }, ...options });
  t.after(() => made.close());
  return { client, opened, loads, made };
}

test('the messages behind a snapshot are applied, and those that it contains are not', async t => {
  const { opened, loads, made } = list(t);
  const socket = await opened();
  await turn();
  assert.equal(loads.length, 0, 'a load before the connection has a place would not fit');
  socket.hello('7.0');
  await until(() => loads.length);
  for (const id of ['7.1', '7.2', '7.3']) socket.message(id);
  loads[0].answer('7.2');
  await until(() => !made.stale);
  assert.deepEqual(made.value, ['until 7.2', '7.3']);
  socket.message('7.4');
  assert.deepEqual(made.value, ['until 7.2', '7.3', '7.4']);
});

test('with a cursor of its own a load need not wait for the connection', async t => {
  const { opened, loads, made } = list(t, { connect: { cursor: '7.5' } });
  const socket = await opened();
  await until(() => loads.length);
  loads[0].answer('7.6');
  await until(() => !made.stale);
  socket.hello('7.5', { recovered: true });
  for (const id of ['7.6', '7.7']) socket.message(id);
  // The snapshot has 7.6, which comes after it.
  assert.deepEqual(made.value, ['until 7.6', '7.7']);
});

test('a load that is older than the connection is repeated', async t => {
  const { opened, loads, made } = list(t);
  (await opened()).hello('7.5');
  await until(() => loads.length);
  loads[0].answer('7.3');
  await until(() => loads.length === 2);
  assert.match(String(made.error), /older than the connection/);
  loads[1].answer('7.5');
  await until(() => !made.stale);
  assert.deepEqual([made.value, made.error], [['until 7.5'], undefined]);
});

test('a session whose place comes after its first messages has loads that fit', async t => {
  const { opened, loads, made } = list(t);
  const socket = await opened();
  socket.hello(null);
  socket.say({ type: 'message', id: null, event: 'message', data: 'retained' });
  await until(() => loads.length);
  loads[0].answer('7.3');
  await until(() => loads.length === 2);
  socket.say({ type: 'ping', cursor: '7.4' });
  loads[1].answer('7.3');
  await until(() => loads.length === 3);
  loads[2].answer('7.4');
  await until(() => !made.stale);
  assert.deepEqual(made.value, ['until 7.4']);
});

test('a gap has the state loaded again, after its spread', async t => {
  const { opened, loads, made } = list(t);
  const socket = await opened();
  socket.hello('7.0');
  await until(() => loads.length);
  loads[0].answer('7.0');
  await until(() => !made.stale);
  const before = Date.now();
  socket.say({ type: 'gap', reason: 'slow', cursor: '7.9', spread: 60 });
  assert.equal(made.stale, true);
  socket.message('7.10');
  await until(() => loads.length === 2);
  assert.ok(Date.now() - before >= 59);
  loads[1].answer('7.10');
  await until(() => !made.stale);
  socket.message('7.11');
  assert.deepEqual(made.value, ['until 7.10', '7.11']);
});

test('a gap during a load begins it anew', async t => {
  const { opened, loads, made } = list(t);
  const socket = await opened();
  socket.hello('7.0');
  await until(() => loads.length);
  socket.message('7.1');
  socket.say({ type: 'gap', reason: 'bus', cursor: '8.0', spread: 0 });
  assert.equal(loads[0].signal.aborted, true);
  await until(() => loads.length === 2);
  socket.message('8.1');
  loads[1].answer('8.0');
  await until(() => !made.stale);
  assert.deepEqual(made.value, ['until 8.0', '8.1']);
});

test('a load of another history than the connection is repeated until the gap has come', async t => {
  const { opened, loads, made } = list(t);
  const socket = await opened();
  socket.hello('7.9');
  await until(() => loads.length);
  loads[0].answer('8.2');
  await until(() => loads.length === 2);
  socket.say({ type: 'gap', reason: 'bus', cursor: '8.1', spread: 0 });
  await until(() => loads.length === 3);
  loads[2].answer('8.2');
  await until(() => !made.stale);
  assert.deepEqual(made.value, ['until 8.2']);
});

test('a load that fails is repeated, and what it was is told', async t => {
  const { opened, loads, made } = list(t);
  const told = [];
  made.on(({ stale, error }) => told.push([stale, error?.message]));
  (await opened()).hello('7.0');
  await until(() => loads.length);
  loads[0].fail(new Error('the database is away'));
  await until(() => loads.length === 2);
  loads[1].answer('7.0');
  await until(() => !made.stale);
  assert.deepEqual(told, [[true, 'the database is away'], [false, undefined]]);
});

test('a message that cannot be applied has the state loaded again', async t => {
  const { client, opened } = fake(t);
  let loads = 0;
  const made = state(
    client,
    async () => ({ value: loads++, cursor: client.cursor }),
    value => {
      if (value === 0) throw new Error('no such order');
      return value + 10;
    },
    { backoff: { base: 1, cap: 1 } },
  );
  t.after(() => made.close());
  const socket = await opened();
  socket.hello('7.0');
  await until(() => !made.stale);
  socket.message('7.1');
  assert.equal(made.error.message, 'no such order');
  await until(() => !made.stale);
  socket.message('7.2');
  assert.equal(made.value, 11);
});

test('a state of a topic is loaded once the topic is granted', async t => {
  const { opened, loads, made } = list(t, { topic: 'order:7' });
  const socket = await opened();
  socket.hello('7.0', { subscribed: [], refused: [{ topic: 'order:7', reason: 'not yet' }] });
  await turn();
  assert.equal(loads.length, 0);
  socket.say({ type: 'subscribed', topics: ['order:7'], refused: [], cursor: '7.4' });
  await until(() => loads.length);
  // Behind the connection's beginning, but in front of the topic's.
  loads[0].answer('7.3');
  await until(() => loads.length === 2);
  socket.message('7.5');
  socket.say({ type: 'message', id: '7.6', event: 'message', topic: 'order:7', data: '7.6' });
  loads[1].answer('7.4');
  await until(() => !made.stale);
  assert.deepEqual(made.value, ['until 7.4', '7.6']);
});

test('several states of one connection do not mind each other', async t => {
  const { client, opened } = fake(t);
  const loads = [];
  const states = ['a', 'b'].map(event =>
    state(client, () => new Promise(resolve => loads.push(resolve)), (value, { id }) => [...value, id], { events: [event] }));
  t.after(() => states.forEach(made => made.close()));
  const socket = await opened();
  socket.hello('7.0');
  await until(() => loads.length === 2);
  socket.message('7.1', '', 'a');
  socket.message('7.2', '', 'b');
  loads[0]({ value: [], cursor: '7.0' });
  loads[1]({ value: [], cursor: '7.2' });
  await until(() => states.every(({ stale }) => !stale));
  socket.message('7.3', '', 'b');
  assert.deepEqual(states.map(({ value }) => value), [['7.1'], ['7.3']]);
});

test('on a server without positions everything is applied that comes during the load and later', async t => {
  const { opened, loads, made } = list(t);
  const socket = await opened();
  socket.hello(null);
  await until(() => loads.length);
  socket.message(null, 'a');
  loads[0].answer(null, []);
  await until(() => !made.stale);
  socket.message(null, 'b');
  assert.deepEqual(made.value, ['a', 'b']);
});

test('a load without a cursor on a server with positions is refused aloud', async t => {
  const { opened, loads, made } = list(t);
  (await opened()).hello('7.0');
  await until(() => loads.length);
  loads[0].answer(null);
  await until(() => made.error);
  assert.match(String(made.error), /has no cursor/);
});

test('a closed state takes nothing any more, and its load is broken off', async t => {
  const { client, opened, loads, made } = list(t);
  const socket = await opened();
  socket.hello('7.0');
  await live(client);
  await until(() => loads.length);
  made.close();
  assert.equal(loads[0].signal.aborted, true);
  socket.say({ type: 'gap', reason: 'slow', cursor: '7.9', spread: 0 });
  await turn();
  assert.equal(loads.length, 1);
});

test('the snapshot of a response has its cursor, and an answer that is an error is none', async () => {
  const response = new Response('[1]', { headers: { 'X-Realtime-Cursor': '7.3' } });
  assert.deepEqual(await snapshot(response), { value: [1], cursor: '7.3' });
  assert.deepEqual(await snapshot(new Response('x'), answer => answer.text()), { value: 'x', cursor: null });
  await assert.rejects(snapshot(new Response('', { status: 503 })), /HTTP 503/);
});

test('any order of loads, messages and gaps ends in what was published', async t => {
  for (let round = 0; round < 60; round++) {
    const { client, opened } = fake(t);
    let published = 0;
    // A load sees what was published when it began, or a little less on a node that lags.
    const load = async () => {
      const seen = Math.max(0, published - (Math.random() < 0.3 ? 2 : 0));
      await new Promise(resolve => setTimeout(resolve, Math.random() * 4));
      if (Math.random() < 0.2) throw new Error('away');
      return { value: Array.from({ length: seen }, (_, i) => i + 1), cursor: `7.${seen}` };
    };
    const made = state(client, load, (value, { data }) => [...value, Number(data)], { backoff: { base: 1, cap: 1 } });
    const socket = await opened();
    socket.hello('7.0');
    for (let step = 0; step < 40; step++) {
      const chance = Math.random();
      if (chance < 0.7) socket.message(`7.${++published}`, String(published));
      else if (chance < 0.8) socket.say({ type: 'gap', reason: 'slow', cursor: `7.${(published += 3)}`, spread: 0 });
      else await turn();
    }
    await until(() => !made.stale && made.value.length === published);
    assert.deepEqual(made.value, Array.from({ length: published }, (_, i) => i + 1));
    made.close();
    client.close();
  }
});

test('a handler that is set twice is called until each of them has ended', async t => {
  const { opened, loads, made } = list(t);
  let told = 0;
  const handler = () => told++;
  const ends = [made.on(handler), made.on(handler)];
  const socket = await opened();
  socket.hello('7.0');
  await until(() => loads.length);
  loads[0].answer('7.0');
  await until(() => !made.stale);
  assert.equal(told, 2);
  ends[0]();
  ends[0]();
  socket.message('7.1');
  assert.equal(told, 3);
  ends[1]();
  socket.message('7.2');
  assert.equal(told, 3);
});

test('a state whose topic is refused says so', async t => {
  const { opened, loads, made } = list(t, { topic: 'orders' });
  const told = [];
  made.on(({ stale, error }) => told.push([stale, error?.message]));
  const refused = [{ topic: 'orders', reason: 'not allowed' }];
  const why = 'realtime: the topic orders is refused, not allowed';
  (await opened()).hello('7.0', { subscribed: ['other'], refused });
  assert.deepEqual(told, [[true, why]]);
  assert.equal(loads.length, 0);
});

test('a state whose topic is taken away is stale until the topic is granted again, and complete then', async t => {
  const { opened, loads, made } = list(t, { topic: 'orders' });
  const granted = { subscribed: ['orders'], refused: [] };
  let socket = await opened();
  socket.hello('7.0', granted);
  await until(() => loads.length);
  loads[0].answer('7.0');
  await until(() => !made.stale);
  const told = [];
  made.on(({ stale, error }) => told.push([stale, error?.message]));
  socket.end(1006);
  socket = await opened();
  socket.hello('7.0', { recovered: true, subscribed: [], refused: [{ topic: 'orders', reason: 'not allowed' }] });
  assert.deepEqual(told, [[true, 'realtime: the topic orders is refused, not allowed']]);
  socket.end(1006);
  socket = await opened();
  socket.hello('7.5', { recovered: true, ...granted });
  await until(() => loads.length === 2);
  loads[1].answer('7.5');
  await until(() => !made.stale);
  assert.deepEqual([made.value, made.error], [['until 7.5'], undefined]);
});

for (const [what, end, why] of [
  ['that the server refuses', socket => socket.end(4403, 'forbidden'), 'realtime: the connection is refused, forbidden'],
  ['that the page closes', (_, client) => client.close(), 'realtime: the connection is closed, closed by the client'],
]) {
  test(`a state of a connection ${what} says so`, async t => {
    const { client, opened, loads, made } = list(t);
    const told = [];
    made.on(({ stale, error }) => told.push([stale, error?.message]));
    const socket = await opened();
    socket.hello('7.0');
    await until(() => loads.length);
    end(socket, client);
    assert.deepEqual(told, [[true, why]]);
    assert.equal(loads[0].signal.aborted, true);
    const late = state(client, () => assert.fail('nothing would follow the load'), value => value);
    t.after(() => late.close());
    await until(() => late.error);
    assert.equal(late.error.message, why);
  });
}
