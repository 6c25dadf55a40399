// A TCP proxy with the faults of networks.
import { connect, createServer } from 'node:net';
import { once } from 'node:events';

export class Proxy {
  #pairs = new Set();
  /** Whether WebSocket handshakes are broken off. */
  blocked = false;
  /** The server's port, for new connections. */
  target;
  /** Whether connections are broken off at once. */
  down = false;
  handshakes = 0;
  connections = 0;

  static async start(port) {
    const proxy = new Proxy();
    proxy.target = port;
    proxy.server = createServer(client => proxy.#take(client));
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  url(path = '/resource') {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  #take(client) {
    this.connections++;
    if (this.down) {
      client.destroy();
      return;
    }
    const server = connect(this.target, '127.0.0.1');
    const pair = [client, server];
    const end = () => {
      client.destroy();
      server.destroy();
      this.#pairs.delete(pair);
    };
    this.#pairs.add(pair);
    for (const socket of pair) socket.on('error', end).on('close', end);
    client.on('data', data => {
      if (/^upgrade: websocket/im.test(data)) {
        this.handshakes++;
        if (this.blocked) {
          end();
          return;
        }
      }
      if (!pair.stalled) server.write(data);
    });
    server.on('data', data => pair.stalled || client.write(data));
  }

  /** Breaks off all connections. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  /** Lets nothing through on the connections that are open now. */
  stall() {
    for (const pair of this.#pairs) pair.stalled = true;
  }

  stop() {
    this.cut();
    this.server.close();
  }
}
