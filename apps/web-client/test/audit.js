// The clients of `realtime-bench audit --client`: many connections of this package to several nodes. It reads what to do
// and writes what its clients see, a line of JSON each (apps/bench/src/audit/client/program.rs).
import { createInterface } from 'node:readline';
import WebSocket from 'ws';
import { connect } from '../dist/index.js';
import { Storage } from './client.js';

/** Stands for whatever node a client dials. */
const HOST = 'node.invalid';
/** Milliseconds between two notes that something has come. */
const NOTE_EVERY = 100;

let nodes, heartbeat, window;
const between = (from, to) => from + Math.random() * (to - from);
const emit = event => process.stdout.write(`${JSON.stringify(event)}\n`);

class Client {
  #task;
  #storage = new Storage();
  #node = Math.floor(Math.random() * nodes.length);
  #rt;
  #drops = new Set();
  #noted = 0;
  #timer;

  constructor(task) {
    this.#task = task;
  }

  start() {
    const { client, token, transport, behaviour } = this.#task;
    const eager = behaviour === 'Eager';
    const rt = connect({
      url: `http://${HOST}/resource`,
      token,
      transports: transport === 'Sse' ? ['sse', 'websocket'] : ['websocket', 'sse'],
      storage: this.#storage,
      heartbeat,
      upgradeAfter: 3000,
      backoff: eager ? { base: 10, cap: 40 } : { base: 200, cap: 1500 },
      dial: { WebSocket: this.#socket(), fetch: (url, init) => this.#fetch(url, init), wake: () => () => {} },
    });
    this.#rt = rt;
    rt.on('*', ({ event, data, id }) => this.#see({ type: 'message', client, event, data, cursor: id }));
    rt.on('gap', ({ reason, cursor }) => this.#see({ type: 'gap', client, reason, cursor }));
    rt.on('status', ({ state, code, reason }) => {
      if (state === 'live') this.#see({ type: 'hello', client, cursor: rt.cursor });
      else if (state === 'waiting') this.#ended({ type: 'end', client, code }, !eager);
      else if (state === 'refused' || (state === 'closed' && rt === this.#rt)) emit({ type: 'final', client, code, reason });
    });
    if (behaviour === 'Mover') this.#later(between(1000, 6000), () => this.#move());
    if (behaviour === 'Away') this.#later(between(1000, 8000), () => this.#leave());
  }

  /** Breaks all connections off. */
  drop() {
    for (const drop of this.#drops) drop();
  }

  /** From now on it stays. */
  settle() {
    clearTimeout(this.#timer);
    if (!this.#rt) this.start();
    clearTimeout(this.#timer);
  }

  #later(pause, run) {
    this.#timer = setTimeout(run, pause);
  }

  #move() {
    this.#elsewhere();
    this.drop();
    this.#later(between(1000, 6000), () => this.#move());
  }

  /** As a page that is left, and opened again with the cursor of its storage. */
  #leave() {
    const rt = this.#rt;
    this.#rt = undefined;
    rt.close();
    emit({ type: 'left', client: this.#task.client });
    const away = Math.random() < 0.25 ? between(window / 2, window * 1.5) : between(200, 5000);
    this.#later(away, () => {
      this.#elsewhere();
      this.start();
    });
  }

  #ended(event, moves) {
    emit(event);
    if (moves) this.#elsewhere();
  }

  #elsewhere() {
    this.#node = (this.#node + 1 + Math.floor(Math.random() * (nodes.length - 1))) % nodes.length;
  }

  #see(event) {
    this.#noted = Date.now();
    emit(event);
  }

  /** Notes where the cursor is, once whatever came has been handled. */
  #heard() {
    setImmediate(() => {
      if (!this.#rt || Date.now() - this.#noted < NOTE_EVERY) return;
      this.#see({ type: 'beat', client: this.#task.client, cursor: this.#rt.cursor });
    });
  }

  /** Notes an attempt; returns the address of the node that it goes to. */
  #dialed(url, transport) {
    const cursor = new URL(url).searchParams.get('cursor');
    emit({ type: 'dial', client: this.#task.client, node: this.#node, transport, cursor });
    return url.replace(HOST, nodes[this.#node]);
  }

  #socket() {
    const dialed = url => this.#dialed(url, 'WebSocket');
    const heard = () => this.#heard();
    const drops = this.#drops;
    return class extends WebSocket {
      constructor(url, ...more) {
        super(dialed(url), ...more);
        const drop = () => this.terminate();
        drops.add(drop);
        this.on('message', heard);
        this.on('close', () => drops.delete(drop));
      }
    };
  }

  async #fetch(url, init) {
    const { pathname } = new URL(url);
    if (!pathname.endsWith('/sse')) return fetch(url.replace(HOST, nodes[this.#node]), init);
    const abort = new AbortController();
    const drop = () => abort.abort();
    this.#drops.add(drop);
    init.signal.addEventListener('abort', () => this.#drops.delete(drop));
    const signal = AbortSignal.any([init.signal, abort.signal]);
    const { status, headers, body } = await fetch(this.#dialed(url, 'Sse'), { ...init, signal });
    const heard = new TransformStream({
      transform: (chunk, controller) => {
        controller.enqueue(chunk);
        this.#heard();
      },
    });
    return new Response(body?.pipeThrough(heard) ?? null, { status, headers });
  }
}

const clients = [];
createInterface({ input: process.stdin })
  .on('line', line => {
    const order = JSON.parse(line);
    if (order.clients) {
      ({ nodes, heartbeat, window } = order);
      clients.push(...order.clients.map(task => new Client(task)));
      for (const client of clients) client.start();
    }
    if (order.drop) for (const client of clients) if (Math.random() * order.drop < 1) client.drop();
    if (order.settle) for (const client of clients) client.settle();
  })
  // The auditor is done, or gone.
  .on('close', () => process.exit());
