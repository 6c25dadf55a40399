import { address, gapOf, headersOf, type Request, type Sink } from './link.js';

/** What an event stream tells by events of its own: everything that is no message. */
export const TOLD = ['gap', 'realtime.bus', 'realtime.hello', 'realtime.expiring'];

/** Side of an event stream that is the same for all its readers. */
export function tell(request: Request, sink: Sink) {
  let session: string | undefined;
  return {
    /** Takes an event that is none of the application's. Returns whether it was one. */
    take(event: string, data: string, cursor: string | null): boolean {
      if (!TOLD.includes(event)) return false;
      const told = JSON.parse(data);
      if (event === 'gap') sink.gap(gapOf(told, cursor));
      else if (event === 'realtime.bus') {
        sink.cursor(cursor);
        sink.bus(told.downSince);
      } else if (event === 'realtime.hello') {
        session = told.session;
        sink.told(told);
      } else sink.expiring();
      return true;
    },
    /** Brings the session a new token. */
    async refresh(token: string) {
      const { fetch } = request.platform;
      const renewed = { ...request, token };
      const headers = headersOf(renewed);
      const url = address(renewed, 'sse', !headers, '/refresh', { session: session! });
      try {
        // With `auth.errorStatus: 200` the status is in the body.
        if ((await (await fetch!(url, { method: 'POST', headers })).json()).code === 200) return;
      } catch {}
      sink.unrefreshed();
    },
  };
}
