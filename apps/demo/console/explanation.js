import { formatAgo, formatClock, formatCount, formatDate, formatDuration, formatSessions } from './format.js';
import { t } from './i18n.js';
import { create, createTable, createTransport } from './ui.js';

const MODES = { live: 'ok', catchingUp: 'warn', waiting: 'warn', closing: 'bad' };
const STATES = { current: 'ok', expired: 'warn', collapsed: 'warn', droppedOldest: 'warn' };
const REACHED = { written: 'ok', queued: 'warn', servedOrLeftOut: 'warn', waiting: 'warn' };

/**
 * The answer of `/api/explain`: a summary, and a card for each subject.
 * @param {any} answer
 */
export function createExplanation(answer) {
  const { sessions = [], messages = [], closes = [], refusals = [], unknownRefusals = [], nodes = [], problems = [] } = answer;
  return create(
    'div',
    { class: 'stack', data: { answer: 'explain' } },
    createSummary(answer),
    ...problems.map((problem) => create('p', { class: 'note', text: problem })),
    createCard(t('Sessions'), t('Not connected to any node.'), sessions, createSession, [
      t('Transport'), t('Session'), t('Node'), t('State'), t('Behind'), t('Waiting for the socket'), t('Topics'), t('Connected'),
    ]),
    createCard(t('Last messages'), t('No message of the recent history was for this user.'), messages, (each) => createMessage(each, sessions), [
      t('Age'), t('Event'), t('By topic'), t('Position'), t('Size'), t('State'), t('Sessions'),
    ]),
    createCard(t('Ended sessions'), t('None lately.'), closes, createClose, [t('Time'), t('Reason'), t('Code'), t('Transport'), t('Session'), t('Node'), t('Was open')]),
    createCard(t('Refused connections'), t('None lately.'), refusals, createRefusal, REFUSAL_COLUMNS),
    unknownRefusals.length ? createCard(t('Refused connections without a known user'), '', unknownRefusals, createRefusal, REFUSAL_COLUMNS) : null,
    createCard(t('Nodes asked'), t('None.'), nodes, createNode, [t('Node'), t('Answer'), t('Sessions'), t('Position'), t('Bus')]),
  );
}

const REFUSAL_COLUMNS = [t('Time'), t('Reason'), t('Status'), t('Transport'), t('Address'), t('Node'), t('Message')];

function createSummary({ online, sessions = [], closes = [], messages = [], nodes = [], at }) {
  const state = online ?? sessions.length > 0;
  const [close] = closes;
  let text = state ? t('Online, {0}.', formatSessions(sessions.length)) : t('Offline.');
  if (!state && close) text += ` ${t('The last session ended {0}: {1}.', ago(close.at, at), close.reason)}`;
  const behind = sessions.filter(({ mode }) => mode && mode !== 'live').length;
  if (behind) text += ` ${t('Not live: {0}.', behind)}`;
  const lost = messages.filter((each) => each.gap || (each.state && each.state !== 'current')).length;
  if (lost) text += ` ${t('Gaps, expired or replaced among the last messages: {0}.', lost)}`;
  const silent = nodes.filter(({ answered }) => !answered).map(({ node }) => node);
  if (silent.length) text += ` ${t('No answer from {0}.', silent.join(', '))}`;
  return create('p', { class: 'summary', text, data: { state: state ? 'ok' : 'off' } });
}

function createCard(title, empty, items, row, columns) {
  return create(
    'section',
    { class: 'card' },
    create(
      'div',
      { class: 'card-head' },
      create('h2', { class: 'card-title', text: title }),
      items.length ? create('span', { class: 'hint', text: formatCount(items.length) }) : null,
    ),
    items.length
      ? create('div', { class: 'wide' }, createTable(title, columns, items.map(row)))
      : create('p', { class: 'nothing', text: empty }),
  );
}

function createSession({ transport, sessionId, node, mode, lane, closing, behind, outbox, gap, leftOut, topics = [], since }) {
  const state = create('span', { class: 'pills' }, createPill(closing ?? mode ?? t('unknown'), MODES[mode] ?? 'off'));
  if (lane) state.append(create('span', { class: 'tag', text: lane }));
  if (gap) state.append(createPill(`${t('gap')} ${gap.reason}`, 'bad'));
  if (leftOut) state.append(createPill(t('{0} left out', formatCount(leftOut)), 'warn'));
  return [
    createTransport(transport),
    createId(sessionId),
    createMono(node),
    state,
    createMono(behind ?? '–'),
    outbox ? t('{0} frames, {1} bytes', formatCount(outbox.frames), formatCount(outbox.bytes)) : '–',
    create('span', { class: 'topics mono', text: topics.join(', ') || '–' }),
    createTime(since),
  ];
}

function createMessage({ ageMs, event, topic, topics, position, bytes, state, gap, transport, sessions = [] }, known) {
  const node = (id) => known.find((session) => session.sessionId === id);
  const reached = sessions.map(({ sessionId, state: reach }) => {
    const pill = createPill(reach, REACHED[reach] ?? 'off');
    pill.title = [sessionId, node(sessionId)?.transport, node(sessionId)?.node].filter(Boolean).join(' · ');
    return pill;
  });
  const by = create('span', { class: 'pills' }, createMono(topic ?? '–'));
  if (topics > 1) by.append(create('span', { class: 'tag', text: t('and {0} more', topics - 1) }));
  if (transport) by.append(createTransport(transport));
  return [
    formatAgo(ageMs),
    createMono(event ?? '–'),
    by,
    createMono(position ?? '–'),
    t('{0} bytes', formatCount(bytes)),
    gap ? createPill(`${t('gap')} ${gap}`, 'bad') : createPill(state ?? '–', STATES[state] ?? 'off'),
    reached.length ? create('span', { class: 'pills' }, ...reached) : '–',
  ];
}

function createClose({ at, reason, code, transport, sessionId, node, openMs }) {
  return [createTime(at), createMono(reason), createMono(code ?? '–'), createTransport(transport), createId(sessionId), createMono(node), formatDuration(openMs)];
}

function createRefusal({ at, reason, status, transport, address, node, error }) {
  return [createTime(at), createMono(reason), createMono(status), transport ? createTransport(transport) : '–', createMono(address ?? '–'), createMono(node), error];
}

function createNode({ node, answered, sessions, position, busDownSince }) {
  return [
    createMono(node),
    answered ? createPill(t('yes'), 'ok') : createPill(t('no answer'), 'bad'),
    createMono(sessions ?? '–'),
    createMono(position ?? '–'),
    !answered ? '–' : busDownSince ? createPill(t('down since {0}', formatClock(new Date(busDownSince))), 'bad') : createPill(t('up'), 'ok'),
  ];
}

/** @param {string} id of a session, of which the beginning tells it apart */
export function createId(id) {
  return create('span', { class: 'mono', text: id.length > 12 ? `${id.slice(0, 8)}…` : id, attributes: { title: id } });
}

function createMono(text) {
  return create('span', { class: 'mono', text });
}

function createPill(text, state) {
  return create('span', { class: 'pill', text, data: { state } });
}

function createTime(text) {
  const date = new Date(text);
  const time = create('time', { text: formatClock(date), attributes: { title: formatDate(date) } });
  time.dateTime = text;
  return time;
}

function ago(at, now) {
  return formatAgo((now ? Date.parse(now) : Date.now()) - Date.parse(at));
}
