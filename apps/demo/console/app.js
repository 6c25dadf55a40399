import { Api } from './api.js';
import { language, t, translate } from './i18n.js';
import { mountExplain } from './explain.js';
import { mountGate, showGate } from './gate.js';
import { mountNodes } from './nodes.js';
import { mountOverview } from './overview.js';
import { mountPublish } from './publish.js';
import { Sampler } from './sampler.js';
import { mountTrace } from './trace.js';
import { byId, create, createIcon, setText } from './ui.js';
import { mountUser } from './user.js';
import { mountUsers } from './users.js';

const KEY = 'realtime.console.key';

/**
 * What a view needs.
 * @typedef {object} Context
 * @property {Api} api
 * @property {Sampler} sampler
 * @property {AbortSignal} signal ends with the view
 * @property {string} argument the rest of the address, such as a user's id
 * @property {URLSearchParams} query
 * @property {(title: string) => void} setTitle
 */

const VIEWS = {
  overview: { title: () => t('Overview'), mount: mountOverview },
  nodes: { title: () => t('Nodes'), mount: mountNodes },
  users: { title: () => t('Users'), mount: mountUsers },
  user: { title: (id) => t('User {0}', id), mount: mountUser, parent: 'users' },
  publish: { title: () => t('Publish'), mount: mountPublish },
  explain: { title: () => t('Explain'), mount: mountExplain },
  trace: { title: () => t('Trace'), mount: mountTrace },
};

let session = null;
let viewEnd = null;

document.documentElement.lang = language;
translate(document.body);
mountGate(async (key) => {
  // The first question shows whether the key is right.
  await new Api(key, () => {}).call('GET', 'stats');
  sessionStorage.setItem(KEY, key);
  enter(key);
  byId('title').focus();
});
mountFrame();

const stored = sessionStorage.getItem(KEY);
if (stored) enter(stored);
else showGate('');

function enter(key) {
  const end = new AbortController();
  const api = new Api(key, (why) => leave(why));
  session = { api, end, sampler: new Sampler(api, end.signal) };
  session.sampler.addEventListener('sample', showState);
  byId('gate').hidden = true;
  byId('shell').hidden = false;
  show();
}

function leave(why) {
  if (!session) return;
  sessionStorage.removeItem(KEY);
  session.end.abort();
  viewEnd?.abort();
  session = null;
  byId('view').replaceChildren();
  byId('shell').hidden = true;
  document.title = t('realtime console');
  showGate(why);
}

function mountFrame() {
  const links = Object.entries(VIEWS).filter(([, { parent }]) => !parent);
  byId('nav').append(
    ...links.map(([name, { title }]) => {
      const link = create('a', { class: 'nav-link', attributes: { href: `#/${name}` } }, createIcon(name), create('span', { text: title() }));
      link.id = `nav-${name}`;
      return link;
    }),
  );
  byId('lock').addEventListener('click', () => leave(''));
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    byId('view').focus();
  });
  addEventListener('hashchange', () => {
    if (!session) return;
    show();
    byId('title').focus({ preventScroll: true });
  });
  addEventListener('keydown', (event) => {
    const typing = event.target instanceof Element && event.target.closest('input, textarea, select, dialog');
    if (event.key !== '/' || typing || !session || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (route().name !== 'users') location.hash = '#/users';
    // The view is shown when the address has changed.
    setTimeout(() => byId('user-search')?.focus());
  });
}

/** The view that the address names: `#/user/42?…`. */
function route() {
  const [path, query] = location.hash.replace(/^#\//, '').split('?');
  const [name, ...rest] = path.split('/');
  const argument = decode(rest.join('/'));
  return { name: Object.hasOwn(VIEWS, name) ? name : 'overview', argument, query: new URLSearchParams(query) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  viewEnd?.abort();
  viewEnd = new AbortController();
  const { name, argument, query } = route();
  const { title, mount, parent } = VIEWS[name];
  const view = byId('view');
  view.replaceChildren();
  view.dataset.view = name;
  const setTitle = (text) => {
    byId('title').textContent = text;
    document.title = `${text} · ${t('realtime console')}`;
  };
  setTitle(title(argument));
  for (const link of byId('nav').children) {
    if (link.id === `nav-${parent ?? name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  scrollTo(0, 0);
  mount(view, { api: session.api, sampler: session.sampler, signal: viewEnd.signal, argument, query, setTitle });
}

function showState() {
  const { failure, samples, last } = session.sampler;
  setText(byId('outage'), failure && `${failure} ${t('Trying again…')}`);
  document.documentElement.dataset.stale = String(failure !== '');
  const health = byId('health');
  const state = failure ? 'bad' : last.stats?.ready ? 'ok' : 'warn';
  if (health.dataset.state !== state) {
    health.dataset.state = state;
    health.textContent = { bad: t('no answer'), ok: t('ready'), warn: t('not ready') }[state];
  }
  health.title = last.stats?.problem ?? '';
  const stats = samples.findLast((sample) => sample.stats)?.stats;
  if (!stats) return;
  byId('side-node').textContent = stats.node;
  byId('side-version').textContent = `v${stats.version}`;
}
