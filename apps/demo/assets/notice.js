import { t } from './i18n.js';
import { showToast } from './toast.js';
import { byId, perform } from './ui.js';

/**
 * @param {import('./session.js').Session} session
 * @returns {(message: import('./message.js').Message, transport: import('./message.js').Transport) => void}
 */
export function mountNotice(session) {
  const form = byId('notice-form');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    perform(byId('notice-result'), send, byId('notice-send'));
  });

  async function send() {
    const title = byId('notice-title').value;
    const content = byId('notice-content').value;
    await session.call('POST', 'demo/notice', { title, content });
    form.reset();
    return t('Sent to everybody.');
  }

  return ({ data }, transport) => showToast({ transport, title: data.title, text: data.content });
}
