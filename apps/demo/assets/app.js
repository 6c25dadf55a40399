import { request } from './api.js';
import { language, t, translate } from './i18n.js';
import { hideLogin, mountLogin, showLogin } from './login.js';
import { Session, forgetSignIn, storeSignIn, storedSignIn } from './session.js';
import { byId, setText } from './ui.js';
import { Workspace } from './workspace.js';

const CONFIG_RETRY_MS = 3_000;

let session = null;
let workspace = null;

document.documentElement.lang = language;
translate(document);
translate(byId('workspace-template').content);

const config = await loadConfig();
mountLogin(config, async (token, username) => {
  storeSignIn(token, username);
  await enter(token, username);
  byId('scenes')?.focus({ preventScroll: true });
});
resume();

addEventListener('pagehide', () => workspace?.stop());
addEventListener('pageshow', (event) => {
  if (event.persisted) workspace?.start();
});

/**
 * @param {string} [token] whose user may see who the others are
 * @returns {Promise<import('./session.js').Config>}
 */
async function loadConfig(token) {
  for (;;) {
    try {
      return await request('GET', 'demo/config', { token });
    } catch (error) {
      showLogin('');
      setText(byId('login-error'), `${error.message} ${t('Trying again…')}`);
      await new Promise((resolve) => setTimeout(resolve, CONFIG_RETRY_MS));
    }
  }
}

function resume() {
  const stored = storedSignIn();
  if (stored) enter(stored.token, stored.username);
  else showLogin('');
}

async function enter(token, username) {
  const config = await loadConfig(token);
  const user = config.users.find((each) => each.username === username);
  if (!user) {
    showLogin('');
    return;
  }
  const onSessionOver = (why) => leave(sessionOver(why));
  hideLogin();
  session = new Session(config, token, user, onSessionOver);
  workspace = new Workspace(session, { onSignOut: () => leave(''), onSessionOver });
  workspace.start();
}

function sessionOver(why) {
  const ended = why ? t('Your session has ended: {0}.', why) : t('Your session has ended.');
  return `${ended} ${t('Please sign in again.')}`;
}

function leave(notice) {
  // Both connections may say so.
  if (!session) return;
  const { username } = session.user;
  forgetSignIn();
  session.end();
  workspace.remove();
  session = null;
  workspace = null;
  showLogin(notice, username);
}
