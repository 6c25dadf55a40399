// The demo's own page, in each browser: a person who reloads it in the middle of things misses nothing.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Demo } from '../demo.js';
import { BROWSERS } from './browsers.js';

const ALICE = 1;
const LIVE = `[...document.querySelectorAll('.badge')].filter(badge => badge.dataset.state === 'connected').length === 2`;

for (const [name, Browser] of Object.entries(BROWSERS)) {
  describe(name, () => {
    let browser, demo;
    before(async () => {
      demo = await Demo.start();
      browser = await Browser.start();
      await browser.go(demo.url('/'));
      await browser.until(`document.querySelector('#login-user option[value=alice]')`);
      await browser.run(`(document.getElementById('login-user').value = 'alice', document.getElementById('login-password').value = 'demo', document.getElementById('login-submit').click())`);
      await browser.until(LIVE);
    });
    after(async () => {
      await browser?.stop();
      await demo?.stop();
    });

    test('reloads in the middle of an answer leave nothing of it out', async () => {
      await browser.run(`document.getElementById('ai-start').click()`);
      for (const words of ['You asked', 'reaches you is real', 'all of your sessions']) {
        await browser.until(`document.getElementById('ai-answer').textContent.includes(${JSON.stringify(words)})`);
        await browser.reload();
        await browser.until(LIVE);
      }
      await browser.until(`document.getElementById('ai-answer').dataset.state === 'done'`, 30_000);
      const id = await browser.run(`sessionStorage.getItem('realtime.answer.${ALICE}')`);
      const { token } = JSON.parse(await browser.run(`sessionStorage.getItem('realtime.session')`));
      const { text } = await demo.ai(token, 'GET', `/${id}`);
      assert.equal(await browser.run(`document.getElementById('ai-answer').textContent`), text);
    });

    test('reloads in the middle of a burst lose and double nothing', async () => {
      const COUNT = 150;
      for (let i = 0; i < COUNT; i++) {
        await demo.publish(ALICE, `message ${i}.`);
        if (i % 50 === 25) await browser.reload();
      }
      await browser.until(LIVE);
      // Each with both transports that brought it.
      const whole = `[...document.querySelectorAll('#feed [data-message]')].filter(item => item.querySelectorAll('.tag').length === 2 && item.textContent.includes('message ')).length`;
      await browser.until(`${whole} >= ${COUNT}`);
      const texts = `[...document.querySelectorAll('#feed .feed-text')].map(item => item.textContent).filter(text => text.startsWith('message ')).reverse().join()`;
      assert.equal(await browser.run(texts), Array.from({ length: COUNT }, (_, i) => `message ${i}.`).join());
      assert.equal(await browser.run(`document.querySelectorAll('#feed [data-gap]').length`), 0);
    });
  });
}
