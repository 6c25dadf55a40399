// An origin with a page that uses the client; everything else on it is the server's.
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer, request as ask } from 'node:http';
import { connect } from 'node:net';

const PAGE = `<!doctype html><title>test</title><script type="module">
import { connect } from '/dist/index.js';
import { eventSource } from '/dist/eventsource.js';
import { stream } from '/dist/text-stream.js';
const query = new URLSearchParams(location.search);
window.states = [];
window.gaps = 0;
window.got = JSON.parse(sessionStorage.getItem('got') ?? '[]');
window.here = 0;
const { sse, answer, ...options } = JSON.parse(query.get('options'));
window.client = connect({ url: '/resource', clientId: 'web', ...options, ...(sse && { sse: eventSource }) });
client.on('*', ({ data }) => {
  here++;
  got.push(data);
  sessionStorage.setItem('got', JSON.stringify(got));
});
client.on('gap', () => gaps++);
if (answer) window.answer = stream(client, answer);
client.on('status', status => states.push(status));
</script>`;

export class Origin {
  static async start(port) {
    const origin = new Origin();
    origin.server = createServer(async (request, response) => {
      const file = /^\/(dist\/[\w-]+\.js)$/.exec(request.url)?.[1];
      if (file) response.writeHead(200, { 'content-type': 'text/javascript' }).end(await readFile(new URL(`../../${file}`, import.meta.url)));
      else if (request.url.startsWith('/page')) response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
      else origin.#forward(request, response, port);
    });
    origin.server.on('upgrade', (request, socket) => origin.#pass(request, socket, port));
    origin.server.listen(0, '127.0.0.1');
    await once(origin.server, 'listening');
    origin.port = origin.server.address().port;
    return origin;
  }

  url(options) {
    return `http://127.0.0.1:${this.port}/page?options=${encodeURIComponent(JSON.stringify(options))}`;
  }

  #forward({ url, headers }, response, port) {
    const forwarded = ask({ host: '127.0.0.1', port, path: url, headers, agent: false }, answer => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.on('error', () => response.destroy()).pipe(response);
    });
    forwarded.on('error', () => response.destroy()).end();
    response.on('close', () => forwarded.destroy());
  }

  #pass({ url, rawHeaders }, client, port) {
    const server = connect(port, '127.0.0.1');
    for (const [one, other] of [[client, server], [server, client]]) {
      one.on('error', () => other.destroy()).on('close', () => other.destroy());
    }
    let head = `GET ${url} HTTP/1.1\r\n`;
    for (let i = 0; i < rawHeaders.length; i += 2) head += `${rawHeaders[i]}: ${rawHeaders[i + 1]}\r\n`;
    server.write(`${head}\r\n`);
    server.pipe(client).pipe(server);
  }

  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}
