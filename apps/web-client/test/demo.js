// The real server, as a process of its own, and tokens for it.
import { spawn } from 'node:child_process';
import { createHmac, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const SECRET = 'the secret of the tests, 32 bytes';
export const API_KEY = 'the-key-of-the-tests';
const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../../target', import.meta.url));
const binary = process.env.REALTIME_DEMO ?? `${target}/debug/realtime-demo`;

/** A token of a user, good for an hour unless it is said otherwise, with more claims if need be. */
export function token(user, seconds = 3600, more = {}) {
  const encode = value => Buffer.from(JSON.stringify(value)).toString('base64url');
  const exp = Date.now() / 1000 + seconds;
  const claims = { userId: user, clientid: 'web', exp, jti: randomUUID(), ...more };
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`;
}

export class Demo {
  static async start(variables = {}, port = 0) {
    const demo = new Demo();
    demo.child = spawn(binary, {
      env: {
        ...process.env,
        REALTIME__SERVER__PORT: String(port),
        REALTIME__AUTH__JWT__SECRET: SECRET,
        REALTIME__API__KEY: API_KEY,
        REALTIME__HEARTBEAT__INTERVAL: '500ms',
        ...variables,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const log = [];
    demo.port = await new Promise((resolve, reject) => {
      demo.child.on('error', reject);
      demo.child.on('exit', () => reject(new Error(`the demo does not start:\n${log.join('\n')}`)));
      createInterface(demo.child.stderr).on('line', line => {
        log.push(line);
        const ready = /^realtime-demo is ready at http:\/\/127\.0\.0\.1:(\d+)/.exec(line);
        if (ready) resolve(Number(ready[1]));
      });
    });
    return demo;
  }

  url(path = '/resource') {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  async api(method, path, body) {
    const headers = { 'X-API-Key': API_KEY };
    const response = await fetch(this.url(path), { method, headers, body: body && JSON.stringify(body) });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Publishes a text to a user and returns its position. */
  async publish(user, message, more = {}) {
    return (await this.api('POST', '/api/publish', { userIds: [user], message, ...more })).position;
  }

  /** What a user asks the simulated model. */
  async ai(token, method, path, body) {
    const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
    const response = await fetch(this.url(`/demo/ai${path}`), { method, headers, body: body && JSON.stringify(body) });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${JSON.stringify(answer)}`);
    return answer.data ?? answer;
  }

  async sessions(user) {
    return (await this.api('GET', `/api/online/${user}`)).sessions;
  }

  kick(user) {
    return this.api('DELETE', `/api/online/${user}`);
  }

  signal(name) {
    this.child.kill(name);
  }

  async stop(name = 'SIGKILL') {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exit = once(this.child, 'exit');
    this.child.kill(name);
    await exit;
  }
}
