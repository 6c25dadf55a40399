// src/utils/realtime.ts of plus-ui: in place of src/utils/sse.ts and src/utils/websocket.ts.
import { connect, type Connection, type Options } from '@realtime/client';
import { ElNotification } from 'element-plus';
import { getToken } from '@/utils/auth';
import useNoticeStore from '@/store/modules/notice';
import useUserStore from '@/store/modules/user';

const open = new Map<string, Connection>();

const start = (kind: string, url: Options['url']) => {
  // The layout is mounted again after a login.
  open.get(kind)?.close();
  const realtime = connect({
    url,
    // Asked whenever it is needed, so that the token of the page's load is not the last one.
    token: () => getToken() ?? '',
    clientId: import.meta.env.VITE_APP_CLIENT_ID,
    name: `${kind} ${useUserStore().userId}`,
  });
  open.set(kind, realtime);

  realtime.on('message', ({ data }) => {
    useNoticeStore().addNotice({ message: data, read: false, time: new Date().toLocaleString() });
    ElNotification({ title: '消息', message: data, type: 'success', duration: 3000 });
  });
  // Older messages than the server keeps are missing here. Load what the page shows of them afresh.
  realtime.on('gap', ({ reason }) => console.warn(`realtime: messages are missing (${reason})`));
  realtime.on('status', ({ state, code, reason }) => {
    if (state === 'refused') console.warn(`realtime: the server wants this login no longer (${code}, ${reason})`);
  });
  return realtime;
};

/** As before: `initWebSocket(`${protocol}${location.host}${BASE_API}/resource/websocket`)`. */
export const initWebSocket = (url: string) => {
  if (import.meta.env.VITE_APP_WEBSOCKET === 'false') return;
  return start('websocket', { websocket: url });
};

/** As before: `initSSE(`${BASE_API}/resource/sse`)`. */
export const initSSE = (url: string) => {
  if (import.meta.env.VITE_APP_SSE === 'false') return;
  return start('sse', { sse: url });
};

/** One connection in place of both, by WebSocket where it can: `initRealtime(`${BASE_API}/resource`)`. */
export const initRealtime = (url: string) => start('realtime', url);

/** Upon logout, in place of `GET /resource/sse/close`. */
export const closeRealtime = () => {
  for (const realtime of open.values()) realtime.close();
  open.clear();
};
