// A mini-program's `uni` over real sockets, with the faults of the platforms it runs on:
// - `connectSocket` and `request` return promises unless a callback is given; at most five sockets;
// - without a network `close` does nothing, what is under way hangs, and comes through when the network is back;
// - `crossed`: what an old socket gets comes to the newest one (uni-app#2144);
// - `silent`: no `onClose` after `onError` (uni-app#1619);
// - in the background requests fail as `interrupted` and sockets are dead without a word;
// - chunks split characters; names of headers are as it likes.
import { request as httpRequest } from 'node:http';
import WebSocket from 'ws';

const REFERER = 'https://servicewechat.com/wx0123456789abcdef/7/page-frame.html';

export class FakeUni {
  crossed = false;
  silent = false;
  /** The `Origin` of its sockets, which most platforms leave out. */
  origin = undefined;
  online = true;
  foreground = true;
  chunked = true;
  sockets = [];
  requests = new Set();
  stored = new Map();
  calls = [];
  #newest;
  #held = [];
  #listeners = {};

  constructor() {
    for (const name of ['AppShow', 'AppHide', 'NetworkStatusChange']) {
      this.#listeners[name] = new Set();
      this[`on${name}`] = run => this.#listeners[name].add(run);
      this[`off${name}`] = run => this.#listeners[name].delete(run);
    }
  }

  get listening() {
    return Object.values(this.#listeners).reduce((sum, { size }) => sum + size, 0);
  }

  getStorageSync(key) {
    return this.stored.get(key) ?? '';
  }

  setStorageSync(key, value) {
    this.stored.set(key, value);
  }

  connectSocket(options) {
    this.calls.push(['connectSocket', options]);
    if (!options.success && !options.fail && !options.complete) return Promise.resolve([null, {}]);
    if (this.sockets.length >= 5) {
      options.fail?.({ errMsg: 'connectSocket:fail exceed max socket count' });
      return undefined;
    }
    const task = this.#task(options);
    this.#newest = task;
    this.sockets.push(task);
    options.success?.({ errMsg: 'connectSocket:ok' });
    return task;
  }

  #task({ url, protocols, header }) {
    const handlers = { open: [], message: [], error: [], close: [] };
    const forget = () => {
      this.sockets = this.sockets.filter(other => other !== task);
    };
    const tell = (event, value) => {
      if (task.dead) return;
      this.#run(() => {
        if (event === 'close' || event === 'error') forget();
        const told = this.crossed && event !== 'open' ? this.#newest : task;
        for (const handler of told.handlers[event]) handler(value);
      });
    };
    const task = {
      handlers,
      dead: false,
      onOpen: run => handlers.open.push(run),
      onMessage: run => handlers.message.push(run),
      onError: run => handlers.error.push(run),
      onClose: run => handlers.close.push(run),
      send: ({ data, fail }) => {
        if (task.dead || task.socket?.readyState !== 1) setImmediate(() => fail?.({ errMsg: 'sendSocketMessage:fail' }));
        else if (this.online) task.socket.send(data);
      },
      close: ({ code }) => {
        this.calls.push(['close', task]);
        // Nor does it close what is opening.
        if (this.online && this.foreground && task.socket?.readyState) task.socket.close(code);
      },
    };
    const begin = () => {
      const socket = (task.socket = new WebSocket(url, protocols, { headers: { ...header, Referer: REFERER }, origin: this.origin }));
      let failed = false;
      socket.on('open', () => tell('open', {}));
      socket.on('message', data => tell('message', { data: data.toString() }));
      socket.on('error', ({ message }) => {
        failed = true;
        tell('error', { errMsg: `connectSocket:fail ${message}` });
      });
      socket.on('close', (code, reason) => {
        if (!failed || !this.silent) tell('close', { code, reason: reason.toString() });
      });
    };
    if (this.online && this.foreground) begin();
    else setImmediate(() => tell('error', { errMsg: 'connectSocket:fail no network' }));
    return task;
  }

  request(options) {
    this.calls.push(['request', options]);
    const { url, method = 'GET', header, data, enableChunked, success, fail, responseType } = options;
    if (!success && !fail) return Promise.resolve({});
    const headers = [];
    const chunks = [];
    let over = false;
    const end = (call, value) => {
      if (over) return;
      over = true;
      this.requests.delete(task);
      http.destroy();
      call?.(value);
    };
    const task = {
      abort: () => setImmediate(() => end(fail, { errMsg: 'request:fail abort' })),
      interrupt: () => end(fail, { errMsg: 'request:fail interrupted' }),
      onHeadersReceived: run => headers.push(run),
    };
    if (this.chunked) task.onChunkReceived = run => chunks.push(run);
    this.requests.add(task);
    const http = httpRequest(url, { method, headers: { ...header, Referer: REFERER }, agent: false }, response => {
      const names = {};
      for (const [name, value] of Object.entries(response.headers)) names[name.toUpperCase()] = value;
      const answer = { statusCode: response.statusCode, header: names };
      this.#run(() => headers.forEach(run => run(answer)));
      const whole = [];
      response.on('data', bytes => {
        whole.push(bytes);
        if (!enableChunked || !this.chunked) return;
        for (let at = 0; at < bytes.length; ) {
          const part = Uint8Array.from(bytes.subarray(at, (at += 1 + Math.floor(Math.random() * 40))));
          this.#run(() => over || chunks.forEach(run => run({ data: part.buffer })));
        }
      });
      response.on('end', () => {
        const data = Uint8Array.from(enableChunked && this.chunked ? [] : Buffer.concat(whole)).buffer;
        if (responseType !== 'arraybuffer') throw new Error('the fake gives bytes only');
        this.#run(() => end(success, { ...answer, data }));
      });
      response.on('error', () => {});
      response.on('close', () => response.complete || this.#run(() => end(fail, { errMsg: 'request:fail reset' })));
    });
    http.on('error', ({ message }) => this.#run(() => end(fail, { errMsg: `request:fail ${message}` })));
    http.end(data);
    if (!this.foreground) setImmediate(task.interrupt);
    else if (!this.online) setImmediate(() => end(fail, { errMsg: 'request:fail no network' }));
    return task;
  }

  /** Runs what the network brings, once there is one. */
  #run(run) {
    if (this.online) run();
    else this.#held.push(run);
  }

  disconnect() {
    this.online = false;
    for (const run of [...this.#listeners.NetworkStatusChange]) run({ isConnected: false });
  }

  /** The network comes back, with what was under way; a moment later the application is told. */
  async reconnect() {
    this.online = true;
    for (const run of this.#held.splice(0)) run();
    await new Promise(setImmediate);
    for (const run of [...this.#listeners.NetworkStatusChange]) run({ isConnected: true });
  }

  /** The five seconds in the background are over. */
  hide() {
    for (const run of [...this.#listeners.AppHide]) run({});
    this.foreground = false;
    for (const task of this.sockets) {
      task.dead = true;
      task.socket?.terminate();
    }
    this.sockets = [];
    for (const task of [...this.requests]) task.interrupt();
  }

  show() {
    this.foreground = true;
    for (const run of [...this.#listeners.AppShow]) run({});
  }
}
