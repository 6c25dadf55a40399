import { readEvents } from './event-stream.js';
import { createHappening } from './happening.js';
import { t } from './i18n.js';
import { announce, create, createButton, createEmpty, createField, createInput, createSelect, focusFirst, setText } from './ui.js';

/** Rows that are kept. */
const ROWS = 500;

/**
 * What happens to a user or in a topic, as it happens.
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountTrace(view, { api, signal, query }) {
  const kind = createSelect([['userId', t('User')], ['topic', t('Topic')]], { id: 'trace-kind' });
  const name = createInput({ id: 'trace-name', maxlength: '128', required: '' }, query.get('user') ?? '');
  const seconds = createSelect([['60', t('1 minute')], ['300', t('5 minutes')], ['600', t('10 minutes')]], { id: 'trace-seconds' });
  const submit = createButton(t('Start'), { class: 'button-primary' });
  submit.id = 'trace-submit';
  submit.type = 'submit';
  const clear = createButton(t('Clear'), { click: () => empty() });
  const state = create('span', { class: 'pill', data: { state: 'off' } });
  state.hidden = true;
  const error = create('p', { class: 'error', attributes: { role: 'alert' } });
  error.hidden = true;
  const rows = create('ol', { class: 'events', attributes: { id: 'trace-events', tabindex: '0', 'aria-label': t('What happened, newest first') } });
  const card = create(
    'section',
    { class: 'card' },
    create(
      'div',
      { class: 'card-head' },
      create('h2', { class: 'card-title', text: t('What happens') }),
      state,
      create('span', { class: 'card-end' }, clear),
    ),
    rows,
  );
  view.append(
    create('p', { class: 'lead', text: t('Follow a user or a topic live: connects, grants, each message queued, written or dropped, closes.') }),
    create(
      'form',
      { class: 'inline-form', on: { submit: toggle } },
      createField(t('Id or name'), name),
      createField(t('Follow'), kind),
      createField(t('For'), seconds),
      submit,
    ),
    error,
    card,
  );

  let run = null;
  signal.addEventListener('abort', () => run?.abort());
  empty();
  focusFirst(name.value ? submit : name);

  function empty() {
    rows.replaceChildren(createEmpty(run ? t('Nothing yet.') : t('Not following.'), run ? t('What happens appears here at once.') : t('Start to see what happens from now on.')));
  }

  async function toggle(event) {
    event.preventDefault();
    if (run) {
      run.abort();
      return;
    }
    const wanted = name.value.trim();
    if (!wanted) return;
    setText(error, '');
    run = new AbortController();
    const mine = run;
    show('connecting');
    empty();
    try {
      const body = { [kind.value]: wanted, seconds: Number(seconds.value) };
      const stream = await api.stream('trace', body, mine.signal);
      show('live');
      for await (const { data } of readEvents(stream)) add(data, wanted);
      show('over');
    } catch (failure) {
      if (mine.signal.aborted) show('stopped');
      else {
        show('off');
        setText(error, failure.status === 404 ? t('This server cannot trace.') : failure.message ?? t('The connection broke.'));
      }
    } finally {
      run = null;
      if (!signal.aborted) {
        submit.textContent = t('Start');
        if (!rows.querySelector('.event')) empty();
      }
    }
  }

  function show(now) {
    submit.textContent = run && now !== 'over' ? t('Stop') : t('Start');
    state.hidden = now === 'off';
    state.dataset.state = { live: 'ok', connecting: 'warn' }[now] ?? 'off';
    state.textContent = { connecting: t('connecting'), live: t('live'), over: t('time is up'), stopped: t('stopped') }[now] ?? '';
    announce(state.textContent);
  }

  function add(data, followed) {
    let happening;
    try {
      happening = JSON.parse(data);
    } catch {
      happening = { kind: 'unreadable', text: data };
    }
    if (!rows.querySelector('.event')) rows.replaceChildren();
    rows.prepend(createHappening(happening, followed));
    while (rows.children.length > ROWS) rows.lastElementChild.remove();
  }
}
