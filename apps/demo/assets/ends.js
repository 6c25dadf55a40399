import { t } from './i18n.js';

/** A reconnect that is farther away is none: the server has said not to come back. */
const FOR_GOOD_MS = 3_600_000;

/** Reasons after which this login, or this page, has no sessions any more. */
const OVER = new Map([
  ['kicked', 'an administrator ended it'],
  ['revoked', 'the login was revoked'],
  ['token-expired', 'the login has expired'],
  ['too-many-sessions', 'you signed in anew somewhere else'],
]);

/** Reasons after which a connection comes back: while it is away, and once it is back. */
const PASSING = new Map([
  ['drain', ['The server is restarting.', 'The server was restarted.']],
  ['no-pong', ['The connection was silent for too long.', 'The connection was silent for too long.']],
  ['slow-consumer', ['This page read too slowly.', 'This page read too slowly.']],
  ['rate-limited', ['This page sent too much.', 'This page sent too much.']],
]);

const LOST = ['The connection is lost.', 'The connection was lost.'];

/** What the server says of logins that it refuses, by words in it. */
const REFUSED = [
  [/administrator/, 'an administrator ended it'],
  [/revoked/, 'the login was revoked'],
  [/expired/, 'the login has expired'],
];

/**
 * Why a login is over, as the end of one of its connections tells it, or the refusal of a request.
 * @param {import('@realtime/client').Status} status
 * @returns {string | null} `''` if nobody says why, `null` if it is not over
 */
export function endOfLogin({ state, code, reason, until }) {
  if (state === 'waiting') return until - Date.now() > FOR_GOOD_MS ? t(OVER.get('too-many-sessions')) : null;
  if (state !== 'refused' && state !== 'closed') return null;
  if (OVER.has(reason)) return t(OVER.get(reason));
  // A stream is told by its status alone, and this one means kicked or revoked.
  if (code === 204) return t(OVER.get('kicked'));
  if (code !== 401) return null;
  const known = REFUSED.find(([words]) => words.test(reason));
  return known ? t(known[1]) : '';
}

/**
 * Why a connection is away that comes back.
 * @param {string} reason
 * @returns {{known: boolean, now: string, then: string}} a sentence for now, and one for later
 */
export function passingEnd(reason) {
  const [now, then] = PASSING.get(reason) ?? LOST;
  return { known: PASSING.has(reason), now: t(now), then: t(then) };
}
