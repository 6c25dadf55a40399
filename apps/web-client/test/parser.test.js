import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventParser } from '../build/parser.js';

/** A source of chance that a seed repeats (mulberry32). */
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function parse(...chunks) {
  const blocks = [];
  const parser = new EventParser(block => blocks.push(block));
  for (const chunk of chunks) parser.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
  return blocks;
}

test('blocks of the server', () => {
  const stream =
    ':connected\nretry:3412\nid:7.0\n\nevent:order\nid:7.1\ndata:line one\ndata:line two\n\n:heartbeat\nid:7.1\n\n:disconnected\nretry:2097\n\n';
  assert.deepEqual(parse(stream), [
    { event: 'message', comment: 'connected', retry: 3412, id: '7.0' },
    { event: 'order', id: '7.1', data: 'line one\nline two' },
    { event: 'message', comment: 'heartbeat', id: '7.1' },
    { event: 'message', comment: 'disconnected', retry: 2097 },
  ]);
});

test('one space after the colon is dropped, and fields without a colon are empty', () => {
  assert.deepEqual(parse('data:  two\ndata\nunknown: x\nid: 7.1\n\n'), [{ event: 'message', data: ' two\n', id: '7.1' }]);
});

test('an id with NUL and a retry that is no number do not count', () => {
  assert.deepEqual(parse('id:a\0b\nretry:1s\ndata:x\n\n'), [{ event: 'message', data: 'x' }]);
});

test('a block that the end cuts off is not delivered', () => {
  assert.deepEqual(parse('data:whole\n\ndata:half\n'), [{ event: 'message', data: 'whole' }]);
});

test('a byte order mark is dropped, but only the first', () => {
  assert.deepEqual(parse('\ufeffdata:x\n\n\ufeffdata:y\n\n'), [{ event: 'message', data: 'x' }]);
});

test('a CR and the LF of the next chunk are one end of line', () => {
  assert.deepEqual(parse('data:x\r', '\ndata:y\r', '', '\n\r', '\n'), [{ event: 'message', data: 'x\ny' }]);
});

test('any stream, cut anywhere, with any ends of lines, gives its blocks', () => {
  const pieces = ['a', ' ', ':', 'é', '你好', '😀', '\u2028', 'data:', '\ufeff', '0', 'x'.repeat(50)];
  for (let seed = 0; seed < 500; seed++) {
    const random = chance(seed);
    const pick = list => list[Math.floor(random() * list.length)];
    const text = () => Array.from({ length: Math.floor(random() * 6) }, () => pick(pieces)).join('');
    const expected = [];
    let stream = random() < 0.5 ? '\ufeff' : '';
    // A LF behind a CR would be the rest of it, not a blank line.
    const line = content => (stream += content + pick(stream.endsWith('\r') && !content ? ['\r', '\r\n'] : ['\n', '\r', '\r\n']));
    for (let block = Math.floor(random() * 8); block >= 0; block--) {
      const made = { event: 'message' };
      if (random() < 0.3) line(`:${(made.comment = text())}`);
      if (random() < 0.5) line(`event:${(made.event = 'e' + text())}`);
      if (random() < 0.5) line(`id:${(made.id = `${block}.${seed}`)}`);
      const data = Array.from({ length: Math.floor(random() * 3) }, text);
      for (const part of data) line(`data: ${part}`);
      if (data.length) made.data = data.join('\n');
      // The comment's own space is dropped.
      if (made.comment !== undefined) made.comment = made.comment.replace(/^ /, '');
      line('');
      if (made.event !== 'message' || Object.keys(made).length > 1) expected.push(made);
    }
    const bytes = Buffer.from(stream);
    const chunks = [];
    for (let at = 0; at < bytes.length; ) {
      const size = Math.floor(random() * random() * 20);
      chunks.push(bytes.subarray(at, at + size));
      at += size;
    }
    assert.deepEqual(parse(...chunks), expected, `seed ${seed}: ${JSON.stringify(stream)}`);
  }
});
