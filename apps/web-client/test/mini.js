// The built client in a mini-program: a context that has nothing of a browser.
import vm from 'node:vm';
import { build } from 'esbuild';
import { FakeUni } from './fake-uni.js';

const stdin = {
  contents: `
    export { connect } from './index.js';
    export { miniApp } from './uni.js';
    export { state, snapshot } from './state.js';
    export { stream } from './text-stream.js';
  `,
  resolveDir: new URL('../dist', import.meta.url).pathname,
};
const iife = { format: 'iife', globalName: 'realtime' };
const { outputFiles } = await build({ stdin, bundle: true, write: false, target: 'es2018', ...iife });
/** Script of the client, which sets `realtime`. */
export const code = outputFiles[0].text;

/** Connects in a context that has nothing of a browser, with a clock that the test sets. */
export function openMini(t, options) {
  const app = new FakeUni();
  const clock = { ahead: 0 };
  const context = vm.createContext({ uni: app, setTimeout, clearTimeout, console, clock });
  vm.runInContext(`${code}; const now = Date.now; Date.now = () => now() + clock.ahead;`, context);
  const realtime = vm.runInContext('realtime', context);
  const { connect, miniApp } = realtime;
  const mini = miniApp();
  const client = connect({
    clientId: 'web',
    backoff: { base: 100, cap: 1000 },
    ...mini,
    ...options,
    dial: { ...mini.dial, ...options.dial },
  });
  client.seen = [];
  client.gaps = [];
  client.states = [];
  client.on('*', message => client.seen.push(message));
  client.on('gap', gap => client.gaps.push(gap));
  client.on('status', status => client.states.push({ ...status }));
  t.after(() => client.close());
  return { client, app, clock, dial: mini.dial, ...realtime };
}
