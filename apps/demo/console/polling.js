/**
 * Calls something now and again and again while the page is visible, one call after the other.
 * @param {() => Promise<void>} action reports its errors itself
 * @param {number} every milliseconds
 * @param {AbortSignal} signal ends it
 * @returns {() => void} calls it at once
 */
export function poll(action, every, signal) {
  let timer = 0;
  let running = false;
  async function run() {
    clearTimeout(timer);
    if (signal.aborted || running) return;
    running = true;
    try {
      if (!document.hidden) await action();
    } finally {
      running = false;
      if (!signal.aborted) timer = setTimeout(run, every);
    }
  }
  signal.addEventListener('abort', () => clearTimeout(timer));
  run();
  return run;
}
