import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventSource } from '../dist/eventsource.js';
import { Storage, live, open, texts, until } from './client.js';
import { fake, streams } from './fakes.js';

const turn = () => new Promise(setImmediate);

test('topics are asked for at the connect, and those that are refused are told', async t => {
  const { client, opened } = fake(t, { topics: ['order:7', 'a b,c'] });
  const told = [];
  client.on('topics', value => told.push(value));
  const socket = await opened();
  assert.equal(new URL(socket.url).searchParams.get('topics'), 'order:7,a b,c');
  const refused = [{ topic: 'a b,c', reason: 'not allowed' }];
  socket.hello('7.0', { subscribed: ['order:7'], refused });
  assert.deepEqual(told, [{ subscribed: ['order:7'], refused }]);
  assert.deepEqual(client.topics, ['order:7']);
  socket.end(1006);
  assert.equal(new URL((await opened()).url).searchParams.get('topics'), 'order:7,a b,c');
});

test('a live WebSocket changes its topics by one frame a turn', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello();
  const end = client.subscribe('a');
  client.subscribe('b', 'c');
  await turn();
  assert.deepEqual(socket.sent, [{ type: 'subscribe', topics: ['a', 'b', 'c'] }]);
  socket.say({ type: 'subscribed', topics: ['a', 'b', 'c'], refused: [], cursor: '7.4' });
  assert.deepEqual(client.topics, ['a', 'b', 'c']);
  assert.equal(client.cursor, '7.4');
  end();
  end();
  client.subscribe('d');
  await turn();
  assert.deepEqual(socket.sent.slice(1), [
    { type: 'unsubscribe', topics: ['a'] },
    { type: 'subscribe', topics: ['d'] },
  ]);
  assert.deepEqual(client.topics, ['b', 'c']);
});

test('a topic stays until the last who wants it ends', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello();
  const ends = [client.subscribe('a'), client.on('*', () => {}, 'a')];
  await turn();
  ends[0]();
  await turn();
  ends[1]();
  client.subscribe('b')();
  await turn();
  assert.deepEqual(socket.sent, [
    { type: 'subscribe', topics: ['a'] },
    { type: 'unsubscribe', topics: ['a'] },
  ]);
});

test('a handler of a topic gets the messages of that topic only', async t => {
  const { client, opened } = fake(t);
  const got = [];
  client.on('changed', ({ data }) => got.push(['changed', data]), 'order:7');
  client.on('*', ({ data }) => got.push(['*', data]), 'order:8');
  const socket = await opened();
  assert.equal(new URL(socket.url).searchParams.get('topics'), 'order:7,order:8');
  socket.hello('7.0', { subscribed: ['order:7', 'order:8'], refused: [] });
  const say = (id, topic) => socket.say({ type: 'message', id, event: 'changed', topic, data: id });
  say('7.1', 'order:7');
  say('7.2', 'order:8');
  say('7.3', undefined);
  assert.deepEqual(got, [['changed', '7.1'], ['*', '7.2']]);
  assert.deepEqual(client.seen.map(({ topic }) => topic), ['order:7', 'order:8', undefined]);
});

async function streaming(t, options) {
  const { fetch, opened, posts } = streams();
  const client = open(t, {
    url: 'https://example.com',
    token: 'x',
    transports: ['sse'],
    backoff: { base: 1, cap: 1 },
    dial: { fetch },
    ...options,
  });
  const first = await opened();
  first.say(':connected\nretry:1\nid:7.5\n\nevent:realtime.hello\ndata:{"session":"s","pingInterval":20000}\n\n');
  await live(client);
  return { client, first, opened, posts };
}

