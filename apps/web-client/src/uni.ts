import type { Dial, Options, SocketLike } from './options.js';
import { Utf8Decoder, fromBase64 } from './utf8.js';

/** The part of `uni` (uni-app) or `wx` (WeChat) that is used. */
export interface MiniApp {
  connectSocket(options: any): any;
  request(options: any): any;
  getStorageSync(key: string): any;
  setStorageSync(key: string, value: any): void;
  onAppShow?(run: (event: any) => void): void;
  offAppShow?(run: (event: any) => void): void;
  onAppHide?(run: (event: any) => void): void;
  offAppHide?(run: (event: any) => void): void;
  onNetworkStatusChange?(run: (event: { isConnected: boolean }) => void): void;
  offNetworkStatusChange?(run: (event: { isConnected: boolean }) => void): void;
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
  /** What ends the sockets and requests that are open. */
  const open = new Set<(reason: string) => void>();
  /**
   * Sockets that were told to close and have not said that they did, and whether there was a network then: without one,
   * `close` does nothing. On some platforms what they get comes to the newest socket, where nobody can tell it apart.
   */
  const lingering = new Map<any, boolean>();

  function Socket(url: string, protocols: string[], init?: { headers: Record<string, string> }): SocketLike {
    const socket: SocketLike & { readyState: number } = {
      /** 0: opens. 1: open. 2: told to close. 3: lost. */
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
      // What has been heard may have been meant for an older one.
      leave(3, true);
      socket.onclose?.({ code, reason });
    };
    const fail = async ({ errMsg }: Failure) => {
      await null;
      lose(errMsg);
    };

    for (const old of lingering.keys()) old.close(OURS);
    open.add(lose);
    // Without a callback it is a promise.
    const task = app.connectSocket({ url, protocols, header: init?.headers, success() {}, fail });
    task?.onOpen(() => {
      // It could not be closed while it opened.
      if (socket.readyState) return task.close(OURS);
      const late = [...lingering].filter(([, told]) => !told);
      for (const [old] of late) {
        lingering.set(old, true);
        old.close(OURS);
      }
      if (late.length) return lose('an older socket was open');
      lingering.clear();
      socket.readyState = 1;
    });
    task?.onMessage((event: { data: string }) => socket.readyState === 1 && socket.onmessage?.(event));
    // On some platforms no `onClose` follows.
    task?.onError(({ errMsg }: Failure) => {
      lose(errMsg);
      lingering.delete(task);
    });
    task?.onClose(({ code, reason }: { code: number; reason: string }) => {
      // While it opens it may be the end of an older one.
      if (!lingering.has(task) && !socket.readyState && lingering.size) return;
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
      const begin = ({ statusCode, header }: Answer) =>
        resolve({
          status: statusCode,
          ok: statusCode > 199 && statusCode < 300,
          headers: { get: (name: string) => header[Object.keys(header).find(key => key.toLowerCase() === name.toLowerCase())!] ?? null },
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
          // In the background the platform has ended what was open, or made it hang.
          if (Date.now() - hidden! >= GRACE) for (const lose of open) lose('in the background');
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
  statusCode: number;
  header: Record<string, string>;
  data?: ArrayBuffer;
}

/** Milliseconds: time limit of a stream. The platform's default ends one after a minute. */
const DAY = 86_400_000;
/** Milliseconds that the platform leaves to an application in the background. */
const GRACE = 5000;
/** What our closes say. Should it come to a newer socket, it is no order of the server. */
const OURS = { code: 3999 };
