import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stream } from '../dist/text-stream.js';
import { until } from './client.js';
import { fake } from './fakes.js';

let offset = 0;
async function open(t, options) {
  const { client, opened } = fake(t);
  const text = stream(client, 'answer-7', options);
  t.after(() => text.close());
  const socket = await opened();
  socket.hello('7.0');
  const say = (at, piece, more = {}) => {
    const data = JSON.stringify({ stream: 'answer-7', run: 1, at, text: piece, ...more });
    socket.say({ type: 'message', id: more.prefix ? null : `7.${++offset}`, event: 'realtime.stream', data });
  };
  return { client, socket, text, say };
}

const drain = async text => {
  const parts = [];
  for await (const part of text) parts.push(part);
  return parts;
};

test('the parts of a stream come one by one, and end with its end', async t => {
  const { text, say } = await open(t);
  const iteration = text[Symbol.asyncIterator]();
  say(0, 'Hel');
  assert.deepEqual(await iteration.next(), { value: { text: 'Hel' }, done: false });
  const waiting = iteration.next();
  say(3, 'lo');
  assert.deepEqual(await waiting, { value: { text: 'lo' }, done: false });
  say(5, undefined, { state: 'done' });
  assert.deepEqual(await iteration.next(), { value: { text: '', state: 'done' }, done: false });
  assert.equal((await iteration.next()).done, true);
  assert.deepEqual([text.text, text.state], ['Hello', 'done']);
});

test('a late iteration begins with the text so far, and one that is behind gets it in one part', async t => {
  const { text, say } = await open(t);
  say(0, 'Hel');
  const iteration = text[Symbol.asyncIterator]();
  say(3, 'lo');
  assert.equal((await iteration.next()).value.text, 'Hello');
  say(5, '!', { state: 'stopped' });
  assert.deepEqual(await drain(text), [{ text: 'Hello!', state: 'stopped' }]);
  assert.deepEqual(await drain({ [Symbol.asyncIterator]: () => iteration }), [{ text: '!', state: 'stopped' }]);
});

test('what a prefix and appends both bring is taken once, at any cut', async t => {
  const whole = 'aé你😀 b\u0301漢字 end';
  const letters = [...whole];
  const bytes = text => Buffer.byteLength(text);
  for (let cut = 0; cut <= letters.length; cut++) {
    const { text, say } = await open(t);
    const before = letters.slice(0, cut).join('');
    // The appends may come in front of the prefix, too.
    let at = 0;
    const appends = [];
    for (let i = 0; i < letters.length; i += 3) {
      const piece = letters.slice(i, i + 3).join('');
      appends.push([at, piece]);
      at += bytes(piece);
    }
    const early = appends.filter(([at, piece]) => at + bytes(piece) > bytes(before) - 4);
    if (cut % 2) for (const append of early) say(...append);
    say(0, before, { prefix: true });
    if (cut % 2 === 0) for (const append of early) say(...append);
    say(bytes(whole), undefined, { state: 'done' });
    assert.equal(text.text, whole, `cut ${cut}`);
    assert.equal(text.state, 'done');
  }
});

test('a prefix may bring the end', async t => {
  const { text, say } = await open(t);
  say(0, 'Hello', { prefix: true, state: 'failed' });
  assert.deepEqual(await drain(text), [{ text: 'Hello', state: 'failed' }]);
});

test('text after the end, and of an earlier run, is ignored', async t => {
  const { text, say } = await open(t);
  say(0, 'two', { run: 2 });
  say(3, 'one', { run: 1 });
  say(3, undefined, { run: 2, state: 'interrupted' });
  say(3, ' more', { run: 2 });
  assert.deepEqual([text.text, text.state], ['two', 'interrupted']);
});

test('a new run starts the text afresh, and an iteration is told', async t => {
  const { text, say } = await open(t);
  say(0, 'Hello');
  const iteration = text[Symbol.asyncIterator]();
  assert.deepEqual((await iteration.next()).value, { text: 'Hello' });
  say(5, ' wor');
  say(0, 'Good', { run: 2 });
  say(4, ' day', { run: 2, state: 'done' });
  assert.deepEqual((await iteration.next()).value, { text: 'Good day', reset: true, state: 'done' });
  assert.equal(text.text, 'Good day');
});

test('a run of which only a later piece is known shows nothing of the earlier run', async t => {
  const { text, say } = await open(t);
  say(0, 'old');
  const iteration = text[Symbol.asyncIterator]();
  await iteration.next();
  say(2, 'ew', { run: 2 });
  assert.equal(text.text, '');
  assert.deepEqual((await iteration.next()).value, { text: '', reset: true });
  say(0, 'ne', { run: 2, prefix: true });
  assert.equal(text.text, 'neew');
});

