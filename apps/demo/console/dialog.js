import { t } from './i18n.js';
import { create, createButton } from './ui.js';

/**
 * Asks before something that cannot be undone. Esc is a no.
 * @param {{title: string, text: string, action: string, field?: HTMLElement}} question
 * @returns {Promise<boolean>}
 */
export function confirm({ title, text, action, field }) {
  const yes = createButton(action, { class: 'button-danger' });
  yes.type = 'submit';
  const no = createButton(t('Cancel'), { click: () => dialog.close('no') });
  const form = create(
    'form',
    { attributes: { method: 'dialog' }, on: { submit } },
    create('h2', { class: 'dialog-title', text: title, attributes: { id: 'dialog-title' } }),
    create('p', { class: 'dialog-text', text }),
    field ?? null,
    create('div', { class: 'dialog-foot' }, no, yes),
  );
  const dialog = create('dialog', { class: 'dialog', attributes: { 'aria-labelledby': 'dialog-title' } }, form);
  // The page forbids forms that are sent anywhere.
  function submit(event) {
    event.preventDefault();
    dialog.close('yes');
  }
  document.body.append(dialog);
  dialog.showModal();
  (field?.querySelector('input') ?? no).focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
  });
}
