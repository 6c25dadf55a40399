// Chromium through its driver, by the WebDriver protocol.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** What pages of any browser are asked. */
export class Page {
  /** Waits until an expression in the page is true. */
  async until(expression, ms = 15_000) {
    const end = Date.now() + ms;
    for (;;) {
      const value = await this.run(expression);
      if (value) return value;
      if (Date.now() > end) throw new Error(`not within ${ms} ms: ${expression}; ${await this.run('JSON.stringify(window.states)')}`);
    }
  }
}

export class Chromium extends Page {
  static async start() {
    const browser = new Chromium();
    browser.driver = spawn('chromedriver', ['--port=0'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const port = await new Promise((resolve, reject) => {
      browser.driver.on('error', reject);
      createInterface(browser.driver.stdout).on('line', line => {
        const ready = /started successfully on port (\d+)/.exec(line);
        if (ready) resolve(ready[1]);
      });
    });
    browser.base = `http://127.0.0.1:${port}/session`;
    const args = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
    const capabilities = { alwaysMatch: { browserName: 'chrome', 'goog:chromeOptions': { args } } };
    const { sessionId } = await browser.call('POST', '', { capabilities });
    browser.base += `/${sessionId}`;
    return browser;
  }

  async call(method, path, body) {
    const response = await fetch(this.base + path, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${path}: ${value.message}`);
    return value;
  }

  go(url) {
    return this.call('POST', '/url', { url });
  }

  /** Opens a tab and goes there. Returns its handle. */
  async open() {
    const { handle } = await this.call('POST', '/window/new', { type: 'tab' });
    await this.to(handle);
    return handle;
  }

  /** Goes to a tab. */
  to(handle) {
    return this.call('POST', '/window', { handle });
  }

  /** Closes the tab that it is in. */
  close() {
    return this.call('DELETE', '/window');
  }

  tabs() {
    return this.call('GET', '/window/handles');
  }

  /** A command of Chromium's own protocol. */
  cdp(cmd, params = {}) {
    return this.call('POST', '/goog/cdp/execute', { cmd, params });
  }

  reload() {
    return this.call('POST', '/refresh', {});
  }

  /** The value of an expression in the page. */
  run(expression) {
    return this.call('POST', '/execute/sync', { script: `return ${expression}`, args: [] });
  }

  /** Cuts the page off from the network, and gives it back. */
  offline(offline) {
    const network_conditions = { offline, latency: 0, throughput: -1 };
    return this.call('POST', '/chromium/network_conditions', { network_conditions });
  }

  async stop() {
    await this.call('DELETE', '').catch(() => {});
    this.driver.kill();
  }
}