test('other streams, and iterations that are broken off, do not disturb', async t => {
  const { text, say } = await open(t);
  say(0, 'other', { stream: 'answer-8' });
  assert.equal(text.text, '');
  say(0, 'a');
  for await (const part of text) {
    assert.equal(part.text, 'a');
    break;
  }
  const waiting = text[Symbol.asyncIterator]();
  await waiting.next();
  const last = waiting.next();
  text.close();
  assert.equal((await last).done, true);
  say(1, 'b');
  assert.equal(text.text, 'a');
});

test('the topic of a stream is subscribed to until its close', async t => {
  const { socket, text } = await open(t, { topic: 'room:1' });
  const turn = () => new Promise(setImmediate);
  await turn();
  assert.equal(new URL(socket.url).searchParams.get('topics'), 'room:1');
  text.close();
  await turn();
  assert.deepEqual(socket.sent, [{ type: 'unsubscribe', topics: ['room:1'] }]);
});

test('a text with a hole is asked for anew', async t => {
  const { client, opened } = fake(t);
  const text = stream(client, 'answer-7');
  t.after(() => text.close());
  const first = await opened();
  const frame = (id, data) => ({ type: 'message', id, event: 'realtime.stream', data: JSON.stringify({ stream: 'answer-7', run: 1, ...data }) });
  first.hello('7.0');
  first.say(frame('7.1', { at: 0, text: 'Hel' }));
  first.say({ type: 'gap', reason: 'slow', cursor: '7.3', spread: 0 });
  first.say(frame('7.4', { at: 6, text: 'wor' }));
  const second = await opened();
  assert.equal(new URL(second.url).searchParams.get('fresh'), '*');
  second.hello('7.4', { recovered: true });
  second.say(frame(null, { at: 0, text: 'Hello wor', prefix: true }), frame('7.5', { at: 9, text: 'ld', state: 'done' }));
  assert.deepEqual([text.text, text.state], ['Hello world', 'done']);
  assert.equal(first.closed, true);
});

test('each hole of a stream is asked for, also the seventh', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { client, opened } = fake(t);
  const turn = () => new Promise(end => setImmediate(end));
  await turn();
  let socket = await opened();
  socket.hello('7.0');
  const text = stream(client, 'answer-7');
  t.after(() => text.close());
  for (let i = 1; i <= 7; i++) {
    const at = 2 * i - 1;
    const frame = (at, text) => JSON.stringify({ stream: 'answer-7', run: 1, at, text });
    socket.message(`7.${i}`, frame(at, 'b'), 'realtime.stream');
    let next;
    opened().then(socket => (next = socket));
    for (let second = 0; second < 2 && !next; second++) {
      t.mock.timers.tick(1000);
      await turn();
    }
    assert.ok(next, `hole ${i}`);
    socket = next;
    socket.hello(`7.${i}`, { recovered: true });
    socket.say({ type: 'message', id: null, event: 'realtime.stream', data: frame(0, 'ab'.repeat(i - 1) + 'a') });
    assert.equal(text.text, 'ab'.repeat(i));
  }
});

test('a stream that has begun before is asked for at once', async t => {
  const { client, opened } = fake(t);
  (await opened()).hello('7.0');
  const text = stream(client, 'answer-7', { begun: true });
  t.after(() => text.close());
  const second = await opened();
  assert.equal(new URL(second.url).searchParams.get('fresh'), '*');
});

for (const state of ['waiting', 'connecting']) {
  test(`a stream that has begun before is asked for when the connection is back, also if that is ${state}`, async t => {
    const { client, opened } = fake(t);
    const first = await opened();
    first.hello('7.0');
    first.message('7.1');
    first.end(1006);
    if (state === 'connecting') await until(client, 'connecting', () => client.status.state === state);
    assert.equal(client.status.state, state);
    const begun = state === 'connecting' ? await opened() : undefined;
    const text = stream(client, 'answer-7', { begun: true });
    t.after(() => text.close());
    // It was opened without that, so that another one has to follow.
    begun?.hello('7.1', { recovered: true });
    begun?.message('7.2');
    const asked = await opened();
    assert.equal(new URL(asked.url).searchParams.get('fresh'), '*');
  });
}

test('streams of one name in several topics are told apart by their topics', async t => {
  const { client, opened } = fake(t);
  const rooms = ['room:1', 'room:2'].map(topic => stream(client, 'status', { topic }));
  t.after(() => rooms.forEach(room => room.close()));
  const socket = await opened();
  socket.hello('7.0');
  const say = (id, topic, text) => {
    const data = JSON.stringify({ stream: 'status', run: 1, at: 0, text });
    socket.say({ type: 'message', id, event: 'realtime.stream', topic, data });
  };
  say('7.1', 'room:2', 'two');
  say('7.2', 'room:1', 'one');
  assert.deepEqual(rooms.map(({ text }) => text), ['one', 'two']);
});

