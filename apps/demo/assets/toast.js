import { t } from './i18n.js';
import { byId, create, createTag } from './ui.js';

const LIFETIME_MS = 7_000;
const LIMIT = 3;

/** @typedef {{transport: import('./message.js').Transport, title: string, text: string}} Toast */

/**
 * Shows a message in the corner of the page. The copy which arrives over the other transport joins
 * the first one instead of covering the page twice.
 * @param {Toast} toast
 */
export function showToast({ transport, title, text }) {
  const toasts = byId('toasts');
  const key = JSON.stringify([title, text]);
  const twin = [...toasts.children].find(
    (other) => other.dataset.key === key && !other.querySelector(`[data-transport="${transport}"]`),
  );
  if (twin) {
    twin.querySelector('.toast-tags').append(createTag(transport));
    return;
  }
  toasts.append(createToast(key, transport, title, text));
  if (toasts.childElementCount > LIMIT) toasts.firstElementChild.remove();
}

function createToast(key, transport, title, text) {
  const close = create('button', { class: 'toast-close', text: '×' });
  close.type = 'button';
  close.setAttribute('aria-label', t('Dismiss: {0}', title));
  const toast = create(
    'div',
    { class: 'toast', data: { key } },
    create('p', { class: 'toast-title', text: title }),
    close,
    create('p', { class: 'toast-text', text }),
    create('div', { class: 'toast-tags' }, createTag(transport)),
  );
  close.addEventListener('click', () => toast.remove());
  dismissLater(toast);
  return toast;
}

/** Time does not run while somebody points at the toast or has its button focused. */
function dismissLater(toast) {
  let timer = 0;
  const hold = () => clearTimeout(timer);
  const run = () => {
    hold();
    timer = setTimeout(() => toast.remove(), LIFETIME_MS);
  };
  toast.addEventListener('pointerenter', hold);
  toast.addEventListener('focusin', hold);
  toast.addEventListener('pointerleave', run);
  toast.addEventListener('focusout', run);
  run();
}
