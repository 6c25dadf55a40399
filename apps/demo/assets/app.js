import { request } from './api.js';
import { hideLogin, mountLogin, showLogin } from './login.js';
import { Session, forgetSignIn, storeSignIn, storedSignIn } from './session.js';
import { byId, setText } from './ui.js';
import { Workspace } from './workspace.js';

const CONFIG_RETRY_MS = 3_000;
const SESSION_OVER = 'Your session has ended, or you signed in elsewhere. Please sign in again.';

let session = null;
let workspace = null;

const config = await loadConfig();
mountLogin(config, (token, username) => {
  storeSignIn(token, username);
  enter(token, username);
  byId('scenes').focus({ preventScroll: true });
});
resume();

document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') workspace?.wake();
});
addEventListener('online', () => workspace?.wake());
addEventListener('pagehide', () => workspace?.stop());
addEventListener('pageshow', (event) => {
  if (event.persisted) workspace?.start();
  else workspace?.wake();
});

/** @returns {Promise<import('./session.js').Config>} */
async function loadConfig() {
  for (;;) {
    try {
      return await request('GET', '/demo/config');
    } catch (error) {
      showLogin('');
      setText(byId('login-error'), `${error.message} Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, CONFIG_RETRY_MS));
    }
  }
}

function resume() {
  const stored = storedSignIn();
  if (stored) enter(stored.token, stored.username);
  else showLogin('');
}

function enter(token, username) {
  const user = config.users.find((each) => each.username === username);
  if (!user) {
    showLogin('');
    return;
  }
  const onSessionOver = () => leave(SESSION_OVER);
  hideLogin();
  session = new Session(config, token, user, onSessionOver);
  workspace = new Workspace(session, { onSignOut: () => leave(''), onSessionOver });
  workspace.start();
}

function leave(notice) {
  forgetSignIn();
  session.end();
  workspace.remove();
  session = null;
  workspace = null;
  showLogin(notice);
}
