import { type Bye, verdictOfClose } from './end.js';
import { address, gapOf, headersOf, type Link, type Request, type Sink } from './link.js';

/** Opens a WebSocket that speaks `realtime.v1`. */
export function openWebSocket(request: Request, sink: Sink): Link {
  const { platform, options } = request;
  const token = request.token.replace(/^Bearer /i, '');
  const headers = platform.socketHeaders ? headersOf(request) : undefined;
  // Only the characters of an HTTP token may stand in a subprotocol.
  const asProtocol = !headers && options.websocketToken !== 'query' && /^[\w!#$%&'*+.^`|~-]+$/.test(token);
  const url = address(request, 'websocket', !headers && !asProtocol).replace(/^http/, 'ws');
  const protocols = ['realtime.v1', ...(asProtocol ? [`bearer.${token}`] : [])];
  const socket = new platform.WebSocket!(url, protocols, headers && { headers });
  const send = (frame: object) => socket.send(JSON.stringify(frame));
  const close = () => {
    socket.onmessage = socket.onclose = null;
    socket.close(1000);
  };
  let bye: Bye | undefined;

  socket.onmessage = ({ data }) => {
    sink.heard();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      close();
      sink.end({ reason: 'a frame is no JSON', verdict: 'retry' });
      return;
    }
    switch (frame.type) {
      case 'hello':
        sink.live(frame.cursor);
        sink.told(frame);
        break;
      case 'message':
        sink.message({
          id: frame.id ?? null,
          event: frame.event,
          ...(frame.topic && { topic: frame.topic }),
          data: frame.data ?? '',
          ...(frame.base64 !== undefined && { bytes: bytes(platform.atob(frame.base64)) }),
        });
        break;
      case 'gap':
        sink.gap(gapOf(frame, frame.cursor));
        break;
      case 'subscribed':
        sink.cursor(frame.cursor);
        sink.told({ subscribed: frame.topics, refused: frame.refused });
        break;
      case 'expiring':
        sink.expiring();
        break;
      case 'refreshed':
        sink.refreshed();
        break;
      case 'refresh-refused':
        sink.unrefreshed();
        break;
      case 'ping':
        send({ type: 'pong' });
        sink.cursor(frame.cursor);
        sink.bus(frame.busDownSince ?? null);
        break;
      case 'bye':
        bye = frame;
    }
  };
  // A `close` follows.
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) =>
    sink.end({
      code,
      reason: bye?.reason || reason || 'broken off',
      retry: bye?.retry ?? undefined,
      verdict: verdictOfClose(code, bye),
    });

  return {
    send(text) {
      // A browser drops it without a word.
      if (socket.readyState !== 1) throw new Error('realtime: cannot send, the socket is closing');
      send({ type: 'message', data: text });
    },
    ping: () => send({ type: 'ping' }),
    topics(added, removed) {
      if (removed.length) send({ type: 'unsubscribe', topics: removed });
      if (added.length) send({ type: 'subscribe', topics: added });
    },
    refresh: token => send({ type: 'refresh', token: token.replace(/^Bearer /i, '') }),
    close,
  };
}

function bytes(binary: string): Uint8Array {
  return Uint8Array.from(binary, character => character.charCodeAt(0));
}
