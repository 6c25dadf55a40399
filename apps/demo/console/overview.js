import { Chart, Strip } from './chart.js';
import { COUNTERS } from './counters.js';
import { formatCount, formatDuration, formatRate } from './format.js';
import { t } from './i18n.js';
import { create } from './ui.js';

/** Lag of the bus that is worth a word. */
const LAG_MS = 3_000;

/**
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountOverview(view, { sampler, signal }) {
  const tiles = {
    connections: new Tile(t('Connections')),
    users: new Tile(t('Users online')),
    delivered: new Tile(t('Deliveries')),
    published: new Tile(t('Published')),
    bus: new Tile(t('Bus')),
    uptime: new Tile(t('Uptime')),
  };
  const of = (read) => (sample) => (sample.stats ? read(sample.stats) : null);
  const rate = (name) => (sample) => sample.rates[name];
  const charts = [
    new Chart(
      t('Connections'),
      [
        { label: 'WebSocket', color: 'blue', value: of((stats) => stats.sessions.websocket) },
        { label: 'SSE', color: 'green', value: of((stats) => stats.sessions.sse) },
      ],
      formatCount,
      signal,
    ),
    new Chart(
      t('Messages per second'),
      [
        { label: t('delivered'), color: 'blue', value: rate('delivered') },
        { label: t('published'), color: 'amber', value: rate('published') },
      ],
      formatRate,
      signal,
    ),
    new Chart(
      t('Sessions per second'),
      [
        { label: t('opened'), color: 'green', value: rate('opened') },
        { label: t('closed'), color: 'violet', value: rate('closed') },
        { label: t('refused'), color: 'red', value: rate('refused') },
      ],
      formatRate,
      signal,
    ),
    new Chart(
      t('Trouble per second'),
      [
        { label: t('gaps'), color: 'red', value: sum('gaps', 'gapsUnreported') },
        { label: t('dropped'), color: 'amber', value: sum('expired', 'collapsed', 'droppedOldest', 'localDropped') },
        { label: t('slow clients'), color: 'violet', value: rate('slowConsumers') },
      ],
      formatRate,
      signal,
    ),
  ];
  const chartList = create('div', { class: 'charts' }, ...charts.map((chart) => chart.element));
  const delivery = new Strip(t('Delivery'), ({ stats }) => (!stats ? 'unknown' : stats.ready ? 'ok' : 'bad'));
  const counters = create('div', { class: 'counters' });
  view.append(
    create('div', { class: 'tiles' }, ...Object.values(tiles).map((tile) => tile.element)),
    delivery.element,
    chartList,
    create(
      'section',
      { class: 'card' },
      create(
        'div',
        { class: 'card-head' },
        create('h2', { class: 'card-title', text: t('Counters') }),
        create('span', { class: 'hint', text: t('of this node, since its start') }),
      ),
      counters,
    ),
  );

  /** Charts of what not every server tells. */
  function addCharts() {
    const lag = new Chart(
      t('Bus lag, ms'),
      [{ label: t('at most'), color: 'amber', value: of((stats) => millis(stats.metrics.bus?.lag)) }],
      formatRate,
      signal,
      LAG_MS,
    );
    const waiting = new Chart(
      t('Frames waiting for sockets'),
      [
        { label: t('all'), color: 'blue', value: of((stats) => stats.metrics.outbox?.frames) },
        { label: t('slowest client'), color: 'red', value: of((stats) => stats.metrics.outbox?.maxFrames) },
      ],
      formatCount,
      signal,
    );
    charts.push(lag, waiting);
    chartList.append(lag.element, waiting.element);
  }

  function draw() {
    const { samples, last, online } = sampler;
    if (last?.stats?.metrics.bus && charts.length === 4) addCharts();
    charts.forEach((chart) => chart.draw(samples));
    delivery.draw(samples, describe(last));
    const stats = samples.findLast((sample) => sample.stats)?.stats;
    if (!stats) return;
    const { websocket, sse } = stats.sessions;
    tiles.connections.show(formatCount(websocket + sse), `${formatCount(websocket)} WebSocket · ${formatCount(sse)} SSE`);
    if (stats.presence === 'off') tiles.users.show('–', t('presence is off'));
    else if (!online) tiles.users.show('–', t('presence does not answer'));
    else tiles.users.show(formatCount(online.total), t('{0} sessions in the cluster', formatCount(online.sessions)));
    tiles.delivered.show(formatRate(last.rates.delivered), t('per second'));
    tiles.published.show(formatRate(last.rates.published), t('per second, by this node'));
    const up = stats.metrics.bus?.up ?? stats.ready;
    tiles.bus.show(up ? t('Up') : t('Down'), up ? describeBus(stats) : stats.problem ?? '', up ? 'ok' : 'bad');
    tiles.uptime.show(formatDuration(Date.now() - Date.parse(stats.startedAt)), t('node {0}', stats.node));
    counters.replaceChildren(...COUNTERS.map((group) => createGroup(group, stats.metrics)));
  }

  sampler.addEventListener('sample', draw, { signal });
  draw();
}

/** A number with a name above and a note below. */
class Tile {
  element;
  #value = create('p', { class: 'tile-value', text: '–' });
  #note = create('p', { class: 'tile-note' });

  /** @param {string} label */
  constructor(label) {
    this.element = create('section', { class: 'tile' }, create('h2', { class: 'tile-label', text: label }), this.#value, this.#note);
  }

  show(value, note, state = '') {
    this.#value.textContent = value;
    this.#value.dataset.state = state;
    this.#note.textContent = note;
    this.#note.title = note;
  }
}

function sum(...names) {
  return ({ rates }) => (names[0] in rates ? names.reduce((all, name) => all + (rates[name] ?? 0), 0) : null);
}

/** A duration as the server writes it. */
function millis(duration) {
  return duration ? duration.secs * 1000 + duration.nanos / 1e6 : null;
}

/** The bus says about once a second that everything has arrived, so a lag of that much is none. */
function describeBus({ bus, metrics }) {
  const name = bus === 'redis' ? 'Redis' : t('in memory');
  const lag = millis(metrics.bus?.lag);
  return lag === null || lag < LAG_MS ? name : t('{0}, up to {1} behind', name, formatDuration(lag));
}

function describe(sample) {
  if (!sample) return '–';
  if (!sample.stats) return t('no answer');
  return sample.stats.ready ? t('messages arrive') : sample.stats.problem;
}

function createGroup({ title, counters }, metrics) {
  const rows = counters.map(([path, label]) => {
    const value = path.split('.').reduce((object, name) => object?.[name], metrics);
    return create(
      'div',
      { class: 'counter', data: { zero: value === 0 }, attributes: { title: path } },
      create('dt', { text: label }),
      create('dd', { text: formatCount(value) }),
    );
  });
  return create('section', {}, create('h3', { class: 'counter-title', text: title }), create('dl', {}, ...rows));
}
