import { language, t } from './i18n.js';

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const precise = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  fractionalSecondDigits: 3,
});
const date = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' });

/** @param {number | null | undefined} value */
export function formatCount(value) {
  return value === null || value === undefined ? '–' : whole.format(value);
}

/** @param {number | null | undefined} value per second */
export function formatRate(value) {
  if (value === null || value === undefined) return '–';
  return value < 10 && value % 1 !== 0 ? fine.format(value) : whole.format(value);
}

/** @param {number} value on an axis */
export function formatShort(value) {
  return value < 10_000 ? fine.format(value) : compact.format(value);
}

/** @param {Date | number} time */
export function formatClock(time) {
  return clock.format(time);
}

/** @param {Date} time with milliseconds, to tell what came first */
export function formatPrecise(time) {
  return precise.format(time);
}

/** @param {Date | number} time */
export function formatDate(time) {
  return date.format(time);
}

/** @param {number} millis */
export function formatDuration(millis) {
  const seconds = Math.max(0, Math.floor(millis / 1000));
  if (seconds < 60) return t('{0} s', seconds);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return t('{0} min {1} s', minutes, seconds % 60);
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return t('{0} h {1} min', hours, minutes % 60);
  return t('{0} d {1} h', Math.floor(hours / 24), hours % 24);
}

/** @param {number} count */
export function formatSessions(count) {
  return count === 1 ? t('1 session') : t('{0} sessions', formatCount(count));
}

/** @param {number} millis since something happened */
export function formatAgo(millis) {
  return millis < 1000 ? t('just now') : t('{0} ago', formatDuration(millis));
}
