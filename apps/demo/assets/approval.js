import { t } from './i18n.js';
import { showToast } from './toast.js';
import { byId, perform } from './ui.js';

/**
 * @param {import('./session.js').Session} session
 * @returns {(message: import('./message.js').Message, transport: import('./message.js').Transport) => void}
 */
export function mountApproval(session) {
  const applicant = byId('approval-applicant');
  const title = byId('approval-title');
  applicant.append(...session.config.users.map((user) => new Option(user.name, user.id)));
  // The last of the others, or oneself on a page of one user.
  applicant.value = (session.config.users.findLast((user) => user.id !== session.user.id) ?? session.user).id;

  for (const button of document.querySelectorAll('[data-result]')) {
    const decide = () => send(button.dataset.result);
    button.addEventListener('click', () => perform(byId('approval-result'), decide, button));
  }

  async function send(result) {
    const { id, name } = session.userOf(applicant.value);
    await session.call('POST', 'demo/approval', { applicant: id, title: title.value, result });
    return t('Sent to {0}.', name);
  }

  return ({ data }, transport) => {
    showToast({ transport, title: `${data.title} ${t(data.result)}`, text: t('Decided by {0}', data.by?.name) });
  };
}
