import { address, type Link, type Request, type Sink } from './link.js';

/**
 * Opens a native `EventSource`, which reconnects by itself after the server's `retry`. It shows neither heartbeats nor
 * statuses, and events only to who asked for them by name.
 */
export function openEventSource(request: Request, sink: Sink): Link {
  const source = new request.platform.EventSource!(address(request, 'sse', true));
  const names = new Set<string>();
  let last = request.cursor ?? '';

  const listen = (event: string) => {
    // Its own events; no message has these names.
    if (names.has(event) || event === 'open' || event === 'error') return;
    names.add(event);
    source.addEventListener(event, ({ data, lastEventId }: { data: string; lastEventId: string }) => {
      sink.heard();
      if (event === 'gap') {
        const { reason, spread = 0 } = JSON.parse(data);
        sink.gap({ reason, cursor: lastEventId || null, spread });
      } else if (event === 'realtime.bus') {
        sink.cursor(lastEventId);
        sink.bus(JSON.parse(data).downSince);
      } else {
        // A message without an id of its own comes with the one before it.
        sink.message({ id: lastEventId === last ? null : lastEventId || null, event, data });
      }
      last = lastEventId;
    });
  };

  for (const event of ['message', 'gap', 'realtime.bus', ...request.events]) listen(event);
  source.onopen = () => {
    sink.heard();
    sink.live(null);
    // If it is not up, the next heartbeat says so.
    sink.bus(null);
  };
  source.onerror = () => {
    if (source.readyState === 2) sink.end({ reason: 'not an event stream', verdict: 'retry', stale: true });
    else sink.broken();
  };
  return {
    listen,
    close: () => source.close(),
  };
}
