// The built client with the sockets of Node, and what tests wait for.
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { connect } from '../dist/index.js';

export class Storage {
  items = new Map();
  getItem(key) {
    return this.items.get(key) ?? null;
  }
  setItem(key, value) {
    this.items.set(key, value);
  }
}

/** Connects, and notes what is told. Ended with the test. */
export function open(test, options) {
  const { dial, ...rest } = options;
  const client = connect({
    clientId: 'web',
    storage: null,
    backoff: { base: 100, cap: 1000 },
    dial: { WebSocket, EventSource, ...dial },
    ...rest,
  });
  client.seen = [];
  client.gaps = [];
  client.states = [];
  client.on('*', message => client.seen.push(message));
  client.on('gap', gap => client.gaps.push(gap));
  client.on('status', status => client.states.push(status));
  test.after(() => client.close());
  return client;
}

/** Waits until a condition holds, looked at whenever the connection tells something. */
export async function until(client, what, condition, ms = 15_000) {
  let stop = [];
  let timer;
  try {
    return await new Promise((resolve, reject) => {
      const look = () => {
        const value = condition();
        if (value) resolve(value);
      };
      timer = setTimeout(() => {
        const seen = client.seen.slice(-5).map(({ id, data }) => [id, data.slice(0, 80)]);
        const told = { seen, gaps: client.gaps, states: client.states.slice(-10) };
        reject(new Error(`${what}: not within ${ms} ms; ${JSON.stringify(told)}`));
      }, ms);
      for (const event of ['*', 'gap', 'status', 'bus', 'topics']) stop.push(client.on(event, look));
      look();
    });
  } finally {
    clearTimeout(timer);
    for (const end of stop) end();
  }
}

export const live = (client, transport) =>
  until(client, `live over ${transport ?? 'any'}`, () => {
    const { status } = client;
    return status.state === 'live' && (!transport || status.transport === transport) && status;
  });

export const state = (client, name) =>
  until(client, name, () => client.status.state === name && client.status);

export const texts = client => client.seen.map(({ data }) => data);
