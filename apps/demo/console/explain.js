import { createExplanation } from './explanation.js';
import { t } from './i18n.js';
import { create, createButton, createEmpty, createField, createInput, createLoading, focusFirst } from './ui.js';
import { userAddress } from './users.js';

/**
 * Why did this user get a message, or not?
 * @param {HTMLElement} view
 * @param {import('./app.js').Context} context
 */
export function mountExplain(view, { api, signal, query }) {
  const input = createInput({ id: 'explain-user', maxlength: '128', required: '', enterkeyhint: 'search' }, query.get('user') ?? '');
  const submit = createButton(t('Explain'), { class: 'button-primary' });
  submit.type = 'submit';
  const links = create('span', { class: 'card-end' });
  const box = create('div', { class: 'stack' });
  view.append(
    create('p', { class: 'lead', text: t('Why did a user get a message, or not? Sessions, refusals, closes and the last messages, over the cluster.') }),
    create('form', { class: 'inline-form', on: { submit: ask } }, createField(t('User id'), input), submit, links),
    box,
  );
  if (input.value) load(input.value);
  else focusFirst(input);

  function ask(event) {
    event.preventDefault();
    const user = input.value.trim();
    if (!user) return;
    // The address can be passed on.
    history.replaceState(null, '', `#/explain?user=${encodeURIComponent(user)}`);
    load(user);
  }

  async function load(user) {
    submit.disabled = true;
    box.replaceChildren(createLoading());
    links.replaceChildren(create('a', { class: 'button', text: t('Sessions and kicks'), attributes: { href: userAddress(user) } }));
    await showExplanation(box, { api, signal }, user);
    submit.disabled = false;
  }
}

/**
 * Asks why, and shows the answer or the reason for which there is none.
 * @param {HTMLElement} box
 * @param {{api: import('./api.js').Api, signal: AbortSignal}} context
 * @param {string} user
 */
export async function showExplanation(box, { api, signal }, user) {
  try {
    box.replaceChildren(createExplanation(await api.call('GET', `explain/${encodeURIComponent(user)}`, { signal })));
  } catch (error) {
    if (signal.aborted) return;
    const missing = error.status === 404;
    box.replaceChildren(missing ? createEmpty(t('This server cannot explain.')) : createEmpty(t('There is no explanation.'), error.message));
  }
}
