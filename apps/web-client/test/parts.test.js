import assert from 'node:assert/strict';
import { test } from 'node:test';
import { order, StoredCursor } from '../build/cursor.js';
import { verdictOfClose, verdictOfStatus } from '../build/end.js';
import { connect } from '../dist/index.js';

test('positions are compared by number, also beyond 2^53', () => {
  assert.ok(order('7.9', '7.10') < 0);
  assert.ok(order('7.18446744073709551615', '7.18446744073709551614') > 0);
  assert.equal(order('7.3', '7.3'), 0);
  assert.equal(order('7.3', '8.3'), undefined);
});

test('close codes', () => {
  const verdicts = {
    retry: [1001, 1005, 1006, 1011, 1012, 1013, 1015, 3000, 4408, 4429],
    token: [4401],
    refused: [1002, 1003, 1007, 1008, 1009, 4000, 4403, 4409, 4999],
    closed: [1000],
  };
  for (const [verdict, codes] of Object.entries(verdicts)) {
    for (const code of codes) assert.equal(verdictOfClose(code), verdict, `${code}`);
  }
});

test('a bye counts even when the Close frame is lost', () => {
  assert.equal(verdictOfClose(1006, { reason: 'kicked', retry: null }), 'refused');
  assert.equal(verdictOfClose(1006, { reason: 'revoked', retry: null }), 'token');
  assert.equal(verdictOfClose(1006, { reason: 'drain', retry: 2000 }), 'retry');
});

test('HTTP statuses', () => {
  const verdicts = { retry: [200, 404, 429, 500, 502, 503], token: [401], refused: [204, 403] };
  for (const [verdict, codes] of Object.entries(verdicts)) {
    for (const code of codes) assert.equal(verdictOfStatus(code), verdict, `${code}`);
  }
});

test('a storage that refuses is warned about once', t => {
  const warn = t.mock.method(console, 'warn', () => {});
  const broken = { getItem: () => null, setItem: () => { throw new Error('quota'); } };
  const stored = new StoredCursor(broken, 'key');
  assert.equal(stored.read(), null);
  stored.write('7.1');
  stored.write('7.2');
  assert.equal(warn.mock.callCount(), 1);
});

test('a client without a transport says so', () => {
  assert.throws(() => connect({ url: { sse: '/sse' }, token: 'x', transports: ['websocket'] }), /no transport/);
});