test('the runs of a stream may have any numbers that rise', async t => {
  const { text, say } = await open(t);
  say(0, 'one', { run: 1_795_488_734_770 });
  say(0, 'earlier', { run: 3 });
  say(0, 'two', { run: 1_795_488_739_123 });
  say(3, undefined, { run: 1_795_488_739_123, state: 'done' });
  assert.deepEqual([text.text, text.state], ['two', 'done']);
});

const turn = () => new Promise(end => setImmediate(end));

/** A stream of which the page has `Hel`, at a connection whose timers the test moves on. */
async function begun(t, options) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const made = await open(t, options);
  const ended = drain(made.text);
  made.say(0, 'Hel');
  const gap = () => made.socket.say({ type: 'gap', reason: 'history', cursor: `7.${++offset}`, spread: 2000 });
  const wait = async seconds => {
    for (let i = 0; i < seconds; i++) {
      t.mock.timers.tick(1000);
      await turn();
    }
  };
  return { ...made, ended, gap, wait };
}

test('a text that does not follow a gap is asked for three times, and is lost then', async t => {
  const { client, text, ended, gap, wait } = await begun(t);
  let asked = 0;
  client.renew = () => asked++;
  gap();
  await wait(2);
  assert.equal(asked, 0, 'not before the spread is over');
  await wait(1);
  assert.equal(asked, 1);
  await wait(13);
  assert.deepEqual([asked, text.state], [3, undefined]);
  await wait(1);
  assert.deepEqual([text.text, text.state], ['Hel', 'lost']);
  assert.deepEqual((await ended).at(-1), { text: '', state: 'lost' });
});

test('a text with a hole that nothing fills is lost', async t => {
  const { client, text, ended, say, wait } = await begun(t);
  client.renew = () => {};
  for (let at = 10; at < 30; at++) {
    await wait(1);
    say(at, 'x');
  }
  assert.deepEqual([text.text, text.state], ['Hel', 'lost']);
  assert.equal((await ended).at(-1).state, 'lost');
  say(0, 'two', { run: 2 });
  assert.deepEqual([text.text, text.state], ['two', undefined], 'a new run begins afresh');
});

test('a silent text goes on after a gap that its prefix follows', async t => {
  const { client, text, gap, say, wait } = await begun(t);
  client.renew = () => assert.fail('it is complete');
  for (let i = 0; i < 5; i++) {
    gap();
    say(0, 'Hel', { prefix: true });
    await wait(60);
  }
  say(3, 'lo', { state: 'done' });
  assert.deepEqual([text.text, text.state], ['Hello', 'done']);
});

test('a text is not lost while the connection is away', async t => {
  const { client, socket, text, gap, wait } = await begun(t);
  gap();
  socket.end(1006);
  await wait(120);
  assert.equal(text.state, undefined);
  assert.notEqual(client.status.state, 'live');
});

test('a text that was said to have begun, and of which there is nothing, is lost', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { client, text } = await open(t, { begun: true });
  client.renew = () => {};
  for (let second = 0; second < 16; second++) t.mock.timers.tick(1000);
  assert.equal(text.state, 'lost');
  assert.deepEqual(await drain(text), [{ text: '', state: 'lost' }]);
});

for (const [what, end] of Object.entries({
  'that the page closes': ({ client }) => client.close(),
  'that the server refuses': ({ socket }) => socket.end(4403),
})) {
  test(`a text is lost with a connection ${what}`, async t => {
    const made = await open(t);
    made.say(0, 'Hel');
    const parts = drain(made.text);
    end(made);
    assert.deepEqual(await parts, [{ text: 'Hel' }, { text: '', state: 'lost' }]);
    assert.deepEqual(await drain(stream(made.client, 'answer-8')), [{ text: '', state: 'lost' }]);
  });
}

test('a text in a topic that is refused is lost', async t => {
  const { client, opened } = fake(t);
  const [mine, other] = ['room:1', 'room:2'].map(topic => stream(client, 'answer-7', { topic }));
  t.after(() => other.close());
  const socket = await opened();
  socket.hello('7.0', { subscribed: ['room:2'], refused: [{ topic: 'room:1', reason: 'not allowed' }] });
  assert.deepEqual([mine.state, other.state], ['lost', undefined]);
});

test('a handler that is set twice is called until each of them has ended', async t => {
  const { text, say } = await open(t);
  const told = [];
  const handler = part => told.push(part.text);
  const ends = [text.on(handler), text.on(handler)];
  say(0, 'a');
  ends[0]();
  ends[0]();
  say(1, 'b');
  ends[1]();
  say(2, 'c');
  assert.deepEqual(told, ['a', 'a', 'b']);
});