test('an event stream changes its topics by a second stream that takes its place', async t => {
  const { client, first, opened } = await streaming(t);
  client.subscribe('a');
  const second = await opened();
  assert.match(second.url, /cursor=7.5&topics=a&fresh=a&hello=1$/);
  client.subscribe('b');
  first.say('id:7.6\ndata:one\n\n');
  await until(client, 'one', () => client.seen.length === 1);
  second.say(':connected\nretry:1\nid:7.5\n\nevent:realtime.hello\ndata:{"session":"t","subscribed":["a"],"refused":[]}\n\n');
  second.say('id:7.6\ndata:one\n\ntopic:a\nid:7.7\ndata:two\n\n');
  // A topic that came meanwhile has its turn.
  const third = await opened();
  await until(client, 'two', () => client.seen.length === 2);
  assert.match(third.url, /topics=a%2Cb&fresh=a%2Cb&/);
  assert.equal(first.signal.aborted, true);
  third.say(':connected\nid:7.7\n\nevent:realtime.hello\ndata:{"session":"u","subscribed":["a","b"]}\n\n');
  await until(client, 'b', () => client.topics.length === 2);
  assert.deepEqual(texts(client), ['one', 'two']);
  assert.deepEqual(client.seen.map(({ topic }) => topic), [undefined, 'a']);
  assert.ok(client.states.every(({ state }) => state !== 'waiting'));
});

test('a new topic has what came while its stream opened, also where the first stream went further', async t => {
  const storage = new Storage();
  const { client, first, opened } = await streaming(t, { storage });
  const loop = client[Symbol.asyncIterator]();
  client.subscribe('a');
  const second = await opened();
  // The login is in `b`.
  first.say('topic:b\nid:7.6\ndata:known\n\nid:7.8\ndata:mine\n\n');
  await until(client, 'mine', () => client.seen.length === 2);
  second.say(':connected\nretry:1\nid:7.5\n\nevent:realtime.hello\ndata:{"session":"t","subscribed":["a"]}\n\n');
  second.say(':heartbeat\nid:7.5\n\ntopic:b\nid:7.6\ndata:known\n\ntopic:a\nid:7.7\ndata:retained\n\n');
  await until(client, 'the message of the topic', () => client.seen.length === 3);
  assert.equal(client.cursor, '7.8');
  second.say('id:7.8\ndata:mine\n\ntopic:a\nid:7.7\ndata:retained\n\nid:7.9\ndata:new\n\n');
  await until(client, 'the rest', () => client.seen.at(-1).data === 'new');
  assert.deepEqual(texts(client), ['known', 'mine', 'retained', 'new']);
  assert.equal(client.duplicates, 3);
  // A reload in the middle of the loop has to bring it again.
  for (let i = 0; i < 3; i++) await loop.next();
  assert.deepEqual([...storage.items.values()], ['7.5']);
});

test('what a stream has yet to bring of a new topic comes by the one that takes its place', async t => {
  const { client, first, opened } = await streaming(t);
  client.subscribe('a');
  const second = await opened();
  first.say('id:7.8\ndata:mine\n\n');
  await until(client, 'mine', () => client.seen.length === 1);
  client.subscribe('b');
  second.say(':connected\nretry:1\nid:7.5\n\n');
  const third = await opened();
  assert.match(third.url, /cursor=7.5&topics=a%2Cb&/);
  third.say(':connected\nretry:1\nid:7.5\n\ntopic:a\nid:7.7\ndata:of a\n\nid:7.8\ndata:mine\n\nid:7.9\ndata:new\n\n');
  await until(client, 'the newest message', () => client.seen.at(-1).data === 'new');
  assert.deepEqual(texts(client), ['mine', 'of a', 'new']);
});

test('a page that comes back with a cursor asks for what newcomers get, until it has had it', async t => {
  const { client, opened } = fake(t, { cursor: '7.3', topics: ['a'] });
  const fresh = socket => new URL(socket.url).searchParams.get('fresh');
  const first = await opened();
  assert.equal(fresh(first), '*,a');
  first.hello('7.3', { subscribed: ['a'], refused: [] });
  first.say({ type: 'message', id: null, event: 'message', topic: 'a', data: 'retained' });
  // It breaks before the rest of it has come.
  first.end(1006);
  const second = await opened();
  assert.equal(fresh(second), '*,a');
  second.hello('7.3', { subscribed: ['a'], refused: [] });
  second.say({ type: 'ping', cursor: '7.4' });
  client.subscribe('b');
  second.end(1006);
  const third = await opened();
  assert.equal(fresh(third), 'b');
});

