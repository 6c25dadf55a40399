import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { live, open, until } from './client.js';
import { Demo, token } from './demo.js';
import { Proxy } from './proxy.js';

/** A Redis server of the test's own. */
async function redis(t) {
  const free = createServer().listen(0, '127.0.0.1');
  await once(free, 'listening');
  const { port } = free.address();
  await new Promise(resolve => free.close(resolve));
  const server = spawn('redis-server', ['--port', port, '--save', '', '--dir', '/tmp', '--bind', '127.0.0.1']);
  t.after(() => server.kill('SIGKILL'));
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    createInterface(server.stdout).on('line', line => /Ready to accept connections/.test(line) && resolve());
  });
  return { url: `redis://127.0.0.1:${port}`, server };
}

async function cluster(t) {
  const { url, server } = await redis(t);
  const variables = { REALTIME__REDIS__URL: url, REALTIME__SSE__RETRY: '200ms' };
  const nodes = await Promise.all([Demo.start(variables), Demo.start(variables)]);
  const proxy = await Proxy.start(nodes[0].port);
  t.after(async () => {
    proxy.stop();
    await Promise.all(nodes.map(node => node.stop()));
  });
  return { nodes, proxy, server };
}

test('changes of node and transport lose and double nothing', async t => {
  const { nodes, proxy } = await cluster(t);
  const client = open(t, { url: proxy.url(), token: token(1), upgradeAfter: 50 });
  await live(client);
  const sent = [];
  for (let round = 0; round < 12; round++) {
    proxy.target = nodes[round % 2].port;
    proxy.blocked = round % 3 === 2;
    proxy.cut();
    for (let i = 0; i < 10; i++) sent.push(await nodes[i % 2].publish(1, `${round}.${i}`));
    await live(client);
  }
  await until(client, 'all', () => client.seen.length >= sent.length);
  assert.deepEqual(client.seen.map(({ id }) => id), sent);
  assert.deepEqual(client.gaps, []);
});

test('a node that is killed is left for another one without loss', async t => {
  const { nodes, proxy } = await cluster(t);
  const client = open(t, { url: proxy.url(), token: token(1) });
  await live(client);
  const sent = [await nodes[1].publish(1, 'before')];
  proxy.target = nodes[1].port;
  await nodes[0].stop('SIGKILL');
  sent.push(await nodes[1].publish(1, 'after'));
  await until(client, 'both', () => client.seen.length === 2);
  assert.deepEqual(client.seen.map(({ id }) => id), sent);
  assert.deepEqual(client.gaps, []);
});

for (const transport of ['websocket', 'sse']) {
  test(`${transport}: a bus that is away is told of`, async t => {
    const { proxy, server } = await cluster(t);
    const client = open(t, { url: proxy.url(), token: token(1), transports: [transport] });
    const told = [];
    client.on('bus', ({ downSince }) => told.push(downSince));
    await live(client);
    server.kill('SIGSTOP');
    await until(client, 'down', () => told.length === 1);
    assert.ok(Math.abs(Date.now() - told[0]) < 30_000);
    server.kill('SIGCONT');
    await until(client, 'up', () => told.length === 2);
    assert.equal(told[1], null);
    assert.equal(client.status.state, 'live');
  });
}
