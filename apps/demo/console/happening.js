import { createId } from './explanation.js';
import { formatCount, formatPrecise } from './format.js';
import { t } from './i18n.js';
import { create, createTransport } from './ui.js';

/** Kinds of `/api/trace` by what they mean for the user. */
const TONES = {
  connect: 'ok',
  written: 'ok',
  fanout: 'ok',
  live: 'ok',
  behind: 'warn',
  lost: 'warn',
  refused: 'bad',
  dropped: 'bad',
  gap: 'bad',
  close: 'bad',
};

/** Numbers that are amounts, and not codes or ids. */
const QUANTITIES = new Set(['bytes', 'waiting', 'count', 'sessions', 'behind']);

/**
 * One line of a trace.
 * @param {any} happening
 * @param {string} followed the user or topic that all lines are about
 */
export function createHappening({ at, node, kind, transport, sessionId, ...rest }, followed) {
  const details = create('span', { class: 'event-details' });
  if (transport) details.append(createTransport(transport));
  if (sessionId) details.append(createDetail(t('session'), createId(sessionId)));
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || value === undefined || value === false || String(value) === followed) continue;
    details.append(createDetail(name, value === true ? null : create('span', { class: 'mono', text: describe(name, value) })));
  }
  return create(
    'li',
    { class: 'event', data: { kind: kind ?? '', tone: TONES[kind] ?? 'plain' } },
    create('time', { class: 'event-time', text: formatPrecise(at ? new Date(at) : new Date()) }),
    create('span', { class: 'event-kind', text: kind ?? '?' }),
    create('span', { class: 'event-node mono', text: node ?? '' }),
    details,
  );
}

function createDetail(name, value) {
  return create('span', { class: 'detail' }, create('span', { class: 'detail-name', text: name }), value);
}

function describe(name, value) {
  if (typeof value === 'number') return QUANTITIES.has(name) ? formatCount(value) : String(value);
  if (Array.isArray(value)) return value.map((each) => (typeof each === 'object' ? JSON.stringify(each) : each)).join(', ');
  return typeof value === 'object' ? JSON.stringify(value) : value;
}
