import {
  type InjectionKey,
  type MaybeRefOrGetter,
  type ShallowRef,
  getCurrentInstance,
  inject,
  onBeforeMount,
  onScopeDispose,
  provide,
  shallowRef,
  toValue,
  watch,
} from 'vue';
import { connect, type Connection, type Message, type Options, type Status } from './index.js';

/** A connection as a component sees it. */
export interface Realtime {
  /** Absent on a server, and until the component is about to be mounted. */
  connection: Readonly<ShallowRef<Connection | undefined>>;
  status: Readonly<ShallowRef<Status>>;
}

/** A topic as a component sees it. */
export interface Topic {
  /** The last message of it. */
  last: Readonly<ShallowRef<Message | undefined>>;
  /** Whether the server has granted it; until it answers `undefined`. */
  granted: Readonly<ShallowRef<boolean | undefined>>;
  /** Why it is refused. */
  refused: Readonly<ShallowRef<string | undefined>>;
}

export interface TopicOptions {
  /** The messages that are wanted, by their event. Default: all. */
  event?: string;
  /** Default: that of the nearest component above that has called `useRealtime` with options. */
  realtime?: Realtime;
}

const KEY: InjectionKey<Realtime> = Symbol('realtime');

/**
 * Connects when the component is about to be mounted, never on a server, and closes with it. Given a connection, uses that
 * one and leaves it open. The components below get it by `useRealtime()`, as does whatever calls `useTopic`.
 */
export function useRealtime(source?: Options | Connection): Realtime {
  const component = getCurrentInstance();
  if (!source) {
    const given = inject(KEY, undefined);
    if (!given) throw new Error('realtime: no component above has called useRealtime with options');
    return given;
  }
  const connection = shallowRef<Connection>();
  const status = shallowRef<Status>({ state: 'idle' });
  const given = 'on' in source;
  let end = () => {};
  const begin = () => {
    const used = given ? source : connect(source);
    const off = used.on('status', value => {
      status.value = value;
    });
    end = () => {
      if (!given) used.close();
      off();
    };
    status.value = used.status;
    connection.value = used;
  };
  onScopeDispose(() => end());
  const realtime = { connection, status };
  if (component) {
    provide(KEY, realtime);
    // A server does not call it.
    onBeforeMount(begin);
  } else {
    begin();
  }
  return realtime;
}

/** Subscribes to a topic while the component is mounted, and to another one when it changes. */
export function useTopic(
  topic: MaybeRefOrGetter<string | undefined>,
  handler?: (message: Message) => void,
  { event = '*', realtime = useRealtime() }: TopicOptions = {},
): Topic {
  const last = shallowRef<Message>();
  const granted = shallowRef<boolean>();
  const refused = shallowRef<string>();
  watch(
    [realtime.connection, () => toValue(topic)] as const,
    ([connection, name], _, onCleanup) => {
      last.value = granted.value = refused.value = undefined;
      if (!connection || !name) return;
      const ends = [
        connection.on(event, message => {
          last.value = message as Message;
          handler?.(message as Message);
        }, name),
        connection.on('topics', ({ subscribed, refused: others }) => {
          const no = others.find(other => other.topic === name);
          if (!no && !subscribed.includes(name)) return;
          granted.value = !no;
          refused.value = no?.reason;
        }),
      ];
      if (connection.topics.includes(name)) granted.value = true;
      onCleanup(() => ends.forEach(end => end()));
    },
    { immediate: true, flush: 'sync' },
  );
  return { last, granted, refused };
}
