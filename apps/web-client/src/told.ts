import { address, gapOf, headersOf, type Request, type Sink } from './link.js';

/** Side of an event stream that is the same for all its readers. */
export function tell(request: Request, sink: Sink) {
  let session: string | undefined;
  return {
    /** Takes an event that is none of the application's. Returns whether it was one. */
    take(event: string, data: string, cursor: string | null): boolean {
      if (event === 'gap') sink.gap(gapOf(JSON.parse(data), cursor));
      else if (event === 'realtime.bus') {
        sink.cursor(cursor);
        sink.bus(JSON.parse(data).downSince);
      } else if (event === 'realtime.hello') {
        const told = JSON.parse(data);
        session = told.session;
        sink.told(told);
      } else if (event === 'realtime.expiring') sink.expiring();
      else return false;
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
        if ((await (await fetch!(url, { method: 'POST', headers })).json()).code === 200) return sink.refreshed();
      } catch {}
      sink.unrefreshed();
    },
  };
}
