import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { live, texts, until } from './client.js';
import { Demo, token } from './demo.js';
import { openMini } from './mini.js';

let demo;
let user = 900;
before(async () => {
  demo = await Demo.start({
    REALTIME__SSE__RETRY: '200ms',
    REALTIME__AUTH__EXPIRINGNOTICE: '2s',
    REALTIME__TOPICS__PUBLIC: 'order:*',
  });
});
after(() => demo.stop());

for (const transport of ['websocket', 'sse']) {
  test(`${transport}: a mini-program has topics, also after the background`, async t => {
    const options = { url: demo.url(), token: token(user++), transports: [transport] };
    const { client, app, clock } = openMini(t, options);
    await live(client);
    const got = [];
    client.on('*', ({ topic, data }) => got.push([topic, data]), 'order:7');
    await until(client, 'the topic', () => client.topics.includes('order:7'));
    const publish = message => demo.api('POST', '/api/publish', { topics: ['order:7'], message });
    await publish('付款');
    await until(client, 'one', () => got.length === 1);
    app.hide();
    await publish('发货');
    clock.ahead += 60_000;
    app.show();
    await until(client, 'two', () => got.length === 2);
    assert.deepEqual(got, [['order:7', '付款'], ['order:7', '发货']]);
    assert.deepEqual(client.gaps, []);
  });

  test(`${transport}: a mini-program's token is replaced while the session is live`, async t => {
    const me = user++;
    const ends = [3, 3600];
    const { client } = openMini(t, { url: demo.url(), token: () => token(me, ends.shift()), transports: [transport] });
    await live(client);
    const [{ sessionId }] = await demo.sessions(me);
    // Behind the end of the first token.
    await new Promise(resolve => setTimeout(resolve, 4500));
    await demo.publish(me, 'to the second token');
    await until(client, 'the message', () => client.seen.length);
    assert.deepEqual(texts(client), ['to the second token']);
    assert.deepEqual((await demo.sessions(me)).map(({ sessionId }) => sessionId), [sessionId]);
  });
}
