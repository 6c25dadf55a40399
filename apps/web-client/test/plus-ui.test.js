import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import WebSocket from 'ws';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

const path = name => fileURLToPath(new URL(name, import.meta.url));
let demo, proxy, ui;
let user = 100;

before(async () => {
  demo = await Demo.start({ REALTIME__SSE__RETRY: '200ms' });
  proxy = await Proxy.start(demo.port);
  // A browser's, by Node's.
  globalThis.WebSocket = WebSocket;
  ui = await load('true');
});
after(async () => {
  ui.closeRealtime();
  proxy.stop();
  await demo.stop();
});
beforeEach(() => {
  ui.closeRealtime();
  ui.shown.length = ui.notices.length = 0;
  ui.user.userId = user++;
  ui.login.token = token(ui.user.userId);
});

/** The example, built as Vite does it. */
async function load(enabled) {
  const env = { VITE_APP_CLIENT_ID: 'web', VITE_APP_WEBSOCKET: enabled, VITE_APP_SSE: enabled };
  const { outputFiles } = await build({
    entryPoints: [path('plus-ui/all.ts')],
    bundle: true,
    format: 'esm',
    write: false,
    alias: { '@realtime/client': path('../dist/index.js'), 'element-plus': path('plus-ui/element-plus.ts'), '@': path('plus-ui') },
    define: { 'import.meta.env': JSON.stringify(env) },
  });
  return import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
}

async function until(condition, ms = 10_000) {
  for (const end = Date.now() + ms; !(await condition()); await new Promise(setImmediate)) {
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${condition}`);
  }
}

const sessions = async count => (await demo.sessions(ui.user.userId)).length === count;
const texts = () => ui.shown.map(({ message }) => message);
const WAYS = {
  initWebSocket: () => ui.initWebSocket(`${proxy.url('/resource/websocket').replace('http', 'ws')}`),
  initSSE: () => ui.initSSE(proxy.url('/resource/sse')),
  initRealtime: () => ui.initRealtime(proxy.url('/resource')),
};

for (const [name, init] of Object.entries(WAYS)) {
  test(`${name}: messages are shown and kept, those of a broken connection too`, async () => {
    const me = ui.user.userId;
    init();
    await until(() => sessions(1));
    await demo.publish(me, '欢迎登录后台管理系统');
    await until(() => ui.shown.length === 1);
    const [{ time, ...notice }] = ui.notices;
    assert.deepEqual(notice, { message: '欢迎登录后台管理系统', read: false });
    assert.equal(typeof time, 'string');
    const { message, ...look } = ui.shown[0];
    assert.deepEqual(look, { title: '消息', type: 'success', duration: 3000 });
    proxy.cut();
    for (let i = 0; i < 20; i++) await demo.publish(me, `${i}`);
    await until(() => ui.shown.length === 21);
    assert.deepEqual(texts().slice(1), Array.from({ length: 20 }, (_, i) => `${i}`));
  });

  test(`${name}: a second login in the page ends the first one's connection`, async () => {
    const first = ui.user.userId;
    init();
    await until(() => sessions(1));
    ui.closeRealtime();
    await until(() => sessions(0));
    ui.user.userId = user++;
    ui.login.token = token(ui.user.userId);
    init();
    init();
    await until(() => sessions(1));
    await demo.publish(first, 'of somebody else');
    await demo.publish(ui.user.userId, 'mine');
    await until(() => ui.shown.length);
    assert.deepEqual(texts(), ['mine']);
  });
}

test('a token that was renewed meanwhile is taken', async () => {
  const me = ui.user.userId;
  ui.login.token = token(me, 2);
  const realtime = ui.initSSE(proxy.url('/resource/sse'));
  await until(() => sessions(1));
  ui.login.token = token(me);
  // The session goes on with it, or another one begins, when the first has ended.
  await new Promise(resolve => setTimeout(resolve, 3000));
  await until(() => realtime.status.state === 'live');
  await demo.publish(me, 'after all');
  await until(() => ui.shown.length === 1);
});

test('a kick is final, and said', async t => {
  const warn = t.mock.method(console, 'warn', () => {});
  const realtime = ui.initWebSocket(proxy.url('/resource/websocket').replace('http', 'ws'));
  await until(() => sessions(1));
  await demo.kick(ui.user.userId);
  await until(() => realtime.status.state === 'refused');
  assert.match(warn.mock.calls[0].arguments[0], /no longer \(4409, /);
});

test('what is switched off stays off', async () => {
  const off = await load('false');
  assert.equal(off.initWebSocket('ws://127.0.0.1:1/'), undefined);
  assert.equal(off.initSSE('http://127.0.0.1:1/'), undefined);
});

test('the guides show the code that is tested', () => {
  const code = readFileSync(path('../examples/plus-ui.ts'), 'utf8');
  const guide = readFileSync(path('../../../docs/plus-ui.md'), 'utf8');
  assert.ok(guide.includes(`\`\`\`ts\n${code}\`\`\``), 'docs/plus-ui.md differs from examples/plus-ui.ts');
});
