import { formatCount, formatSessions } from './format.js';
import { t } from './i18n.js';
import { patchChildren } from './patch.js';
import { poll } from './polling.js';
import { create, createButton, createEmpty, createIcon, createInput, createLoading, createTable } from './ui.js';

const EVERY_MS = 3_000;
const PAGE = 50;

/**
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountUsers(view, { api, signal, query }) {
  const page = Math.max(1, Math.floor(Number(query.get('page'))) || 1);
  const search = createInput({
    id: 'user-search',
    type: 'search',
    maxlength: '128',
    placeholder: t('Find a user by id'),
    'aria-label': t('User id'),
    'aria-describedby': 'search-hint',
    enterkeyhint: 'go',
  });
  const open = createButton(t('Open'));
  open.type = 'submit';
  const form = create(
    'form',
    { class: 'search', attributes: { role: 'search' }, on: { submit: go } },
    create('span', { class: 'search-box' }, createIcon('search'), search, create('kbd', { class: 'key', text: '/', attributes: { 'aria-hidden': 'true' } })),
    open,
  );
  const hint = create('p', { class: 'hint', text: t('Typing filters this page. Enter opens the user, online or not.') });
  hint.id = 'search-hint';
  const box = create('div', {}, createLoading());
  view.append(form, hint, box);

  let answer = null;
  let failure = '';
  search.addEventListener('input', draw);
  search.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    search.value = '';
    draw();
  });
  poll(refresh, EVERY_MS, signal);

  function go(event) {
    event.preventDefault();
    const id = search.value.trim();
    if (id) location.hash = userAddress(id);
    else search.focus();
  }

  async function refresh() {
    try {
      answer = await api.call('GET', `online?page=${page}&size=${PAGE}`, { signal });
      failure = '';
    } catch (error) {
      if (signal.aborted) return;
      failure = error.message;
    }
    draw();
  }

  function draw() {
    if (failure) {
      patchChildren(box, [createEmpty(t('Nobody knows who is online.'), failure)]);
      return;
    }
    if (!answer) return;
    const wanted = search.value.trim().toLowerCase();
    const items = answer.items.filter(({ userId }) => String(userId).toLowerCase().includes(wanted));
    const pages = Math.max(1, Math.ceil(answer.total / PAGE));
    const head = create(
      'div',
      { class: 'card-head' },
      create('h2', { class: 'card-title', text: answer.total === 1 ? t('1 user online') : t('{0} users online', formatCount(answer.total)) }),
      create('span', { class: 'hint', text: formatSessions(answer.sessions) }),
    );
    let list;
    if (items.length) list = createTable(t('Users online'), [t('User'), t('Sessions')], items.map(createRow), {
      form: 'narrow',
      keys: items.map(({ userId }) => userId),
    });
    else if (wanted) list = createEmpty(t('No user of this page matches.'), t('Enter opens “{0}”.', search.value.trim()));
    else if (page > 1) list = createEmpty(t('This page is empty.'), t('Users may have left since.'));
    else list = createEmpty(t('Nobody is online.'), t('Users appear here as soon as they connect.'));
    patchChildren(box, [create('section', { class: 'card' }, head, list, pages > 1 || page > 1 ? createPages(page, pages) : null)]);
  }
}

/** @param {string | number} id */
export function userAddress(id) {
  return `#/user/${encodeURIComponent(id)}`;
}

function createRow({ userId, sessions }) {
  const link = create('a', { class: 'row-link mono', text: userId, attributes: { href: userAddress(userId) } });
  const count = sessions === 0 ? create('span', { class: 'tag', text: t('just left') }) : create('span', { class: 'number', text: formatCount(sessions) });
  return [link, count];
}

function createPages(page, pages) {
  const link = (to, label, icon) => {
    const off = to < 1 || to > pages;
    const attributes = off ? { 'aria-disabled': 'true' } : { href: `#/users?page=${to}` };
    return create('a', { class: 'button', attributes: { ...attributes, 'aria-label': label } }, createIcon(icon));
  };
  return create(
    'nav',
    { class: 'pages', attributes: { 'aria-label': t('Pages') } },
    link(page - 1, t('Previous page'), 'back'),
    create('span', { text: t('{0} of {1}', page, pages) }),
    link(page + 1, t('Next page'), 'next'),
  );
}
