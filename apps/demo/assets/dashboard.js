import { Chart } from './chart.js';
import { t } from './i18n.js';
import { formatAmount, formatNumber } from './message.js';
import { byId, perform } from './ui.js';

const IDLE_AFTER_MS = 2_500;

/**
 * @param {import('./session.js').Session} session
 * @returns {(message: import('./message.js').Message) => void} shows one update
 */
export function mountDashboard(session) {
  const chart = new Chart(byId('dashboard-chart'));
  const live = byId('dashboard-live');
  const start = byId('dashboard-start');
  let idleTimer = 0;

  function showLive(isLive) {
    live.hidden = !isLive;
    start.textContent = isLive ? t('Restart the minute') : t('Start updates');
  }

  start.addEventListener('click', () =>
    perform(
      byId('dashboard-result'),
      async () => {
        await session.call('POST', 'demo/dashboard', {});
        return t('Updates arrive for one minute.');
      },
      start,
    ),
  );

  return ({ data }) => {
    // Whoever may publish may publish anything.
    if (![data.orders, data.revenue, data.online, data.cpu].every(Number.isFinite)) return;
    byId('tile-orders').textContent = formatNumber(data.orders);
    byId('tile-revenue').textContent = formatAmount(data.revenue);
    byId('tile-online').textContent = formatNumber(data.online);
    byId('chart-value').textContent = `${data.cpu} %`;
    chart.push(data.cpu);
    showLive(true);
    clearTimeout(idleTimer);
    idleTimer = setTimeout(() => showLive(false), IDLE_AFTER_MS);
  };
}
