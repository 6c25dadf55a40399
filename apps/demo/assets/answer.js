import { stream } from './realtime.js';
import { formatNumber } from './message.js';
import { t } from './i18n.js';
import { byId, perform } from './ui.js';

/** What is said at an answer's end. */
const ENDS = {
  done: 'Done, {0} characters.',
  stopped: 'Stopped.',
  failed: 'The answer failed.',
  interrupted: 'The answer was interrupted: its server is gone.',
  lost: 'The answer is lost: the server does not have it any more.',
};

/**
 * Shows the answer to a prompt as it is written. The answer is a stream of the hub, so a reload, or another tab, goes on
 * with it.
 * @param {import('./session.js').Session} session
 * @returns {(connection: import('@realtime/client').Connection) => void} follows the answer over a connection
 */
export function mountAnswer(session) {
  const storageKey = `realtime.answer.${session.user.id}`;
  const answer = byId('ai-answer');
  const result = byId('ai-result');
  const stop = byId('ai-stop');
  let id = sessionStorage.getItem(storageKey);
  let connection = null;
  let shown = null;

  byId('ai-form').addEventListener('submit', (event) => {
    event.preventDefault();
    perform(result, ask, byId('ai-start'));
  });
  stop.addEventListener('click', () =>
    perform(
      result,
      async () => {
        await session.call('POST', `demo/ai/${encodeURIComponent(id)}/stop`);
        return shown.state ? ended() : '';
      },
      stop,
    ),
  );

  async function ask() {
    // Chosen here, so that nothing of the answer can come before it is known.
    id = `page-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`;
    sessionStorage.setItem(storageKey, id);
    show(false);
    try {
      await session.call('POST', 'demo/ai', { prompt: byId('ai-prompt').value, id });
    } catch (error) {
      answer.setAttribute('aria-busy', 'false');
      stop.hidden = true;
      throw error;
    }
    return shown.state ? ended() : t('Streaming…');
  }

  function show(begun) {
    shown?.close();
    const parts = (shown = stream(connection, id, { begun }));
    answer.textContent = '';
    answer.setAttribute('aria-busy', 'true');
    delete answer.dataset.state;
    stop.hidden = false;
    parts.on((part) => {
      if (part.reset) answer.textContent = '';
      answer.append(part.text);
      answer.scrollTop = answer.scrollHeight;
      if (part.state) result.textContent = ended();
    });
  }

  function ended() {
    answer.setAttribute('aria-busy', 'false');
    answer.dataset.state = shown.state;
    stop.hidden = true;
    delete result.dataset.failed;
    return t(ENDS[shown.state], formatNumber(shown.text.length));
  }

  return (next) => {
    connection = next;
    if (id) show(true);
  };
}
