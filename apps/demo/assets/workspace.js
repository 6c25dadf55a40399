import { mountAnswer } from './answer.js';
import { mountApproval } from './approval.js';
import { Badge } from './badge.js';
import { mountChat } from './chat.js';
import { mountDashboard } from './dashboard.js';
import { Feed } from './feed.js';
import { parseMessage, summarize } from './message.js';
import { mountNotice } from './notice.js';
import { mountOnline } from './online.js';
import { mountOrder } from './order.js';
import { SseConnection } from './sse.js';
import { announce, byId, initials } from './ui.js';
import { WebSocketConnection } from './websocket.js';

/** Types which are too frequent to be read aloud, or which their own card already reads aloud. */
const SILENT_TYPES = new Set(['dashboard', 'presence', 'chat']);

/** The page of a signed-in user: made anew for every session, so nothing of the last user stays. */
export class Workspace {
  #session;
  #root;
  #feed;
  #scenes;
  #websocket = null;
  #sse = null;

  /**
   * @param {import('./session.js').Session} session
   * @param {{onSignOut: () => void, onSessionOver: () => void}} events
   */
  constructor(session, { onSignOut, onSessionOver }) {
    this.#session = session;
    const page = byId('workspace-template').content.cloneNode(true);
    this.#root = page.firstElementChild;
    document.body.append(page);

    this.#feed = new Feed((id) => session.nameOf(id));
    this.#scenes = new Map([
      ['order', mountOrder(session)],
      ['notice', mountNotice(session)],
      ['approval', mountApproval(session)],
      ['dashboard', mountDashboard(session)],
      ['presence', mountOnline(session)],
      ['chat', mountChat(session, (data) => this.#websocket?.send(data) ?? false)],
    ]);
    mountAnswer(session);

    this.#showHeader();
    byId('sign-out').addEventListener('click', onSignOut);
    this.#createConnections(onSessionOver);
  }

  start() {
    this.#websocket?.start();
    this.#sse?.start();
  }

  stop() {
    this.#websocket?.stop();
    this.#sse?.stop();
  }

  wake() {
    this.#websocket?.wake();
  }

  remove() {
    this.stop();
    this.#root.remove();
  }

  #showHeader() {
    const { config, user } = this.#session;
    document.title = `${user.name} · realtime`;
    byId('node').textContent = `node ${config.node} · v${config.version}`;
    byId('current-user').textContent = user.name;
    this.#root.querySelector('.account .avatar').textContent = initials(user.name);
  }

  #createConnections(onSessionOver) {
    const { config, token } = this.#session;
    const websocketBadge = new Badge('websocket', 'WebSocket', () => this.#websocket.start());
    const sseBadge = new Badge('sse', 'SSE', () => this.#sse.start());

    if (config.websocket.enabled) {
      this.#websocket = new WebSocketConnection({
        path: config.websocket.path,
        token,
        onSessionOver,
        ...this.#handlers('websocket', websocketBadge),
      });
    } else {
      websocketBadge.show('disabled');
    }
    if (config.sse.enabled) {
      this.#sse = new SseConnection({ path: config.sse.path, token, ...this.#handlers('sse', sseBadge) });
    } else {
      sseBadge.show('disabled');
    }
  }

  #handlers(transport, badge) {
    return {
      onState: (state, detail) => {
        badge.show(state, detail);
        // Who came and went meanwhile is not replayed, and one's own new session is no news to others.
        if (state === 'connected') this.#scenes.get('presence')();
      },
      onMessage: (payload) => this.#receive(transport, payload),
      onGap: (reason) => {
        this.#feed.addGap(transport, reason);
        announce('Some messages may have been missed');
      },
    };
  }

  #receive(transport, payload) {
    const message = parseMessage(payload);
    this.#feed.addMessage(transport, message);
    this.#scenes.get(message.type)?.(message, transport);
    if (!SILENT_TYPES.has(message.type)) {
      announce(summarize(message, (id) => this.#session.nameOf(id)));
    }
  }
}
