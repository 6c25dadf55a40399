import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Demo, token } from '../demo.js';
import { BROWSERS } from './browsers.js';
import { Origin } from './page.js';

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
  'fetch stream with headers': { transports: ['sse'], headers: {} },
  EventSource: { transports: ['sse'], sse: 'eventsource' },
};
let user = 100;

for (const [name, Browser] of Object.entries(BROWSERS)) {
  describe(name, () => {
    let browser, demo, origin;
    before(async () => {
      demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' });
      origin = await Origin.start(demo.port);
      browser = await Browser.start();
    });
    after(async () => {
      await browser?.stop();
      origin?.stop();
      await demo?.stop();
    });

    async function open(me, options) {
      await browser.go(origin.url({ token: token(me), name: String(me), ...options }));
      await browser.run('sessionStorage.clear()');
      await browser.reload();
      await browser.until('window.client?.status.state === "live"');
    }

    for (const [way, options] of Object.entries(WAYS)) {
      test(`${way}: reloads in the middle of a burst lose and double nothing`, async () => {
        const me = user++;
        await open(me, options);
        await demo.publish(me, 'first');
        await browser.until('got.length === 1');
        let publishing = true;
        const sent = ['first'];
        const burst = (async () => {
          while (publishing) {
            await demo.publish(me, `${sent.length}`);
            sent.push(`${sent.length}`);
          }
        })();
        for (let i = 0; i < 5; i++) {
          await browser.reload();
          await browser.until('window.here > 5');
        }
        publishing = false;
        await burst;
        await browser.until(`got.length >= ${sent.length}`);
        assert.deepEqual(await browser.run('got'), sent);
        assert.equal(await browser.run('gaps'), 0);
      });
    }

    for (const [way, options] of Object.entries(WAYS).slice(0, 2)) {
      test(`${way}: the network goes and comes back without loss`, async () => {
        const me = user++;
        await open(me, { heartbeat: 500, ...options });
        await browser.offline(true);
        await demo.publish(me, 'while offline');
        await browser.offline(false);
        await browser.run('window.dispatchEvent(new Event("online"))');
        await browser.until('got.length === 1');
        assert.deepEqual(await browser.run('got'), ['while offline']);
      });

      test(`${way}: a node that is killed is followed by another one, and the gap is told`, async () => {
        const me = user++;
        await open(me, options);
        await demo.publish(me, 'before');
        await browser.until('got.length === 1');
        await demo.stop('SIGKILL');
        await browser.until('client.status.state === "waiting"');
        demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' }, demo.port);
        await browser.until('client.status.state === "live"', 30_000);
        await demo.publish(me, 'after');
        await browser.until('got.length === 2');
        assert.deepEqual(await browser.run('got'), ['before', 'after']);
        assert.equal(await browser.run('gaps'), 1);
      });

      test(`${way}: a tab in the background stays live, and gets what comes`, async () => {
        const me = user++;
        await open(me, { heartbeat: 500, ...options });
        const [tab] = await browser.tabs();
        const other = await browser.open();
        await browser.go(origin.url({ token: token(user++), transports: ['websocket'] }));
        await demo.publish(me, 'in the background');
        await browser.to(tab);
        await browser.until('got.length === 1');
        await browser.to(other);
        await browser.close();
        await browser.to(tab);
        assert.deepEqual(await browser.run('got'), ['in the background']);
        assert.ok((await browser.run('states')).filter(({ state }) => state === 'live').length <= 1);
      });

      test(`${way}: a clock that jumps, forth or back, ends no connection`, async () => {
        const me = user++;
        await open(me, options);
        for (const jump of [3_600_000, -7_200_000]) {
          await browser.run(`void (Date.now = (now => () => now() + ${jump})(Date.now))`);
          // Heartbeats come every 500 ms.
          const heard = await browser.run('performance.now()');
          await browser.until(`performance.now() > ${heard} + 1500`);
        }
        await demo.publish(me, 'after the jumps');
        await browser.until('got.length === 1');
        assert.ok((await browser.run('states')).filter(({ state }) => state === 'live').length <= 2);
        assert.equal(await browser.run('gaps'), 0);
      });
    }

    for (const [way, options] of Object.entries(WAYS).slice(0, 2)) {
      test(`${way}: reloads in the middle of an answer leave nothing of it out`, async () => {
        const me = token(user++);
        await browser.go(origin.url({ token: me, answer: 'answer-1', ...options }));
        await browser.until('window.client?.status.state === "live"');
        await demo.ai(me, 'POST', '', { prompt: '讲个故事 😀', id: 'answer-1' });
        for (let i = 0; i < 5; i++) {
          await browser.until('window.answer?.text.length > 20');
          await browser.reload();
        }
        await browser.until('window.answer?.state', 30_000);
        assert.equal(await browser.run('answer.state'), 'done');
        assert.equal(await browser.run('answer.text'), (await demo.ai(me, 'GET', '/answer-1')).text);
      });
    }

    test('a kick is final', async () => {
      const me = user++;
      await open(me, {});
      await demo.kick(me);
      await browser.until('client.status.state === "refused"');
      assert.deepEqual(await browser.run('[client.status.code, client.status.reason]'), [4409, 'kicked']);
    });

    if (name === 'chromium') {
      for (const [way, options] of Object.entries(WAYS).slice(0, 2)) {
        test(`${way}: a page that was frozen has all of it when it thaws`, async () => {
          const me = user++;
          await open(me, { heartbeat: 500, ...options });
          await browser.cdp('Page.setWebLifecycleState', { state: 'frozen' });
          for (let i = 0; i < 20; i++) await demo.publish(me, `${i}`);
          await browser.cdp('Page.setWebLifecycleState', { state: 'active' });
          await browser.until('got.length === 20');
          assert.deepEqual(await browser.run('got'), Array.from({ length: 20 }, (_, i) => `${i}`));
        });
      }
    }
  });
}
