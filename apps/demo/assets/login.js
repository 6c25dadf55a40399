import { request } from './api.js';
import { t } from './i18n.js';
import { byId, setText } from './ui.js';

/**
 * Fills the form once; `onToken` gets every successful sign-in.
 * @param {import('./session.js').Config} config
 * @param {(token: string, username: string) => void} onToken
 */
export function mountLogin(config, onToken) {
  // Where the server does not name its users, the visitor does.
  const named = config.users.length > 0 || !config.login;
  const user = named ? byId('login-user') : byId('login-name');
  if (!named) {
    byId('login-user').replaceWith(user);
    user.hidden = false;
    user.disabled = false;
    byId('login-label').textContent = t('User');
  }
  const password = byId('login-password');
  const submit = byId('login-submit');
  if (named) user.append(...config.users.map((each) => new Option(`${each.name}, ${t(each.role)}`, each.username)));
  if (config.passwordHint) {
    byId('login-hint').textContent = t('The password of every demo user is “{0}”.', config.passwordHint);
    password.placeholder = config.passwordHint;
  } else if (!config.login) {
    byId('login-hint').textContent = t('Nobody can sign in here: auth.users names no users.');
  }

  byId('login-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    setText(byId('login-error'), '');
    submit.dataset.busy = '';
    try {
      const credentials = { username: user.value, password: password.value, clientId: 'web' };
      const reply = await request('POST', 'auth/login', { body: credentials });
      password.value = '';
      onToken(reply.data.access_token, user.value);
    } catch (error) {
      setText(byId('login-error'), error.message);
      password.select();
    } finally {
      delete submit.dataset.busy;
    }
  });
}

/**
 * @param {string} notice why the user is signed out; empty when it was their own wish
 * @param {string} [username] who was signed in
 */
export function showLogin(notice, username) {
  document.title = 'realtime';
  setText(byId('login-notice'), notice);
  setText(byId('login-error'), '');
  byId('login').hidden = false;
  const user = document.querySelector('#login-user:enabled') ?? byId('login-name');
  if (username) user.value = username;
  (username ? byId('login-password') : user).focus();
}

export function hideLogin() {
  byId('login').hidden = true;
}
