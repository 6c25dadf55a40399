import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { live, open, texts, until } from './client.js';
import { Demo, token } from './demo.js';

let demo;
before(async () => (demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms', REALTIME__AUTH__EXPIRINGNOTICE: '2s' })));
after(() => demo.stop());

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
  'fetch stream with headers': { transports: ['sse'], headers: {} },
};
let user = 800;

for (const [way, options] of Object.entries(WAYS)) {
  test(`${way}: a token is replaced while the session is live`, async t => {
    const me = user++;
    const ends = [3, 3600];
    const client = open(t, { url: demo.url(), token: () => token(me, ends.shift()), ...options });
    await live(client);
    const [{ sessionId: session }] = await demo.sessions(me);
    // Behind the end of the first token.
    await new Promise(resolve => setTimeout(resolve, 4500));
    await demo.publish(me, 'to the second token');
    await until(client, 'the message', () => client.seen.length);
    assert.deepEqual(texts(client), ['to the second token']);
    assert.deepEqual((await demo.sessions(me)).map(({ sessionId }) => sessionId), [session]);
    assert.equal(client.states.filter(({ state }) => state === 'live').length, 1);
    assert.deepEqual(ends, []);
  });

  test(`${way}: a token that is not taken for the session is brought by another one`, async t => {
    const me = user++;
    const tokens = [token(me, 3), token(user++, 3600)];
    const client = open(t, { url: demo.url(), token: () => tokens.shift(), ...options });
    await live(client);
    await until(client, 'the second session', () => client.states.filter(({ state }) => state === 'live').length === 2);
    await demo.publish(user - 1, 'to the other user');
    await until(client, 'the message', () => client.seen.length);
    assert.ok(client.states.every(({ state }) => state !== 'waiting'));
  });
}
