import { confirm } from './dialog.js';
import { t } from './i18n.js';
import { create, createButton, createEmpty, createField, createInput, createSelect, createTable, focusFirst, setText } from './ui.js';

/**
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountPublish(view, { api, signal, query }) {
  const user = query.get('user') ?? '';
  const targets = [
    ['users', t('Users')],
    ['topics', t('Topics')],
    ['all', t('Everyone')],
  ].map(([value, text]) => createTarget(value, text, value === 'users', drawTarget));
  const to = createInput({ id: 'publish-to', placeholder: '42, 43' }, user);
  const toField = createField(t('User ids'), to, t('Several with commas or spaces between.'));
  const message = create('textarea', { attributes: { id: 'publish-message', rows: 5, spellcheck: 'false' } });
  const event = createInput({ id: 'publish-event', placeholder: 'message', maxlength: '128' });
  const transport = createSelect([['', t('Both transports')], ['websocket', 'WebSocket'], ['sse', 'SSE']], { id: 'publish-transport' });
  const ttl = createInput({ id: 'publish-ttl', type: 'number', min: '1', step: '1', inputmode: 'numeric' });
  const collapse = createInput({ id: 'publish-collapse', maxlength: '128' });
  const retain = create('input', { attributes: { id: 'publish-retain', type: 'checkbox' } });
  const report = create('input', { attributes: { id: 'publish-confirm', type: 'checkbox' } });
  report.checked = true;
  const submit = createButton(t('Publish'), { class: 'button-primary' });
  submit.id = 'publish-submit';
  submit.type = 'submit';
  const error = create('p', { class: 'error', attributes: { role: 'alert', id: 'publish-error' } });
  error.hidden = true;
  const result = create('div', { class: 'stack', attributes: { id: 'publish-result', 'aria-live': 'polite' } });

  view.append(
    create(
      'form',
      { class: 'card form', on: { submit: publish } },
      create('fieldset', { class: 'segments' }, create('legend', { class: 'field-label', text: t('To') }), ...targets),
      toField,
      createField(t('Message'), message),
      create(
        'div',
        { class: 'form-grid' },
        createField(t('Event'), event, t('“message” where it is empty.')),
        createField(t('Transport'), transport),
        createField(t('Time to live, ms'), ttl, t('After this it is not sent any more.')),
        createField(t('Collapse key'), collapse, t('A newer one with the same key replaces it.')),
      ),
      create(
        'div',
        { class: 'checks' },
        create('label', { class: 'check' }, retain, create('span', { text: t('Retain for newcomers of the topic') })),
        create('label', { class: 'check' }, report, create('span', { text: t('Wait for a report of every node (2 s)') })),
      ),
      error,
      create('div', { class: 'form-foot' }, submit),
    ),
    result,
  );
  result.replaceChildren(createEmpty(t('Not published yet.'), t('Position and delivery appear here.')));
  drawTarget();
  focusFirst(user ? message : to);

  function target() {
    return view.querySelector('input[name=target]:checked').value;
  }

  function drawTarget() {
    const kind = target();
    toField.hidden = kind === 'all';
    to.required = kind !== 'all';
    to.placeholder = kind === 'topics' ? 'orders, news' : '42, 43';
    toField.querySelector('.field-label').textContent = kind === 'topics' ? t('Topics') : t('User ids');
  }

  function body() {
    const names = to.value.split(/[\s,，]+/).filter(Boolean);
    const kind = target();
    return {
      ...(kind === 'all' ? { broadcast: true } : kind === 'topics' ? { topics: names } : { userIds: names }),
      message: message.value,
      event: event.value.trim() || null,
      transport: transport.value || null,
      ttl: ttl.value ? Number(ttl.value) : null,
      collapseKey: collapse.value.trim() || null,
      retain: retain.checked || null,
      confirm: report.checked ? 2_000 : null,
    };
  }

  async function publish(submitted) {
    submitted.preventDefault();
    setText(error, '');
    if (target() === 'all') {
      const sure = await confirm({
        title: t('Publish to everyone?'),
        text: t('Every session of the cluster gets this message.'),
        action: t('Publish'),
      });
      if (!sure) return;
    }
    submit.disabled = true;
    submit.setAttribute('aria-busy', 'true');
    try {
      result.replaceChildren(createResult(await api.call('POST', 'publish', { body: body(), signal })));
      result.scrollIntoView({ block: 'nearest' });
    } catch (failure) {
      if (!signal.aborted) setText(error, failure.message);
    } finally {
      submit.disabled = false;
      submit.removeAttribute('aria-busy');
    }
  }
}

function createTarget(value, text, checked, changed) {
  const input = create('input', { attributes: { type: 'radio', name: 'target', value, id: `target-${value}` }, on: { change: changed } });
  input.checked = checked;
  return create('label', { class: 'segment' }, input, create('span', { text }));
}

function createResult({ position, nodes, missing }) {
  const sessions = nodes?.reduce((sum, each) => sum + each.sessions, 0);
  const note = nodes && sessions === 0 ? t('Nobody was connected whom it is for.') : '';
  const rows = (nodes ?? []).map((each) => [
    create('span', { class: 'mono', text: each.node }),
    ...[each.sessions, each.queued, each.written].map((value) => create('span', { class: 'number', text: value })),
  ]);
  rows.push(...(missing ?? []).map((node) => [create('span', { class: 'mono', text: node }), t('no answer'), '–', '–']));
  return create(
    'section',
    { class: 'card' },
    create(
      'div',
      { class: 'card-head' },
      create('h2', { class: 'card-title', text: t('Published') }),
      create('span', { class: 'mono hint', text: position ? t('position {0}', position) : t('this bus has no positions') }),
    ),
    note ? create('p', { class: 'note', text: note }) : null,
    rows.length ? createTable(t('Delivery'), [t('Node'), t('Sessions'), t('Queued'), t('Written')], rows) : null,
  );
}
