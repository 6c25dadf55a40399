import { type End, verdictOfStatus } from './end.js';
import { address, headersOf, type Link, type Request, type Sink } from './link.js';
import { type Block, EventParser } from './parser.js';
import { tell } from './told.js';

/** Opens an event stream that is read with `fetch`. */
export function openStream(request: Request, sink: Sink): Link {
  const { platform } = request;
  const abort = new platform.AbortController();
  let retry: number | undefined;
  let live = false;
  let broken = true;
  let ended = false;
  const teller = tell(request, sink);

  const end = (end: End) => {
    if (ended) return;
    ended = true;
    abort.abort();
    sink.end(end);
  };
  const take = (block: Block) => {
    if (ended) return;
    const { event, data, topic, id = null } = block;
    retry = block.retry ?? retry;
    // The server's farewell, and its whole answer when it has no room now.
    if (block.comment === 'disconnected') {
      broken = false;
      return;
    }
    if (!live) {
      live = true;
      sink.live(id);
    } else if (data === undefined) {
      sink.cursor(id);
      if (block.comment === 'heartbeat') sink.bus(null);
    }
    if (data !== undefined && !teller.take(event, data, id)) {
      sink.message({ id, event, ...(topic && { topic }), data });
    }
  };
  const run = async () => {
    const headers = headersOf(request);
    const response = await platform.fetch!(address(request, 'sse', !headers), {
      headers: {
        Accept: 'text/event-stream',
        ...headers,
      },
      cache: 'no-store',
      signal: abort.signal,
    });
    if (response.status !== 200 || !/^text\/event-stream/i.test(response.headers.get('content-type')!)) {
      end(await refusal(response, platform.now()));
      return;
    }
    const parser = new EventParser(take, new platform.TextDecoder());
    const reader = response.body!.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (ended) return;
      if (done) break;
      sink.heard();
      parser.push(value);
    }
    end({ reason: live ? 'ended' : 'no room', retry, broken, verdict: 'retry' });
  };
  run().catch(error => end({ reason: String(error?.message ?? error), retry, broken, verdict: 'retry' }));

  return {
    refresh: teller.refresh,
    close() {
      ended = true;
      abort.abort();
    },
  };
}

/** End that an answer which is no event stream stands for. With `auth.errorStatus: 200` the status is in its body. */
async function refusal(response: Response, now: number): Promise<End> {
  const body: { code?: number; msg?: string } = await response.json().catch(() => ({}));
  const code = (response.status === 200 && body?.code) || response.status;
  const after = response.headers.get('retry-after') ?? NaN;
  const retry = +after >= 0 ? +after * 1000 : Date.parse(`${after}`) - now;
  return {
    code,
    reason: body?.msg ?? `HTTP ${code}`,
    retry: retry >= 0 ? retry : undefined,
    verdict: verdictOfStatus(code),
  };
}
