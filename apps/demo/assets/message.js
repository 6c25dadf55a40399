const number = new Intl.NumberFormat('en');
const amount = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** @typedef {'websocket' | 'sse'} Transport */

/**
 * @typedef {object} Message
 * @property {string} type `text` for a payload which is not one of our JSON messages
 * @property {any} data
 * @property {Date} time
 * @property {string} raw
 */

/** @typedef {(userId: number) => string} NameOf */

/** @type {Record<string, (data: any, nameOf: NameOf) => string>} */
const SUMMARIES = {
  order: (data) => `Order ${data.orderNo} is ${data.status}`,
  notice: (data) => `${data.title}: ${data.content}`,
  approval: (data) => `${data.title} ${data.result} by ${data.by?.name}`,
  dashboard: (data) =>
    `${number.format(data.orders)} orders, ${amount.format(data.revenue)} revenue, CPU ${data.cpu} %`,
  presence: (data, nameOf) =>
    data.changes.map(({ userId, state }) => `${nameOf(userId)} is ${state}`).join(', ') || 'Somebody came or went',
  chat: (data, nameOf) =>
    `${data.from?.name} to ${data.to === null ? 'everyone' : nameOf(data.to)}: ${data.text}`,
  text: (data) => (typeof data === 'string' ? data : JSON.stringify(data)),
};

/**
 * @param {string} payload
 * @returns {Message}
 */
export function parseMessage(payload) {
  let content = null;
  try {
    content = JSON.parse(payload);
  } catch {
    // Plain text is a valid payload.
  }
  if (typeof content?.type !== 'string') {
    return { type: 'text', data: payload, time: new Date(), raw: payload };
  }
  const sent = new Date(content.time);
  return {
    type: content.type,
    data: content.data ?? {},
    time: Number.isNaN(sent.getTime()) ? new Date() : sent,
    raw: JSON.stringify(content, null, 2),
  };
}

/**
 * One readable line for a message.
 * @param {Message} message
 * @param {NameOf} nameOf
 * @returns {string}
 */
export function summarize(message, nameOf) {
  if (!Object.hasOwn(SUMMARIES, message.type)) return JSON.stringify(message.data);
  return SUMMARIES[message.type](message.data, nameOf);
}

/** @param {number} value */
export function formatNumber(value) {
  return number.format(value);
}

/** @param {number} value */
export function formatAmount(value) {
  return amount.format(value);
}
