// A mini-program without the client: see docs/howto/mini-programs.md.
declare const wx: any;

/** Opens a socket, and another one behind the last message whenever it has ended. */
export function dial(url: string, token: string, show: (text: string) => void, cursor = '') {
  const task = wx.connectSocket({
    url: cursor ? `${url}?cursor=${cursor}` : url,
    protocols: ['realtime.v1'],
    header: { Authorization: `Bearer ${token}` },
    fail: () => {},
  });
  let retry: number | null = 1000 + Math.random() * 2000;
  task.onMessage(({ data }: { data: string }) => {
    const frame = JSON.parse(data);
    cursor = frame.id ?? frame.cursor ?? cursor;
    if (frame.type === 'message') show(frame.data);
    if (frame.type === 'gap') show('messages are missing: load the state afresh');
    if (frame.type === 'ping') task.send({ data: '{"type":"pong"}' });
    if (frame.type === 'bye') retry = frame.retry;
  });
  task.onClose(() => {
    // After a kick, or where the login has ended, nobody comes back.
    if (retry !== null) setTimeout(() => dial(url, token, show, cursor), retry);
  });
  return task;
}
