import type { Dial, Options, SocketLike } from './options.js';
import { Utf8Decoder, fromBase64 } from './utf8.js';

/** The part of `uni` (uni-app) or `wx` (WeChat) that is used. */
export interface MiniApp {
  connectSocket(options: any): any;
  request(options: any): any;
  getStorageSync(key: string): any;
  setStorageSync(key: string, value: any): void;
  onAppShow?(run: (event: any) => void): void;
  offAppShow?(run: any): void;
  onAppHide?(run: (event: any) => void): void;
  offAppHide?(run: any): void;
  onNetworkStatusChange?(run: (event: any) => void): void;
  offNetworkStatusChange?(run: any): void;
}

declare const uni: MiniApp | undefined;
declare const wx: MiniApp | undefined;

/**
 * Options of `connect` for a mini-program or an app of uni-app: sockets, requests, wake-ups and storage of `uni` or `wx`,
 * with the token in a header. In a browser (uni-app's H5) they are empty, since everything is there.
 */
export function miniApp(
  app = typeof uni === 'undefined' ? (typeof wx === 'undefined' ? undefined : wx) : uni,
): Pick<Options, 'dial' | 'headers' | 'storage'> {
  if (!app || typeof document !== 'undefined') return {};
  return {
    dial: dial(app),
    headers: {},
    storage: {
      getItem: key => app.getStorageSync(key) || null,
      setItem: (key, value) => app.setStorageSync(key, value),
    },
  };
}

function dial(app: MiniApp): Dial {
  /** The functions that end the open sockets and requests. */
  const open = new Set<(reason: string) => void>();
  /**
   * Sockets that have been closed and have not reported it yet, and whether there was a network at that time: without
   * one, `close` has no effect. On some platforms their events reach the handlers of the newest socket.
   */
  const lingering = new Map<any, boolean>();

  function Socket(url: string, protocols: string[], init?: { headers: Record<string, string> }): SocketLike {
    const socket: SocketLike & { readyState: number } = {
      /** 0: opening. 1: open. 2: closed by the client. 3: lost. */
      readyState: 0,
      onmessage: null,
      onclose: null,
      onerror: null,
      send: data => task.send({ data, fail }),
      close() {
        if (socket.readyState < 2) leave(2, false);
      },
    };
    const leave = (state: number, told: boolean) => {
      socket.readyState = state;
      open.delete(lose);
      if (!task) return;
      lingering.set(task, told);
      task.close(OURS);
    };
    const lose = (reason: string, code = 1006) => {
      if (socket.readyState > 1) return;
      // It is closed here in any case: the event may have been another socket's.
      leave(3, true);
      socket.onclose?.({ code, reason });
    };
    const fail = async ({ errMsg }: Failure) => {
      await null;
      lose(errMsg);
    };

    for (const old of lingering.keys()) old.close(OURS);
    open.add(lose);
    // Without a callback uni-app returns a promise.
    const task = app.connectSocket({ url, protocols, header: init?.headers, success() {}, fail });
    task?.onOpen(() => {
      // Some platforms cannot close a socket that is opening.
      if (socket.readyState) return task.close(OURS);
      const late = [...lingering].filter(([, told]) => !told);
      for (const [old] of late) {
        lingering.set(old, true);
        old.close(OURS);
      }
      if (late.length) return lose('an older socket is open');
      lingering.clear();
      socket.readyState = 1;
    });
    task?.onMessage((event: { data: string }) => socket.readyState === 1 && socket.onmessage?.(event));
    // In apps no `onClose` follows.
    task?.onError(({ errMsg }: Failure) => {
      lose(errMsg);
      lingering.delete(task);
    });
    task?.onClose(({ code, reason }: { code: number; reason: string }) => {
      lose(reason, code);
      lingering.delete(task);
    });
    return socket;
  }

  const fetch = (url: string, { method, headers, body, signal }: any) =>
    new Promise<any>((resolve, reject) => {
      const stream = /event-stream/.test(headers?.Accept);
      const chunks: Uint8Array[] = [];
      let chunked = false;
      let ended = false;
      let failure: Error | undefined;
      let moved = () => {};
      const read = async () => {
        while (!chunks.length && !ended) await new Promise<void>(run => (moved = run));
        const value = chunks.shift();
        if (!value && failure) throw failure;
        return { value, done: !value };
      };
      const push = (data?: ArrayBuffer) => {
        if (data?.byteLength) chunks.push(new Uint8Array(data));
        moved();
      };
      // Old versions of WeChat leave the status out; the server has it in the body of an error, too.
      const begin = ({ statusCode = 200, header }: Answer) =>
        resolve({
          status: statusCode,
          ok: statusCode > 199 && statusCode < 300,
          headers: {
            get: (name: string) => {
              for (const key in header) if (key.toLowerCase() === name.toLowerCase()) return header[key];
              return null;
            },
          },
          body: { getReader: () => ({ read }) },
          async json() {
            const decoder = new Utf8Decoder();
            let text = '';
            for (let part; (part = (await read()).value); ) text += decoder.decode(part);
            return JSON.parse(text);
          },
        });
      const end = (reason?: string) => {
        open.delete(lose);
        ended = true;
        if (reason) reject((failure = new Error(reason)));
        moved();
      };
      const lose = (reason: string) => {
        end(reason);
        task.abort();
      };
      open.add(lose);
      const task = app.request({
        url,
        method,
        header: headers,
        data: body,
        responseType: 'arraybuffer',
        enableChunked: stream,
        timeout: stream ? DAY : undefined,
        success(answer: Answer) {
          if (!chunked) push(answer.data);
          begin(answer);
          end();
        },
        fail: ({ errMsg }: Failure) => end(errMsg),
      });
      if (signal) signal.onabort = () => lose('aborted');
      task.onHeadersReceived?.(begin);
      if (task.onChunkReceived) {
        task.onChunkReceived(({ data }: Answer) => {
          chunked = true;
          push(data);
        });
      } else if (stream) lose('no streams here');
    });

  return {
    WebSocket: Socket as unknown as Dial['WebSocket'],
    socketHeaders: true,
    fetch,
    AbortController: Abort,
    TextDecoder: Utf8Decoder,
    atob: fromBase64,
    wake(awake) {
      let hidden: number | undefined;
      const listeners: Record<string, (event: any) => void> = {
        AppHide: () => (hidden = Date.now()),
        AppShow() {
          // The platform has ended sockets and requests, with or without an event.
          if (Date.now() - hidden! >= GRACE) for (const lose of open) lose('in background');
          hidden = undefined;
          setTimeout(awake, 0);
        },
        NetworkStatusChange: ({ isConnected }) => isConnected && awake(),
      };
      const all = (verb: string) => {
        for (const name in listeners) (app as any)[verb + name]?.(listeners[name]);
      };
      all('on');
      return () => all('off');
    },
  };
}

class Abort {
  signal = {} as AbortSignal;
  abort() {
    this.signal.onabort?.(undefined as any);
  }
}

interface Failure {
  errMsg: string;
}

interface Answer {
  statusCode?: number;
  header: Record<string, string>;
  data?: ArrayBuffer;
}

/** Milliseconds: time limit of an event stream. The platform's default is one minute. */
const DAY = 86_400_000;
/** Milliseconds in the background after which the platform ends sockets and requests. */
const GRACE = 5000;
/** The client's close. Its code is none of the server's, in case that the event reaches a newer socket. */
const OURS = { code: 3999, fail() {} };
