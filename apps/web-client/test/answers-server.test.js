import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { stream } from '../dist/text-stream.js';
import { Storage, live, open } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

let demo;
let user = 900;
before(async () => (demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' })));
after(() => demo.stop());

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
};
const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

const ask = (...question) => demo.ai(...question);

async function drain(text) {
  let whole = '';
  let end;
  for await (const part of text) {
    whole = part.reset ? part.text : whole + part.text;
    end = part.state;
  }
  return [whole, end];
}

for (const [way, options] of Object.entries(WAYS)) {
  test(`${way}: an answer comes part by part, and is the same for who comes later`, async t => {
    const me = token(user++);
    const client = open(t, { url: demo.url(), token: me, ...options });
    await live(client);
    const text = stream(client, 'answer-1');
    const parts = [];
    text.on(part => parts.push(part));
    await ask(me, 'POST', '', { prompt: '讲个故事 😀', id: 'answer-1' });
    const early = drain(text);
    while (parts.length < 5) await pause(2);
    const second = open(t, { url: demo.url(), token: me, ...options });
    const late = drain(stream(second, 'answer-1'));
    const [whole, end] = await early;
    assert.equal(end, 'done');
    assert.ok(parts.length > 5, `${parts.length} parts`);
    assert.deepEqual(await late, [whole, end]);
    const third = open(t, { url: demo.url(), token: me, ...options });
    assert.deepEqual(await drain(stream(third, 'answer-1')), [whole, end]);
    // And for a component that appears on a page that has long been live.
    assert.deepEqual(await drain(stream(third, 'answer-1', { begun: true })), [whole, end]);
    assert.equal((await ask(me, 'GET', '/answer-1')).text, whole);
  });

  test(`${way}: an answer survives reloads at any place and broken connections`, async t => {
    const proxy = await Proxy.start(demo.port);
    t.after(() => proxy.stop());
    const reload = async () => {
      const me = token(user++);
      const storage = new Storage();
      const mine = { url: proxy.url(), token: me, storage, backoff: { base: 10, cap: 20 }, ...options };
      await ask(me, 'POST', '', { prompt: '讲个故事 😀', id: 'answer-1' });
      let got;
      for (let page = 0; page < 20; page++) {
        const client = open(t, mine);
        const text = stream(client, 'answer-1');
        await pause(Math.random() * 300);
        if (page % 3 === 1) proxy.cut();
        if (page % 3 === 1) await pause(Math.random() * 60);
        if (page < 19) client.close();
        else got = await drain(text);
      }
      assert.deepEqual(got, [(await ask(me, 'GET', '/answer-1')).text, 'done']);
    };
    await Promise.all(Array.from({ length: 5 }, reload));
  });

  test(`${way}: an answer that is stopped ends for its readers`, async t => {
    const me = token(user++);
    const client = open(t, { url: demo.url(), token: me, ...options });
    await live(client);
    const text = stream(client, 'answer-1');
    await ask(me, 'POST', '', { prompt: 'x', id: 'answer-1' });
    while (!text.text) await pause(2);
    await ask(me, 'POST', '/answer-1/stop');
    const [whole, end] = await drain(text);
    assert.equal(end, 'stopped');
    assert.equal((await ask(me, 'GET', '/answer-1')).text, whole);
  });
}

test('an answer that is over and forgotten before the client is back is lost, over each transport', async t => {
  const demo = await Demo.start({
    REALTIME__STREAMS__KEEP: '1s',
    REALTIME__HISTORY__MAXMESSAGES: '3',
    REALTIME__DRAIN__WINDOW: '100ms',
    REALTIME__SSE__RETRY: '200ms',
  });
  t.after(() => demo.stop());
  await Promise.all(
    Object.values(WAYS).map(async options => {
      const me = token(user++);
      const proxy = await Proxy.start(demo.port);
      t.after(() => proxy.stop());
      const client = open(t, { url: proxy.url(), token: me, backoff: { base: 10, cap: 50 }, ...options });
      await live(client);
      const text = stream(client, 'answer-1');
      await demo.ai(me, 'POST', '', { prompt: 'x', id: 'answer-1' });
      while (text.text.length < 20) await pause(2);
      const drained = drain(text);
      proxy.down = true;
      proxy.cut();
      // It is known as long as it is kept.
      while (await demo.ai(me, 'GET', '/answer-1').catch(() => undefined)) await pause(50);
      proxy.down = false;
      const [whole, end] = await drained;
      assert.equal(end, 'lost');
      assert.equal(whole, text.text);
      assert.deepEqual(client.gaps.map(({ reason }) => reason), ['history']);
    }),
  );
});
