// A mini-program of WeChat or another platform: see docs/howto/mini-programs.md.
import { connect } from '@realtime/client';
import { type MiniApp, miniApp } from '@realtime/client/uni';

declare const wx: MiniApp;

/** Connects once for the whole application, in `onLaunch` of app.js. */
export function start(url: string, show: (text: string) => void) {
  const realtime = connect({
    ...miniApp(wx), // with uni-app: miniApp(uni)
    url, // https://example.com/resource, listed as socket domain
    token: () => wx.getStorageSync('token'),
    clientId: 'web',
    transports: ['websocket'], // with 'sse' on WeChat
  });
  realtime.on('message', ({ data }) => show(data));
  return realtime;
}
