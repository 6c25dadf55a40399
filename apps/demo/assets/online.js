import { TRANSPORT_TAGS, byId, create, createTag, initials, setText } from './ui.js';
import { t } from './i18n.js';
import { formatNumber } from './message.js';

const REFRESH_MS = 5_000;
const SETTLE_MS = 100;

/**
 * @param {import('./session.js').Session} session
 * @returns {() => void} refreshes the list
 */
export function mountOnline(session) {
  const list = byId('online-list');
  const total = byId('online-total');
  const failure = byId('online-error');

  // An answer that was overtaken by the next one is old news.
  let asked = 0;
  async function refresh() {
    const mine = ++asked;
    try {
      const online = await session.call('GET', 'demo/online');
      if (mine !== asked) return;
      total.textContent = t('{0} online', online.total);
      list.replaceChildren(...online.items.map(createPerson));
      setText(failure, '');
    } catch (error) {
      setText(failure, error.message);
    }
  }

  function createPerson(item) {
    const you = item.userId === session.user.id;
    const name = you ? t('{0} (you)', item.name) : item.name;
    const left = item.sessions === 0 && !you;
    return create(
      'li',
      { class: 'person', data: { user: item.userId } },
      create('span', { class: 'avatar', text: initials(item.name) }),
      create('span', { class: 'person-name', text: name }),
      ...Object.entries(item.transports)
        .sort()
        .reverse()
        .filter(([, sessions]) => sessions > 0)
        .map(([transport, sessions]) =>
          createTag(transport, `${TRANSPORT_TAGS[transport]} ${formatNumber(sessions)}`),
        ),
      left ? create('span', { class: 'person-note', text: t('just left') }) : createKick(item),
    );
  }

  function createKick({ userId, name }) {
    const kick = create('button', { class: 'button button-small button-danger', text: t('Kick'), data: { kick: userId } });
    kick.type = 'button';
    kick.setAttribute('aria-label', t('End all sessions of {0}', name));
    kick.addEventListener('click', async () => {
      kick.dataset.busy = '';
      try {
        await session.call('POST', 'demo/kick', { userId });
      } catch (error) {
        setText(failure, error.message);
        delete kick.dataset.busy;
      }
    });
    return kick;
  }

  // Both connections tell of the same change, and changes come in crowds.
  let waiting = null;
  function refreshSoon() {
    waiting ??= setTimeout(() => {
      waiting = null;
      refresh();
    }, SETTLE_MS);
  }

  refresh();
  const timer = setInterval(refresh, REFRESH_MS);
  session.signal.addEventListener('abort', () => {
    clearInterval(timer);
    clearTimeout(waiting);
  });
  return refreshSoon;
}
