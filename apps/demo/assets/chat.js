import { byId, create, createTime, perform } from './ui.js';

const LIMIT = 200;

/**
 * @param {import('./session.js').Session} session
 * @param {(data: string) => boolean} sendData hands a message to the WebSocket
 * @returns {(message: import('./message.js').Message) => void} shows one chat message
 */
export function mountChat(session, sendData) {
  const log = byId('chat-log');
  const to = byId('chat-to');
  const text = byId('chat-text');
  const others = session.config.users.filter((user) => user.id !== session.user.id);
  to.append(new Option('Everyone', ''), ...others.map((user) => new Option(user.name, user.id)));

  byId('chat-form').addEventListener('submit', (event) => {
    event.preventDefault();
    perform(byId('chat-result'), send);
  });

  async function send() {
    const recipient = to.value === '' ? null : Number(to.value);
    if (!sendData(JSON.stringify({ type: 'chat', to: recipient, text: text.value }))) {
      throw new Error('Not sent: the WebSocket is not connected.');
    }
    text.value = '';
    return '';
  }

  function route(data) {
    const sender = data.from.id === session.user.id ? 'You' : data.from.name;
    if (data.to === null) return `${sender} to everyone`;
    return `${sender} to ${data.to === session.user.id ? 'you' : session.nameOf(data.to)}`;
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