test('a topic that is left and entered again is new again, over an event stream', async t => {
  const { client, first, opened } = await streaming(t);
  const hello = topics => `event:realtime.hello\ndata:{"session":"t","subscribed":${JSON.stringify(topics)}}\n\n`;
  first.say(':heartbeat\nid:7.5\n\n');
  const leave = client.subscribe('a');
  const second = await opened();
  second.say(`:connected\nid:7.5\n\n${hello(['a'])}:heartbeat\nid:7.6\n\n`);
  await until(client, 'a', () => client.topics.length === 1);
  await turn();
  assert.equal(client.cursor, '7.6');
  leave();
  const third = await opened();
  assert.match(third.url, /cursor=7.6&hello=1$/);
  assert.deepEqual(client.topics, []);
  // What the session in the topic still says of it is of the time before.
  second.say(':heartbeat\nid:7.7\n\n');
  await turn();
  third.say(`:connected\nid:7.6\n\n${hello([])}:heartbeat\nid:7.8\n\n`);
  await until(client, 'the third stream', () => second.signal.aborted);
  client.subscribe('a');
  assert.match((await opened()).url, /topics=a&fresh=a&/);
});

for (const left of ['before the connection breaks', 'while it is away']) {
  test(`a topic that is left ${left} and entered again is new again, over a WebSocket`, async t => {
    let awake;
    const dial = { wake: call => ((awake = call), () => {}), random: () => 1 };
    const { client, opened } = fake(t, { backoff: { base: 60_000, cap: 60_000 }, dial });
    const leave = client.subscribe('a');
    const first = await opened();
    first.hello('7.0', { subscribed: ['a'], refused: [] });
    first.say({ type: 'ping', cursor: '7.1' });
    if (left === 'while it is away') first.end(1006);
    leave();
    await turn();
    first.end(1006);
    client.subscribe('a');
    await turn();
    awake();
    const second = await opened();
    assert.equal(new URL(second.url).searchParams.get('fresh'), 'a');
  });
}

test('a topic that is left and entered again while a WebSocket opens is new again', async t => {
  const { client, opened } = fake(t);
  const leave = client.subscribe('a');
  const first = await opened();
  first.hello('7.0', { subscribed: ['a'], refused: [] });
  first.say({ type: 'ping', cursor: '7.1' });
  first.end(1006);
  const second = await opened();
  assert.equal(new URL(second.url).searchParams.get('fresh'), null);
  leave();
  await turn();
  client.subscribe('a');
  await turn();
  second.hello('7.1', { subscribed: ['a'], refused: [] });
  const third = await opened();
  assert.equal(new URL(third.url).searchParams.get('fresh'), 'a');
  // It brings that; a topic that is refused or new is nothing that it lacks.
  client.subscribe('b');
  await turn();
  third.hello('7.1', { subscribed: ['a'], refused: [] });
  await turn();
  assert.deepEqual(third.sent, [{ type: 'subscribe', topics: ['b'] }]);
  third.say({ type: 'subscribed', topics: [], refused: [{ topic: 'b', reason: 'not allowed' }], cursor: '7.2' });
  client.subscribe('c');
  await turn();
  assert.deepEqual(third.sent.slice(1), [{ type: 'subscribe', topics: ['c'] }]);
  assert.equal(third.closed, undefined);
});

