// A real nginx in front of the server, as a process of its own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export class Nginx {
  /** `locations`: the lines of a location by its path. Each passes on to the server's `/resource/`. */
  static async start(port, locations) {
    const nginx = new Nginx();
    nginx.folder = mkdtempSync(join(tmpdir(), 'realtime-nginx-'));
    nginx.port = await free();
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
    writeFileSync(
      join(nginx.folder, 'nginx.conf'),
      `daemon off;
      master_process off;
      pid nginx.pid;
      error_log stderr warn;
      events {}
      http {
        access_log off;
        ${temporary.map(name => `${name}_temp_path ${name};`).join('\n')}
        map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
        server {
          listen 127.0.0.1:${nginx.port};
          proxy_http_version 1.1;
          proxy_set_header Host $http_host;
          ${Object.entries(locations)
            .map(([path, lines]) => `location ${path} { proxy_pass http://127.0.0.1:${port}/resource/; ${lines} }`)
            .join('\n')}
        }
      }`,
    );
    await nginx.begin();
    return nginx;
  }

  async begin() {
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
    const flags = ['-p', this.folder, '-c', 'nginx.conf', '-e', 'stderr'];
    this.child = spawn('nginx', flags, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    this.child.stderr.on('data', data => (log += data));
    const ended = new Promise((_, reject) => {
      this.child.on('error', reject);
      this.child.on('exit', code => reject(new Error(`nginx has ended with ${code}: ${log}`)));
    });
    ended.catch(() => {});
    while (!(await Promise.race([listens(this.port), ended])));
  }

  url(path) {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  /** Ends the process, and all connections through it. */
  async end() {
    const exit = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    await exit;
  }

  async stop() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function free() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

function listens(port) {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1');
    const end = value => {
      socket.destroy();
      setImmediate(resolve, value);
    };
    socket.on('connect', () => end(true)).on('error', () => end(false));
  });
}
