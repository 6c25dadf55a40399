import { mountAnswer } from './answer.js';
import { mountApproval } from './approval.js';
import { Badge } from './badge.js';
import { Channel } from './channel.js';
import { mountChat } from './chat.js';
import { mountDashboard } from './dashboard.js';
import { Feed } from './feed.js';
import { t } from './i18n.js';
import { mountJump } from './jump.js';
import { parseMessage, summarize } from './message.js';
import { mountNotice } from './notice.js';
import { mountOnline } from './online.js';
import { mountOrder } from './order.js';
import { Outage } from './outage.js';
import { announce, byId, initials } from './ui.js';

/** Types which are too frequent to be read aloud, or which their own card already reads aloud. */
const SILENT_TYPES = new Set(['dashboard', 'presence', 'chat']);

/** Types whose cards go on after a reload where they were. */
const KEPT_TYPES = new Set(['order', 'chat']);

/** The page of a signed-in user: made anew for every session, so nothing of the last user stays. */
export class Workspace {
  #session;
  #root;
  #feed;
  #scenes;
  #follow;
  #outage;
  #leaveJump;
  #channels = new Map();

  /**
   * @param {import('./session.js').Session} session
   * @param {{onSignOut: () => void, onSessionOver: (why: string) => void}} events
   */
  constructor(session, { onSignOut, onSessionOver }) {
    this.#session = session;
    const page = byId('workspace-template').content.cloneNode(true);
    this.#root = page.firstElementChild;
    document.body.append(page);

    this.#feed = new Feed((id) => session.nameOf(id), `realtime.feed.${session.user.id}`);
    this.#scenes = new Map([
      ['order', mountOrder(session)],
      ['notice', mountNotice(session)],
      ['approval', mountApproval(session)],
      ['dashboard', mountDashboard(session)],
      ['presence', mountOnline(session)],
      ['chat', mountChat(session, (text) => this.#channels.get('websocket').send(text))],
    ]);

    for (const message of this.#feed.messages) {
      if (KEPT_TYPES.has(message.type)) this.#play(message);
    }

    this.#showHeader();
    this.#outage = new Outage();
    this.#leaveJump = mountJump();
    byId('sign-out').addEventListener('click', onSignOut);
    for (const [transport, name] of [['websocket', 'WebSocket'], ['sse', 'SSE']]) {
      this.#open(transport, name, onSessionOver);
    }
    this.#follow = mountAnswer(session);
  }

  start() {
    for (const channel of this.#channels.values()) channel.start();
    this.#followAnswer();
  }

  /** Either transport brings the answer. */
  #followAnswer() {
    const channel = this.#channels.get('sse') ?? this.#channels.get('websocket');
    if (channel) this.#follow(channel.connection);
  }

  stop() {
    this.#feed.store();
    for (const channel of this.#channels.values()) channel.stop();
  }

  remove() {
    for (const channel of this.#channels.values()) channel.stop();
    this.#leaveJump();
    this.#root.remove();
  }

  #showHeader() {
    const { config, user } = this.#session;
    document.title = `${user.name} · realtime`;
    byId('node').textContent = t('node {0} · v{1}', config.node, config.version);
    byId('current-user').textContent = user.name;
    this.#root.querySelector('.account .avatar').textContent = initials(user.name);
  }

  #open(transport, name, onSessionOver) {
    const { enabled, path } = this.#session.config[transport];
    const badge = new Badge(transport, name, () => {
      this.#channels.get(transport).start();
      this.#followAnswer();
    });
    if (!enabled) {
      badge.show('disabled');
      return;
    }
    const channel = new Channel({
      transport,
      path,
      session: this.#session,
      onSessionOver,
      onState: (state, detail) => {
        badge.show(state, detail);
        if (state === 'connected') this.#outage.end(name);
        // Who came and went meanwhile is not replayed, and one's own new session is no news to others.
        if (state === 'connected') this.#scenes.get('presence')();
      },
      onAway: (end) => this.#outage.begin(name, end),
      onMessage: (message) => this.#receive(transport, message),
      onGap: (reason) => {
        this.#feed.addGap(transport, reason);
        announce(t('Some messages may have been missed'));
      },
    });
    this.#channels.set(transport, channel);
  }

  /** Hands a message to its card. Whoever may publish may publish what no card can show. */
  #play(message, transport) {
    try {
      this.#scenes.get(message.type)?.(message, transport);
    } catch (error) {
      console.warn('realtime: the card cannot show', message, error);
    }
  }

  #receive(transport, { id, event, data }) {
    // The answer's card shows these.
    if (event === 'realtime.stream') return;
    const message = parseMessage(data);
    this.#feed.addMessage(transport, id, message);
    this.#play(message, transport);
    if (!SILENT_TYPES.has(message.type)) {
      announce(summarize(message, (user) => this.#session.nameOf(user)));
    }
  }
}