test('a topic that is left and entered again while a second stream opens is new again', async t => {
  const { client, first, opened } = await streaming(t);
  const hello = topics => `event:realtime.hello\ndata:{"session":"t","subscribed":${JSON.stringify(topics)}}\n\n`;
  const leave = client.subscribe('a');
  const second = await opened();
  second.say(`:connected\nid:7.5\n\n${hello(['a'])}:heartbeat\nid:7.6\n\n`);
  await until(client, 'the second stream', () => client.topics.length === 1);
  await turn();
  client.subscribe('b');
  const third = await opened();
  assert.match(third.url, /topics=a%2Cb&fresh=b&/);
  leave();
  await turn();
  client.subscribe('a');
  await turn();
  third.say(`:connected\nid:7.6\n\n${hello(['b', 'a'])}`);
  assert.match((await opened()).url, /fresh=b%2Ca&/);
});

test('what newcomers get is asked for again behind a session that was opened without, and only behind one', async t => {
  const { client, first, opened } = await streaming(t);
  first.say(':heartbeat\nid:7.5\n\n');
  await turn();
  client.subscribe('a');
  const second = await opened();
  assert.match(second.url, /fresh=a&/);
  client.renew();
  second.say(':connected\nid:7.5\n\n');
  const third = await opened();
  assert.match(third.url, /fresh=\*%2Ca&/);
  client.renew();
  third.say(':connected\nid:7.5\n\nid:7.6\ndata:one\n\n');
  await until(client, 'one', () => client.seen.length === 1);
  assert.equal(client.status.state, 'live');
  assert.equal(third.signal.aborted, false);
});

test('a topic that is left before the server grants it is not among the topics', async t => {
  const { client, opened } = fake(t);
  const socket = await opened();
  socket.hello();
  const leave = client.subscribe('a');
  await turn();
  leave();
  await turn();
  socket.say({ type: 'subscribed', topics: ['a'], refused: [], cursor: '7.4' }, { type: 'unsubscribed', topics: ['a'] });
  assert.deepEqual(client.topics, []);
});

test('a second stream that has the place of the first one taken goes on alone', async t => {
  const { client, first, opened } = await streaming(t);
  client.subscribe('a');
  const second = await opened();
  // As with `limits.onExceeded: endOldest`: before the second one is answered.
  first.say('id:7.6\ndata:last\n\n:disconnected\nretry:86400000\n\n');
  first.end();
  await until(client, 'the end of the first one', () => client.status.state !== 'live');
  assert.equal(second.signal.aborted, false);
  second.say(':connected\nretry:1\nid:7.5\n\nid:7.6\ndata:last\n\ntopic:a\nid:7.7\ndata:two\n\n');
  await until(client, 'two', () => client.seen.length === 2);
  assert.deepEqual(texts(client), ['last', 'two']);
  assert.deepEqual(client.states.map(({ state }) => state), ['connecting', 'live', 'connecting', 'live']);
  assert.equal(client.topics.length, 0);
});

test('a second stream in a history that has ended begins anew, also when it is alone by then', async t => {
  const { client, first, opened } = await streaming(t);
  client.renew();
  const second = await opened();
  first.say('event:gap\nid:8.0\ndata:{"reason":"bus","spread":5}\n\nid:8.1\ndata:one\n\n');
  first.end();
  await until(client, 'the end of the first one', () => client.status.state !== 'live');
  second.say(':connected\nretry:1\nid:7.5\n\n');
  const third = await opened();
  assert.match(third.url, /cursor=8.1&fresh=/);
  assert.equal(second.signal.aborted, true);
});

test('a second socket goes on where the first one is ended for it, and a kick ends both', async t => {
  const { client, opened } = fake(t);
  const first = await opened();
  first.hello('7.0');
  client.renew();
  const second = await opened();
  first.say({ type: 'bye', reason: 'too-many-sessions', retry: null });
  first.end(4410, 'too-many-sessions');
  second.hello('7.0');
  assert.equal(client.status.state, 'live');
  client.renew();
  const third = await opened();
  second.say({ type: 'bye', reason: 'kicked', retry: null });
  second.end(4409, 'kicked');
  assert.equal(third.closed, true);
  assert.deepEqual([client.status.state, client.status.code], ['refused', 4409]);
});

