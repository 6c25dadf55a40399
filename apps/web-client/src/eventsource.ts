import { address, type Link, type Request, type Sink } from './link.js';
import { tell } from './told.js';

/**
 * Reader of event streams by a native `EventSource`, for the option `sse`. It reconnects by itself after the server's
 * `retry`. It shows neither heartbeats nor statuses nor topics, and events only to who asked for them by name.
 */
export function eventSource(request: Request, sink: Sink): Link {
  const EventSource = request.options.dial?.EventSource ?? globalThis.EventSource;
  const source = new EventSource(address(request, 'sse', true));
  const teller = tell(request, sink);
  const names = new Set<string>();
  let last = request.cursor ?? '';

  const listen = (event: string) => {
    // Its own events; no message has these names.
    if (names.has(event) || event === 'open' || event === 'error') return;
    names.add(event);
    source.addEventListener(event, ({ data, lastEventId }: { data: string; lastEventId: string }) => {
      sink.heard();
      if (!teller.take(event, data, lastEventId || null)) {
        // A message without an id of its own comes with the one before it.
        sink.message({ id: lastEventId === last ? null : lastEventId || null, event, data });
      }
      last = lastEventId;
    });
  };

  for (const event of ['message', ...TOLD, ...request.events]) listen(event);
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
    refresh: teller.refresh,
    close: () => source.close(),
  };
}

/** Events that are no messages. */
const TOLD = ['gap', 'realtime.bus', 'realtime.hello', 'realtime.expiring'];
