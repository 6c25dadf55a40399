import { confirm } from './dialog.js';
import { showExplanation } from './explain.js';
import { formatAgo, formatDate, formatSessions } from './format.js';
import { t } from './i18n.js';
import { patchChildren } from './patch.js';
import { poll } from './polling.js';
import { create, createButton, createEmpty, createField, createIcon, createInput, createLoading, createTable, createTransport, toast } from './ui.js';

const EVERY_MS = 3_000;

/**
 * One user: sessions, kicks, and why messages arrived or did not.
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountUser(view, { api, signal, argument: id }) {
  const path = `online/${encodeURIComponent(id)}`;
  const state = create('span', { class: 'pill' });
  const kickAll = createButton(t('Kick'), { class: 'button-danger', click: () => kick(null), data: { kick: 'all' } });
  const box = create('div', {}, createLoading());
  const explained = create('div', { class: 'stack' });
  const explain = createButton(t('Explain'), { click: runExplain, data: { action: 'explain' } });
  view.append(
    create(
      'div',
      { class: 'bar' },
      create('a', { class: 'button button-quiet', attributes: { href: '#/users', 'aria-label': t('All users') } }, createIcon('back')),
      state,
      create(
        'div',
        { class: 'bar-end' },
        create('a', { class: 'button', text: t('Publish'), attributes: { href: `#/publish?user=${encodeURIComponent(id)}` } }),
        create('a', { class: 'button', text: t('Trace'), attributes: { href: `#/trace?user=${encodeURIComponent(id)}` } }),
        explain,
        kickAll,
      ),
    ),
    box,
    explained,
  );
  const refresh = poll(load, EVERY_MS, signal);

  async function load() {
    try {
      draw(await api.call('GET', path, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      state.hidden = true;
      patchChildren(box, [createEmpty(t('The sessions cannot be listed.'), error.message)]);
    }
  }

  function draw({ online, sessions }) {
    state.hidden = false;
    state.dataset.state = online ? 'ok' : 'off';
    state.textContent = online ? t('online') : t('offline');
    if (!sessions.length) {
      patchChildren(box, [createEmpty(t('No session.'), t('This user is not connected to any node.'))]);
      return;
    }
    patchChildren(box, [
      create(
        'section',
        { class: 'card' },
        create('div', { class: 'card-head' }, create('h2', { class: 'card-title', text: formatSessions(sessions.length) })),
        createTable(
          t('Sessions'),
          [t('Transport'), t('Session'), t('Node'), t('Client'), t('Connected'), ''],
          sessions.map(createRow),
          { keys: sessions.map(({ sessionId }) => sessionId) },
        ),
      ),
    ]);
    for (const button of box.querySelectorAll('[data-session]')) {
      button.onclick = () => kick(button.dataset.session);
    }
  }

  function createRow(session) {
    const since = new Date(session.since);
    const time = create('time', { text: formatAgo(Date.now() - since.getTime()), attributes: { title: formatDate(since) } });
    time.dateTime = session.since;
    const end = createButton(t('Kick'), {
      class: 'button-small',
      data: { session: session.sessionId },
      attributes: { 'aria-label': t('Kick session {0}', session.sessionId) },
    });
    return [
      createTransport(session.transport),
      create('span', { class: 'mono', text: session.sessionId }),
      create('span', { class: 'mono', text: session.node }),
      session.clientId ?? '–',
      time,
      end,
    ];
  }

  async function kick(session) {
    const message = createInput({ name: 'message', maxlength: '2000' });
    const sure = await confirm({
      title: session ? t('Kick this session?') : t('Kick user {0}?', id),
      text: session
        ? t('It ends together with all sessions of its login, on every node. The login is refused from now on.')
        : t('All sessions of this user end, on every node. The logins that they used are refused from now on.'),
      action: t('Kick'),
      field: session ? create('p', { class: 'mono', text: session }) : createField(t('Last message (optional)'), message),
    });
    if (!sure) return;
    try {
      const body = !session && message.value ? { message: message.value } : undefined;
      const query = session ? `?sessionId=${encodeURIComponent(session)}` : '';
      const { closed, unconfirmed = [] } = await api.call('DELETE', path + query, { body });
      if (unconfirmed.length) toast(t('{0} sessions ended; no answer yet from {1}.', closed, unconfirmed.join(', ')), 'failed');
      else toast(closed === 1 ? t('1 session ended.') : t('{0} sessions ended.', closed));
    } catch (error) {
      toast(error.message, 'failed');
    }
    refresh();
  }

  async function runExplain() {
    explain.disabled = true;
    patchChildren(explained, [createLoading()]);
    await showExplanation(explained, { api, signal }, id);
    explain.disabled = false;
  }
}
