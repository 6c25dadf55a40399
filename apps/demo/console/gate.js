import { t } from './i18n.js';
import { byId, setText } from './ui.js';

/** @param {(key: string) => Promise<void>} open fails with the reason for which the key does not fit */
export function mountGate(open) {
  const key = byId('gate-key');
  const submit = byId('gate-submit');
  byId('gate-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    setText(byId('gate-error'), '');
    // A header holds nothing else.
    if (!/^[\x21-\x7e]+$/.test(key.value)) {
      refuse(t('The key is not accepted.'));
      return;
    }
    submit.disabled = true;
    submit.setAttribute('aria-busy', 'true');
    try {
      await open(key.value);
      key.value = '';
    } catch (error) {
      refuse(error.status === 401 ? t('The key is not accepted.') : error.message);
    } finally {
      submit.disabled = false;
      submit.removeAttribute('aria-busy');
    }
  });

  function refuse(why) {
    setText(byId('gate-error'), why);
    key.setAttribute('aria-invalid', 'true');
    key.select();
  }
}

/** @param {string} notice why the console was left; empty when that was the operator's wish */
export function showGate(notice) {
  setText(byId('gate-notice'), notice);
  setText(byId('gate-error'), '');
  byId('gate').hidden = false;
  byId('gate-key').removeAttribute('aria-invalid');
  byId('gate-key').focus();
}
