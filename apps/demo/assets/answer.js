import { t } from './i18n.js';
import { byId } from './ui.js';

/**
 * Streams the answer to a prompt into the page, token by token.
 * @param {import('./session.js').Session} session
 */
export function mountAnswer(session) {
  const answer = byId('ai-answer');
  const result = byId('ai-result');
  let source = null;

  byId('ai-form').addEventListener('submit', (event) => {
    event.preventDefault();
    ask(byId('ai-prompt').value);
  });
  session.signal.addEventListener('abort', () => source?.close());

  function ask(prompt) {
    source?.close();
    let tokens = 0;
    answer.textContent = '';
    answer.setAttribute('aria-busy', 'true');
    delete result.dataset.failed;
    result.textContent = t('Streaming…');

    source = new EventSource(`demo/ai?${new URLSearchParams({ prompt, Authorization: session.token })}`);
    source.addEventListener('token', (event) => {
      answer.append(JSON.parse(event.data).data.text);
      answer.scrollTop = answer.scrollHeight;
      tokens += 1;
    });
    source.addEventListener('done', () => finish(t('Done, {0} tokens.', tokens)));
    // Without this the browser would reconnect and the answer would start all over again.
    source.onerror = () => {
      result.dataset.failed = '';
      finish(t('The stream has ended early.'));
    };
  }

  function finish(text) {
    source.close();
    answer.setAttribute('aria-busy', 'false');
    result.textContent = text;
  }
}