test('an EventSource comes back when the server says, and not before', async t => {
  const sources = [];
  class EventSource {
    readyState = 0;
    constructor(url) {
      this.url = url;
      sources.push(this);
    }
    addEventListener() {}
    close() {}
  }
  const pending = new Map();
  let number = 0;
  let awake;
  const dial = {
    EventSource,
    setTimeout: (run, ms) => (pending.set(++number, { run, ms }), number),
    clearTimeout: timer => pending.delete(timer),
    wake: call => ((awake = call), () => {}),
  };
  const client = open(t, { url: 'https://example.com', token: 'x', transports: ['sse'], sse: eventSource, dial });
  while (!sources.length) await turn();
  const [source] = sources;
  assert.deepEqual([...pending.values()].map(({ ms }) => ms), [10_000]);
  source.onopen();
  assert.equal(client.status.state, 'live');
  // `retry:86400000`, which it does not show.
  source.onerror();
  assert.equal(client.status.state, 'waiting');
  assert.equal(pending.size, 0);
  awake();
  await turn();
  assert.equal(sources.length, 1);
  source.onopen();
  assert.equal(client.status.state, 'live');
  assert.equal(sources.length, 1);
});

test('a second stream that cannot be opened leaves it to a redial', async t => {
  const { client, first, opened } = await streaming(t);
  client.subscribe('a');
  const second = await opened();
  second.end();
  await until(client, 'waiting', () => client.states.some(({ state }) => state === 'waiting'));
  assert.equal(first.signal.aborted, true);
  const third = await opened();
  assert.match(third.url, /cursor=7.5&topics=a/);
  third.say(':connected\nid:7.5\n\n');
  await live(client);
});

test('a gap tells since when: by the server, or else by what came last', async t => {
  let now = 1000;
  const { client, opened } = fake(t, { dial: { now: () => now } });
  const socket = await opened();
  socket.hello('7.0');
  socket.say({ type: 'gap', reason: 'slow', cursor: '7.2', spread: 3, since: 900 });
  now = 2000;
  socket.message('7.3');
  now = 3000;
  socket.end(1006);
  now = 4000;
  const second = await opened();
  second.hello('7.3');
  second.say({ type: 'gap', reason: 'history', cursor: '7.9' });
  assert.deepEqual(client.gaps, [
    { reason: 'slow', cursor: '7.2', spread: 3, since: 900 },
    { reason: 'history', cursor: '7.9', spread: 0, since: 2000 },
  ]);
});

test('a gap at the very beginning has no time', async t => {
  const { client, opened } = fake(t, { cursor: '6.1' });
  const socket = await opened();
  socket.hello('6.1');
  socket.say({ type: 'gap', reason: 'bus', cursor: '7.9' });
  assert.equal(client.gaps[0].since, null);
});

test('a token that ends soon is replaced in the live WebSocket', async t => {
  let asked = 0;
  const { client, opened } = fake(t, { token: () => `token-${++asked}` });
  const socket = await opened();
  socket.hello();
  socket.say({ type: 'expiring', in: 30_000 });
  await turn();
  assert.deepEqual(socket.sent, [{ type: 'refresh', token: 'token-2' }]);
  socket.say({ type: 'refreshed', expiresIn: 3_600_000 });
  assert.equal(client.status.state, 'live');
  socket.end(1006);
  assert.equal((await opened()).protocols[1], 'bearer.token-2');
  assert.equal(asked, 2);
});

test('another token is asked for when the one that a session has taken is revoked', async t => {
  let asked = 0;
  const { client, opened } = fake(t, { token: () => `token-${++asked}` });
  const first = await opened();
  first.hello();
  first.say({ type: 'expiring', in: 30_000 });
  await turn();
  first.say({ type: 'refreshed', expiresIn: 3_600_000 }, { type: 'bye', reason: 'revoked', retry: null });
  first.end(4401);
  const second = await opened();
  assert.equal(second.protocols[1], 'bearer.token-3');
  second.hello();
  await live(client);
});

