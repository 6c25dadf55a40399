import { t } from './i18n.js';
import { byId, create, createTime, perform } from './ui.js';

const LIMIT = 200;

/**
 * @param {import('./session.js').Session} session
 * @param {(text: string) => void} sendText sends over the WebSocket; throws when there is none
 * @returns {(message: import('./message.js').Message) => void} shows one chat message
 */
export function mountChat(session, sendText) {
  const log = byId('chat-log');
  const to = byId('chat-to');
  const text = byId('chat-text');
  const others = session.config.users.filter((user) => user.id !== session.user.id);
  to.append(new Option(t('Everyone'), ''), ...others.map((user) => new Option(user.name, user.id)));

  byId('chat-form').addEventListener('submit', (event) => {
    event.preventDefault();
    perform(byId('chat-result'), send, byId('chat-send'));
  });

  async function send() {
    const recipient = to.value === '' ? { broadcast: true } : { to: session.userOf(to.value).id };
    try {
      sendText(JSON.stringify({ type: 'chat', ...recipient, text: text.value }));
    } catch {
      throw new Error(t('Not sent: the WebSocket is not connected.'));
    }
    text.value = '';
    return '';
  }

  function route(data) {
    const sender = data.from.id === session.user.id ? t('You') : data.from.name;
    if (data.to === null) return t('{0} to everyone', sender);
    return t('{0} to {1}', sender, data.to === session.user.id ? t('you') : session.nameOf(data.to));
  }

  return ({ data, time }) => {
    const head = create('span', { class: 'chat-head', text: route(data) }, createTime(time));
    const bubble = create('p', { class: 'chat-bubble', text: data.text });
    const own = data.from.id === session.user.id;
    log.append(create('div', { class: 'chat-message', data: { chat: '', own } }, head, bubble));
    if (log.childElementCount > LIMIT) log.firstElementChild.remove();
    log.scrollTop = log.scrollHeight;
  };
}
