import { formatAgo, formatCount, formatDate, formatSessions } from './format.js';
import { t } from './i18n.js';
import { patchChildren } from './patch.js';
import { poll } from './polling.js';
import { create, createEmpty, createLoading, createTable } from './ui.js';

const EVERY_MS = 2_000;
/** A live node is heard of each second. */
const SILENT_MS = 4_000;
/** Time for which a node is shown that has left. */
const GONE_MS = 10 * 60_000;

/** Nodes that were seen, by name, with the time of the last answer that had them. */
const seen = new Map();

/**
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountNodes(view, { api, sampler, signal }) {
  const box = create('div', {}, createLoading());
  view.append(box);

  poll(refresh, EVERY_MS, signal);

  async function refresh() {
    let answer;
    try {
      answer = await api.call('GET', 'nodes', { signal });
    } catch (error) {
      if (!signal.aborted && box.querySelector('table') === null) {
        patchChildren(box, [createEmpty(t('The nodes cannot be listed.'), error.message)]);
      }
      return;
    }
    const now = Date.now();
    for (const { node } of answer.nodes) seen.set(node, now);
    const gone = [...seen].filter(([node, at]) => now - at < GONE_MS && !answer.nodes.some((each) => each.node === node));
    const all = answer.nodes.reduce((sum, { sessions }) => sum + sessions, 0);
    const rows = answer.nodes.map((node) => createRow(node, answer.node, all));
    rows.push(...gone.map(([node, at]) => createGoneRow(node, now - at)));
    const note = answer.problem ? t('Only the node that answers is listed: {0}.', answer.problem) : '';
    patchChildren(box, [
      ...(note ? [create('p', { class: 'note', text: note })] : []),
      create(
        'section',
        { class: 'card' },
        create(
          'div',
          { class: 'card-head' },
          create('h2', { class: 'card-title', text: answer.nodes.length === 1 ? t('1 node') : t('{0} nodes', answer.nodes.length) }),
          create('span', { class: 'hint', text: formatSessions(all) }),
        ),
        createTable(t('Nodes'), [t('Node'), t('State'), t('Sessions'), t('Share'), t('Last heard of')], rows),
      ),
      createOwn(sampler.samples.findLast((sample) => sample.stats)?.stats),
    ]);
  }
}

function createRow({ node, sessions, silence }, own, all) {
  const silent = silence > SILENT_MS;
  const state = silent ? t('silent') : t('up');
  return [
    createName(node, node === own),
    create('span', { class: 'pill', text: state, data: { state: silent ? 'warn' : 'ok' } }),
    create('span', { class: 'number', text: formatCount(sessions) }),
    createShare(all ? sessions / all : 0),
    formatAgo(silence < SILENT_MS ? 0 : silence),
  ];
}

function createGoneRow(node, silence) {
  const state = create('span', { class: 'pill', text: t('gone'), data: { state: 'bad' } });
  return [createName(node, false), state, '–', '–', formatAgo(silence)];
}

function createName(node, own) {
  return create('span', { class: 'name' }, create('span', { class: 'mono', text: node }), own ? create('span', { class: 'tag', text: t('this one') }) : null);
}

function createShare(part) {
  const percent = Math.round(part * 100);
  const bar = create('meter', { class: 'share', attributes: { min: 0, max: 1, value: part.toFixed(2), 'aria-hidden': 'true' } });
  return create('span', { class: 'share-box' }, bar, create('span', { class: 'number', text: `${percent} %` }));
}

function createOwn(stats) {
  if (!stats) return create('div');
  const facts = [
    [t('Node'), stats.node],
    [t('Version'), stats.version],
    [t('Started'), formatDate(new Date(stats.startedAt))],
    [t('Bus'), stats.bus === 'redis' ? 'Redis' : t('in memory')],
    [t('Presence'), { off: t('off'), local: t('of this node'), redis: t('of the cluster') }[stats.presence]],
    ['WebSocket', formatSessions(stats.sessions.websocket)],
    ['SSE', formatSessions(stats.sessions.sse)],
    [t('Delivery'), stats.ready ? t('messages arrive') : stats.problem],
  ];
  return create(
    'section',
    { class: 'card' },
    create('div', { class: 'card-head' }, create('h2', { class: 'card-title', text: t('The node that answers') })),
    create('dl', { class: 'facts' }, ...facts.map(([name, value]) => create('div', {}, create('dt', { text: name }), create('dd', { text: value })))),
  );
}