test('a refresh that is refused is followed by a second session with the new token', async t => {
  let asked = 0;
  const { client, opened } = fake(t, { token: () => `token-${++asked}` });
  const first = await opened();
  first.hello();
  first.say({ type: 'expiring', in: 30_000 });
  await turn();
  first.say({ type: 'refresh-refused', reason: 'of another user' });
  const second = await opened();
  assert.equal(second.protocols[1], 'bearer.token-2');
  assert.equal(first.closed, undefined);
  second.hello();
  assert.equal(first.closed, true);
  assert.ok(client.states.every(({ state }) => state !== 'waiting'));
});

test('a token that came for a refresh is tried when the session ends before it is taken', async t => {
  let asked = 0;
  const { opened } = fake(t, { token: () => (asked++ ? 'two' : 'one') });
  const first = await opened();
  first.hello();
  first.say({ type: 'expiring', in: 30_000 });
  await turn();
  first.end(4401);
  const second = await opened();
  assert.equal(second.protocols[1], 'bearer.two');
  second.hello();
  assert.equal(asked, 2);
});

test('a token that is the same, or that cannot be had, is left to the session\'s end', async t => {
  const fail = () => {
    throw new Error('the login service is away');
  };
  const answers = [() => 'one', () => 'one', async () => fail(), fail, () => 'two'];
  const { client, opened } = fake(t, { token: () => answers.shift()() });
  const socket = await opened();
  socket.hello();
  for (let i = 0; i < 3; i++) {
    socket.say({ type: 'expiring', in: 30_000 });
    await turn();
  }
  assert.deepEqual(socket.sent, []);
  assert.equal(client.status.state, 'live');
  socket.end(4401);
  assert.equal((await opened()).protocols[1], 'bearer.two');
});

for (const headers of [undefined, { 'X-Of-The-Test': 'yes' }]) {
  test(`an event stream is refreshed by a request, ${headers ? 'with headers' : 'without headers'}`, async t => {
    let asked = 0;
    const { client, first, opened, posts } = await streaming(t, { token: () => `token-${++asked}`, headers });
    const expire = async () => {
      first.say('event:realtime.expiring\ndata:{"in":30000}\n\n');
      while (!posts.length) await turn();
      return posts.shift();
    };
    const post = await expire();
    const query = headers ? '' : 'Authorization=token-2&';
    assert.equal(post.url, `https://example.com/sse/refresh?${query}clientid=web&session=s`);
    assert.deepEqual(post.headers, headers && { Authorization: 'Bearer token-2', ...headers });
    post.answer({ code: 200, data: { expiresIn: 3_600_000 } });
    // The status is in the body, too.
    (await expire()).answer({ code: 401 });
    const second = await opened();
    second.say(':connected\nid:7.5\n\n');
    await until(client, 'the second stream', () => first.signal.aborted);
    assert.ok(client.states.every(({ state }) => state !== 'waiting'));
  });
}

test('a token that does not come in time is asked for again', async t => {
  let asked = 0;
  let late;
  const dial = { setTimeout: (run, ms) => (ms === 30_000 ? ((late = run), 0) : setTimeout(run, ms)) };
  const { client, opened } = fake(t, { token: () => (asked++ ? 'two' : new Promise(() => {})), dial });
  while (!late) await turn();
  late();
  await until(client, 'waiting', () => client.states.some(({ reason }) => /no token: no answer/.test(reason)));
  assert.equal((await opened()).protocols[1], 'bearer.two');
});

test('a handler that is set twice is called until each of them has ended', async t => {
  const { client, opened } = fake(t);
  const told = [];
  const handler = ({ data }) => told.push(data);
  const ends = [client.on('message', handler), client.on('message', handler)];
  const socket = await opened();
  socket.hello('7.0');
  socket.message('7.1');
  ends[0]();
  ends[0]();
  socket.message('7.2');
  ends[1]();
  socket.message('7.3');
  assert.deepEqual(told, ['7.1', '7.1', '7.2']);
});
