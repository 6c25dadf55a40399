import { t } from './i18n.js';
import { byId, perform } from './ui.js';

/**
 * @param {import('./session.js').Session} session
 * @returns {(message: import('./message.js').Message) => void} shows one status
 */
export function mountOrder(session) {
  const steps = [...byId('order-steps').children];
  let orderNo = null;

  for (const button of document.querySelectorAll('[data-status]')) {
    const set = () => send(button.dataset.status);
    button.addEventListener('click', () => perform(byId('order-result'), set, button));
  }

  /** A payment opens a new order; the later steps continue the last one. */
  async function send(status) {
    const body = status === 'paid' || !orderNo ? { status } : { status, orderNo };
    const sent = await session.call('POST', 'demo/order', body);
    orderNo = sent.orderNo;
    return sent.position
      ? t('{0} sent at position {1}.', sent.orderNo, sent.position)
      : t('{0} sent.', sent.orderNo);
  }

  return ({ data }) => {
    orderNo = data.orderNo;
    byId('order-number').textContent = data.orderNo;
    const reached = steps.findIndex((step) => step.dataset.step === data.status);
    steps.forEach((step, index) => {
      step.dataset.reached = index <= reached;
    });
  };
}
