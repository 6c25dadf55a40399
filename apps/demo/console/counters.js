import { t } from './i18n.js';

/** The counters of `/api/stats`, by subject: their places in the answer and what they are called. */
export const COUNTERS = [
  {
    title: t('Messages'),
    counters: [
      ['published', t('Published by this node')],
      ['received', t('Received from the bus')],
      ['delivered', t('Delivered live')],
      ['replayed', t('Replayed to catch up')],
    ],
  },
  {
    title: t('Not delivered'),
    counters: [
      ['gaps', t('Gaps announced')],
      ['gapsUnreported', t('Gaps nobody was told of')],
      ['expired', t('Expired (ttl)')],
      ['collapsed', t('Replaced by a newer one')],
      ['droppedOldest', t('Dropped, oldest of a class')],
      ['localDropped', t('Local sends dropped')],
      ['publishesRefused', t('Publishes refused, too large')],
    ],
  },
  {
    title: t('Sessions'),
    counters: [
      ['opened', t('Opened')],
      ['closed', t('Closed')],
      ['slowConsumers', t('Closed, reading too slowly')],
      ['catchUps', t('Fell behind and caught up')],
      ['endedByLimit.rateLimited', t('Ended, sent too fast')],
      ['endedByLimit.tooBig', t('Ended, sent too much')],
      ['endedByLimit.tooManySessions', t('Ended, too many sessions')],
    ],
  },
  {
    title: t('Refused connections'),
    counters: [
      ['refused', t('All')],
      ['refusedBy.kicked', t('Kicked or revoked')],
      ['refusedBy.node', t('Node full')],
      ['refusedBy.user', t('Too many of a user')],
      ['refusedBy.address', t('Too many of an address')],
      ['refusedBy.nodeRate', t('Too fast, node')],
      ['refusedBy.addressRate', t('Too fast, address')],
      ['refusedBy.starting', t('Node starting')],
      ['refusedBy.behind', t('Node behind the others')],
      ['refusedBy.draining', t('Node draining')],
    ],
  },
];
