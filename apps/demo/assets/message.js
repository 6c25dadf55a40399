import { language, t } from './i18n.js';

const number = new Intl.NumberFormat(language);
const amount = new Intl.NumberFormat(language, { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** @typedef {'websocket' | 'sse'} Transport */

/**
 * @typedef {object} Message
 * @property {string} type `text` for a payload which is not one of our JSON messages
 * @property {any} data
 * @property {Date} time
 * @property {string} raw
 * @property {string} payload as it came
 */

/** @typedef {number | string} UserId */
/** @typedef {(userId: UserId) => string} NameOf */

/** @type {Record<string, (data: any, nameOf: NameOf) => string>} */
const SUMMARIES = {
  order: (data) => t('Order {0} is {1}', data.orderNo, t(data.status)),
  notice: (data) => `${data.title}: ${data.content}`,
  approval: (data) => t('{0} {1} by {2}', data.title, t(data.result), data.by.name),
  dashboard: (data) =>
    t('{0} orders, {1} revenue, CPU {2} %', number.format(data.orders), amount.format(data.revenue), data.cpu),
  presence: (data, nameOf) =>
    data.changes.map(({ userId, state }) => t(`{0} is ${state}`, nameOf(userId))).join(', ') ||
    t('Somebody came or went'),
  chat: (data, nameOf) => chatRoute(data, nameOf) + data.text,
};

function chatRoute(data, nameOf) {
  const from = data.from.name;
  return data.to === null ? t('{0} to everyone: ', from) : t('{0} to {1}: ', from, nameOf(data.to));
}

/**
 * @param {string} payload
 * @param {number} [arrived] when it came, unless it is now
 * @returns {Message}
 */
export function parseMessage(payload, arrived = Date.now()) {
  let content = null;
  try {
    content = JSON.parse(payload);
  } catch {
    // Plain text is a valid payload.
  }
  if (typeof content?.type !== 'string') {
    return { type: 'text', data: payload, time: new Date(arrived), raw: payload, payload };
  }
  // Of an object, a date is an error.
  const sent = new Date(typeof content.time === 'string' ? content.time : NaN);
  return {
    type: content.type,
    data: content.data ?? {},
    time: Number.isNaN(sent.getTime()) ? new Date(arrived) : sent,
    raw: JSON.stringify(content, null, 2),
    payload,
  };
}

/**
 * One readable line for a message. A message of a known type that lacks what its scene shows is printed as it is.
 * @param {Message} message
 * @param {NameOf} nameOf
 * @returns {string}
 */
export function summarize({ type, data }, nameOf) {
  if (typeof data === 'string') return data;
  if (!Object.hasOwn(SUMMARIES, type)) return JSON.stringify(data);
  try {
    return SUMMARIES[type](data, nameOf);
  } catch {
    return JSON.stringify(data);
  }
}

/** @param {number} value */
export function formatNumber(value) {
  return number.format(value);
}

/** @param {number} value */
export function formatAmount(value) {
  return amount.format(value);
}
