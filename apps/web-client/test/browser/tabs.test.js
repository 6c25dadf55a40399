import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Demo, token } from '../demo.js';
import { BROWSERS } from './browsers.js';
import { Origin } from './page.js';

let user = 500;

for (const [name, Browser] of Object.entries(BROWSERS)) {
  describe(name, () => {
    let browser, demo, origin, home;
    before(async () => {
      demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' });
      origin = await Origin.start(demo.port);
      browser = await Browser.start();
      [home] = await browser.tabs();
    });
    after(async () => {
      await browser?.stop();
      origin?.stop();
      await demo?.stop();
    });

    /** Tabs of one user, the first of them the leader. Closed with the test, but for one that stays. */
    async function tabs(t, me, count, options = {}) {
      const url = origin.url({ token: token(me), transports: ['sse'], ...options });
      const handles = [];
      for (let i = 0; i < count; i++) {
        handles.push(await browser.open());
        await browser.go(url);
        await browser.until('window.client?.status.state === "live"');
        if (i) await browser.until('client.status.shared');
      }
      t.after(async () => {
        for (const handle of handles) {
          if (!(await browser.tabs()).includes(handle)) continue;
          await browser.to(handle);
          await browser.close();
        }
        await browser.to(home);
      });
      return handles;
    }

    const sessions = async (me, count, ms = 15_000) => {
      const end = Date.now() + ms;
      for (;;) {
        const { length } = await demo.sessions(me);
        if (length === count) return;
        assert.ok(Date.now() < end, `${length} sessions`);
      }
    };

    /** Waits until each tab has what was sent, and looks whether it has it once. */
    async function expect(handles, sent) {
      for (const handle of handles) {
        await browser.to(handle);
        await browser.until(`got.length >= ${sent.length}`);
        assert.deepEqual(await browser.run('got'), sent);
        assert.equal(await browser.run('gaps'), 0);
      }
    }

    test('30 tabs have one connection, and a leader that is closed or crashes is followed by another one without loss', async t => {
      const me = user++;
      const handles = await tabs(t, me, 30);
      await sessions(me, 1);
      const sent = [];
      let publishing = true;
      const burst = (async () => {
        while (publishing) {
          sent.push(`${sent.length}`);
          await demo.publish(me, sent.at(-1));
          await new Promise(resolve => setTimeout(resolve, 20));
        }
      })();
      const lead = async () => {
        for (const handle of handles) {
          await browser.to(handle);
          if (await browser.run('client.status.state === "live" && !client.status.shared')) return handle;
        }
      };
      for (const way of name === 'chromium' ? ['close', 'crash'] : ['close']) {
        let leader;
        while (!(leader = await lead()));
        handles.splice(handles.indexOf(leader), 1);
        if (way === 'close') await browser.close();
        // The answer would come from the page that is gone.
        else void browser.cdp('Page.crash').catch(() => {});
        const began = Date.now();
        await new Promise(resolve => setTimeout(resolve, 200));
        await browser.to(handles[0]);
        const count = await browser.run('got.length');
        await browser.until(`got.length > ${count + 20}`);
        t.diagnostic(`${way}: messages again within ${Date.now() - began} ms`);
      }
      publishing = false;
      await burst;
      await expect(handles, sent);
      await sessions(me, 1);
    });

    test('a frozen leader is overtaken, and follows when it thaws', { skip: name !== 'chromium' }, async t => {
      const me = user++;
      const handles = await tabs(t, me, 3);
      await sessions(me, 1);
      await browser.to(handles[0]);
      assert.equal(await browser.run('!!client.status.shared'), false);
      await browser.cdp('Page.setWebLifecycleState', { state: 'frozen' });
      const began = Date.now();
      await demo.publish(me, 'while frozen');
      await expect(handles.slice(1), ['while frozen']);
      t.diagnostic(`overtaken within ${Date.now() - began} ms`);
      await browser.to(handles[0]);
      await browser.cdp('Page.setWebLifecycleState', { state: 'active' });
      await browser.until('client.status.shared');
      await demo.publish(me, 'after');
      await expect(handles, ['while frozen', 'after']);
      await sessions(me, 1);
    });

    test('tabs of different logins do not share', async t => {
      const [one, two] = [user++, user++];
      await tabs(t, one, 2);
      const url = origin.url({ token: token(two), transports: ['sse'] });
      await browser.open();
      await browser.go(url);
      await browser.until('window.client?.status.state === "live"');
      await sessions(two, 1);
      await sessions(one, 1);
      await demo.publish(one, 'of one');
      await demo.publish(two, 'of two');
      await browser.until('got.length');
      assert.deepEqual(await browser.run('got'), ['of two']);
      await browser.close();
      await browser.to(home);
    });

    test('a kick of the shared connection is final for all tabs', async t => {
      const me = user++;
      const handles = await tabs(t, me, 3);
      await sessions(me, 1);
      await demo.kick(me);
      for (const handle of handles) {
        await browser.to(handle);
        await browser.until('client.status.state === "refused"');
        assert.equal(await browser.run('client.status.code'), 204);
      }
      assert.equal((await demo.sessions(me)).length, 0);
    });

    test('a shared WebSocket takes texts of every tab, and a reloaded tab loses nothing', async t => {
      const me = user++;
      const handles = await tabs(t, me, 3, { transports: ['websocket'], shared: true });
      await sessions(me, 1);
      await browser.to(handles[2]);
      await browser.run('client.send("echo")');
      for (const handle of handles) {
        await browser.to(handle);
        await browser.until('got.includes("echo")');
      }
      await browser.to(handles[1]);
      await demo.publish(me, 'one');
      await browser.until('got.includes("one")');
      await browser.reload();
      await demo.publish(me, 'two');
      await browser.until('window.client?.status.shared && got.includes("two")');
      assert.deepEqual(await browser.run('got'), ['echo', 'one', 'two']);
      await sessions(me, 1);
    });

    test('tabs do not share where it is switched off, nor over a WebSocket by themselves', async t => {
      for (const options of [{ shared: false }, { transports: ['websocket'] }]) {
        const me = user++;
        const url = origin.url({ token: token(me), transports: ['sse'], ...options });
        for (let i = 0; i < 2; i++) {
          const handle = await browser.open();
          t.after(async () => {
            await browser.to(handle);
            await browser.close();
            await browser.to(home);
          });
          await browser.go(url);
          await browser.until('window.client?.status.state === "live"');
        }
        await demo.publish(me, 'one');
        await browser.until('got.length');
        assert.equal((await demo.sessions(me)).length, 2);
      }
    });

    test('a leader that hangs is overtaken, and follows when it is back', async t => {
      const me = user++;
      const handles = await tabs(t, me, 3);
      await sessions(me, 1);
      await browser.to(handles[0]);
      // Chromedriver waits for the page; Firefox throttles timers in the background.
      const hang = '() => { for (const end = Date.now() + 12_000; Date.now() < end; ); }';
      const later = `(({ port1, port2 }) => { port1.onmessage = ${hang}; port2.postMessage(0); })(new MessageChannel())`;
      await browser.run(`void ${name === 'chromium' ? `setTimeout(${hang}, 50)` : later}`);
      const began = Date.now();
      await new Promise(resolve => setTimeout(resolve, 200));
      await demo.publish(me, 'while it hangs');
      await expect(handles.slice(1), ['while it hangs']);
      const after = Date.now() - began;
      t.diagnostic(`overtaken within ${after} ms`);
      await browser.to(handles[0]);
      await browser.until('client.status.shared', 20_000);
      await demo.publish(me, 'after');
      await expect(handles, ['while it hangs', 'after']);
      await sessions(me, 1);
      assert.ok(after < 12_000);
    });
  });
}
