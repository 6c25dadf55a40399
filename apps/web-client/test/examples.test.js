// The programs of `examples`, as the guides in docs/howto show them, against the real server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { build } from 'esbuild';
import { Demo, token } from './demo.js';
import { FakeUni } from './fake-uni.js';

let demo;
before(async () => {
  demo = await Demo.start();
});
after(() => demo.stop());

const path = file => fileURLToPath(new URL(`../${file}`, import.meta.url));

/** Runs an example in a mini-program, a context that has nothing of a browser. */
async function run(example) {
  const { outputFiles } = await build({
    entryPoints: [path(`examples/${example}`)],
    alias: { '@realtime/client/uni': path('dist/uni.js'), '@realtime/client': path('dist/index.js') },
    bundle: true,
    write: false,
    target: 'es2018',
    format: 'iife',
    globalName: 'example',
  });
  const wx = new FakeUni();
  // The pauses that it has waited for.
  const pauses = [];
  const timeout = (run, ms) => {
    pauses.push(ms);
    return setTimeout(run, ms);
  };
  const context = vm.createContext({ wx, setTimeout: timeout, clearTimeout, console });
  vm.runInContext(outputFiles[0].text, context);
  return { wx, pauses, example: vm.runInContext('example', context) };
}

async function until(what, holds) {
  const end = Date.now() + 15_000;
  while (!(await holds())) {
    assert(Date.now() < end, what);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

test('a mini-program with the client gets what is published', async t => {
  const { wx, example } = await run('mini-program.ts');
  wx.setStorageSync('token', token(41));
  const shown = [];
  const realtime = example.start(demo.url(), text => shown.push(text));
  t.after(() => realtime.close());
  await until('the session', async () => (await demo.sessions(41)).length === 1);
  await demo.publish(41, '付款');
  await until('the message', () => shown.length);
  assert.deepEqual(shown, ['付款']);
  const [, { header, url }] = wx.calls.find(([name]) => name === 'connectSocket');
  assert(header.Authorization && !url.includes('eyJ'), 'the token is in the header');
});

test('a mini-program without it comes back behind the last message, and stays away after a kick', async () => {
  const { wx, pauses, example } = await run('mini-program-alone.ts');
  const shown = [];
  const url = demo.url('/resource/websocket').replace('http', 'ws');
  example.dial(url, token(42), text => shown.push(text));
  await until('the session', async () => (await demo.sessions(42)).length === 1);
  await demo.publish(42, 'one');
  await until('the first message', () => shown.length);
  for (const task of wx.sockets) task.socket.terminate();
  await until('the end of the session', async () => (await demo.sessions(42)).length === 0);
  await demo.publish(42, 'two');
  await until('the second message', () => shown.length === 2);
  assert.deepEqual(shown, ['one', 'two']);
  assert.equal(pauses.length, 1);
  await demo.kick(42);
  await until('the end', () => wx.sockets.length === 0);
  await new Promise(resolve => setImmediate(resolve));
  assert.equal(pauses.length, 1, 'it does not dial again');
});
