// Firefox by WebDriver BiDi, which it speaks itself: no driver of its own is needed.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import WebSocket from 'ws';
import { Page } from './driver.js';

export class Firefox extends Page {
  #calls = new Map();
  #number = 0;

  static async start() {
    const browser = new Firefox();
    browser.profile = mkdtempSync(join(tmpdir(), 'realtime-firefox-'));
    const args = ['--headless', '--no-remote', '--remote-debugging-port=0', '--profile', browser.profile];
    browser.child = spawn('firefox', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const base = await new Promise((resolve, reject) => {
      browser.child.on('error', reject).on('exit', () => reject(new Error('Firefox does not start')));
      createInterface(browser.child.stderr).on('line', line => {
        const ready = /WebDriver BiDi listening on (ws:\S+)/.exec(line);
        if (ready) resolve(ready[1]);
      });
    });
    browser.socket = new WebSocket(`${base}/session`);
    browser.socket.on('message', text => browser.#take(JSON.parse(text)));
    await new Promise((resolve, reject) => browser.socket.on('open', resolve).on('error', reject));
    await browser.call('session.new', { capabilities: {} });
    const { contexts } = await browser.call('browsingContext.getTree', {});
    browser.tab = contexts[0].context;
    return browser;
  }

  #take({ id, type, result, error, message }) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (type === 'error') call?.reject(new Error(`${error}: ${message}`));
    else call?.resolve(result);
  }

  call(method, params) {
    const id = ++this.#number;
    this.socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  go(url) {
    return this.call('browsingContext.navigate', { context: this.tab, url, wait: 'complete' });
  }

  reload() {
    return this.call('browsingContext.reload', { context: this.tab, wait: 'complete' });
  }

  async open() {
    const { context } = await this.call('browsingContext.create', { type: 'tab' });
    return (this.tab = context);
  }

  async to(tab) {
    this.tab = tab;
  }

  close() {
    return this.call('browsingContext.close', { context: this.tab });
  }

  async tabs() {
    return (await this.call('browsingContext.getTree', {})).contexts.map(({ context }) => context);
  }

  async run(expression) {
    const { type, result, exceptionDetails } = await this.call('script.evaluate', {
      expression: `JSON.stringify(${expression})`,
      target: { context: this.tab },
      awaitPromise: false,
    });
    if (type === 'exception') throw new Error(exceptionDetails.text);
    return result.type === 'string' ? JSON.parse(result.value) : undefined;
  }

  offline(offline) {
    const networkConditions = offline ? { type: 'offline' } : null;
    return this.call('emulation.setNetworkConditions', { networkConditions, contexts: [this.tab] });
  }

  async stop() {
    this.child.removeAllListeners('exit');
    const exit = new Promise(resolve => this.child.on('exit', resolve));
    this.socket.terminate();
    this.child.kill();
    await exit;
    rmSync(this.profile, { recursive: true, force: true });
  }
}
