import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Demo, token } from '../demo.js';
import { Browser } from './driver.js';
import { Origin } from './page.js';

let browser, demo, origin;
let user = 100;
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

const WAYS = {
  websocket: { transports: ['websocket'] },
  'fetch stream': { transports: ['sse'] },
  'fetch stream with headers': { transports: ['sse'], headers: {} },
  EventSource: { transports: ['sse'], sse: 'eventsource' },
};

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

test('the network goes and comes back without loss', async () => {
  const me = user++;
  await open(me, { transports: ['websocket', 'sse'], heartbeat: 500 });
  await browser.offline(true);
  await demo.publish(me, 'while offline');
  await browser.offline(false);
  await browser.run('window.dispatchEvent(new Event("online"))');
  await browser.until('got.length === 1');
  assert.deepEqual(await browser.run('got'), ['while offline']);
});

test('a kick is final', async () => {
  const me = user++;
  await open(me, {});
  await demo.kick(me);
  await browser.until('client.status.state === "refused"');
  assert.deepEqual(await browser.run('[client.status.code, client.status.reason]'), [4409, 'kicked']);
});
