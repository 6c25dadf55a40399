// Texts that the server has encoded, read by three parsers that share no code: this client's, the npm package
// `eventsource-parser`, and the one in Node (undici). Each gets the same bytes, cut at random.
//
// PARSER_TEXTS=100000 PARSER_SEED=7 node --test test/three-parsers.test.js
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, get } from 'node:http';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createParser } from 'eventsource-parser';
import { EventParser } from '../build/parser.js';
import { Demo, token } from './demo.js';

const COUNT = Number(process.env.PARSER_TEXTS ?? 300);
const SEED = Number(process.env.PARSER_SEED ?? Math.floor(Math.random() * 2 ** 31));
const NAMES = ['message', 'order', 'événement', 'data', 'id:x', 'end'];
const PIECES = [
  'a', ' ', '  ', ':', '\n', '\r', '\r\n', '\n\n', '\n\r', '\0', '\t', 'é', '你好', '😀', '\u2028', '\u2029', '\u0085',
  '\ufeff', '\u202e', '\ufffd', '\uffff', 'data:', '\nid:9.9\n', '\revent:gap\r', 'retry:0', ':comment', '{"a":"\\n"}',
  'x'.repeat(200),
];

/** A source of chance that a seed repeats (mulberry32). */
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The bytes in pieces of random length, some of a byte, some of many. */
function* cut(bytes, random) {
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + Math.floor(random() ** 4 * 5000);
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

let demo;
before(async () => (demo = await Demo.start()));
after(() => demo.stop());

/** Publishes random texts to a user; returns the bytes of its event stream, and what they mean. */
async function record() {
  const random = chance(SEED);
  const pick = list => list[Math.floor(random() * list.length)];
  const response = await new Promise(resolve => get(demo.url(`/resource/sse?Authorization=${token(1)}`), resolve));
  const chunks = [];
  let tail = '';
  let last;
  const whole = new Promise(resolve =>
    response.on('data', chunk => {
      chunks.push(chunk);
      tail = (tail + chunk.toString('latin1')).slice(-200);
      if (last && tail.includes(`id:${last}\n`) && tail.endsWith('\n\n')) resolve();
    }),
  );
  await once(response, 'data');
  const expected = [];
  const texts = Array.from({ length: COUNT }, () => ({
    event: pick(NAMES.slice(0, -1)),
    data: Array.from({ length: Math.floor(random() * 8) }, () => pick(PIECES)).join(''),
  }));
  const next = texts.values();
  const publish = async () => {
    for (const { event, data } of next) {
      const id = await demo.publish(1, data, { event });
      expected.push({ event, data: data.replace(/\r\n?/g, '\n'), id });
    }
  };
  await Promise.all(Array.from({ length: 16 }, publish));
  last = await demo.publish(1, 'the end', { event: 'end' });
  expected.push({ event: 'end', data: 'the end', id: last });
  await whole;
  response.destroy();
  const offset = ({ id }) => BigInt(id.split('.')[1]);
  return { bytes: Buffer.concat(chunks), expected: expected.sort((a, b) => (offset(a) < offset(b) ? -1 : 1)) };
}

/** Compares lists one by one: a difference of two long ones takes minutes to print. */
function same(name, found, expected) {
  for (const [at, event] of expected.entries()) assert.deepEqual(found[at], event, `${name}: event ${at}, seed ${SEED}`);
  assert.equal(found.length, expected.length, name);
}

test('three parsers read what was published, however the bytes are cut', { timeout: 1_200_000 }, async () => {
  const { bytes, expected } = await record();

  const ours = [];
  let id = '';
  const own = new EventParser(block => {
    id = block.id ?? id;
    if (block.data !== undefined) ours.push({ event: block.event, data: block.data, id });
  });
  for (const piece of cut(bytes, chance(SEED + 1))) own.push(piece);
  same('this client', ours, expected);

  const theirs = [];
  const parser = createParser({
    onEvent: ({ event = 'message', data, id }) => theirs.push({ event, data, id }),
  });
  const decoder = new TextDecoder();
  for (const piece of cut(bytes, chance(SEED + 2))) parser.feed(decoder.decode(piece, { stream: true }));
  same('eventsource-parser', theirs, expected);

  // Node's own reads from a socket.
  const server = createServer(async (request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (const piece of cut(bytes, chance(SEED + 3))) {
      if (!response.write(piece)) await once(response, 'drain');
    }
    response.end();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const script = fileURLToPath(new URL('undici-events.js', import.meta.url));
  const address = `http://127.0.0.1:${server.address().port}/`;
  const child = spawn(process.execPath, ['--experimental-eventsource', '--no-warnings', script, address, ...NAMES], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const nodes = [];
  for await (const line of createInterface(child.stdout)) nodes.push(JSON.parse(line));
  server.close();
  same('undici', nodes, expected);
  console.log(`${expected.length} events, ${bytes.length} bytes, seed ${SEED}`);
});
