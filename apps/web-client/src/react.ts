import {
  type FunctionComponentElement,
  type ReactNode,
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import { connect, type Connection, type Message, type Options, type Status } from './index.js';

/** A connection as a component sees it. */
export interface Realtime {
  /** Absent on a server, and until the component is mounted. */
  connection: Connection | undefined;
  status: Status;
}

/** A topic as a component sees it. */
export interface Topic {
  /** The last message of it. */
  last?: Message;
  /** Whether the server has granted it; absent until it answers. */
  granted?: boolean;
  /** Why it is refused. */
  refused?: string;
}

export interface TopicOptions {
  /** The messages that are wanted, by their event. Default: all. */
  event?: string;
  /** Default: that of the nearest `RealtimeProvider`. */
  realtime?: Realtime;
}

const IDLE: Status = { state: 'idle' };
const NONE: Topic = {};
const Context = createContext<Realtime | undefined>(undefined);

/** Gives the components below the connection of `useRealtime(source)`. */
export function RealtimeProvider(props: {
  source: Options | Connection;
  children?: ReactNode;
}): FunctionComponentElement<any> {
  return createElement(Context.Provider, { value: useRealtime(props.source) }, props.children);
}

/**
 * Connects when the component is mounted, never on a server, and closes with it; the options of its first rendering count.
 * Given a connection, uses that one and leaves it open. Without either: that of the nearest `RealtimeProvider`.
 */
export function useRealtime(source?: Options | Connection): Realtime {
  const above = useContext(Context);
  const [connection, setConnection] = useState<Connection>();
  const first = useRef(source);
  useEffect(() => {
    const source = first.current;
    if (!source) return;
    const given = 'on' in source;
    const used = given ? source : connect(source);
    setConnection(used);
    return () => {
      if (!given) used.close();
    };
  }, []);
  const status = useSyncExternalStore(
    useCallback(changed => connection?.on('status', changed) ?? (() => {}), [connection]),
    () => connection?.status ?? IDLE,
    () => IDLE,
  );
  if (first.current) return { connection, status };
  if (!above) throw new Error('realtime: no RealtimeProvider is above');
  return above;
}

/** Subscribes to a topic while the component is mounted, and to another one when it changes. */
export function useTopic(
  topic: string | undefined,
  handler?: (message: Message) => void,
  { event = '*', realtime }: TopicOptions = {},
): Topic {
  const above = useContext(Context);
  if (!realtime && !above) throw new Error('realtime: no RealtimeProvider is above');
  const { connection } = (realtime ?? above)!;
  const latest = useRef(handler);
  useEffect(() => {
    latest.current = handler;
  });
  const [state, setState] = useState(NONE);
  useEffect(() => {
    setState(NONE);
    if (!connection || !topic) return;
    const ends = [
      connection.on(event, message => {
        setState(state => ({ ...state, last: message as Message }));
        latest.current?.(message as Message);
      }, topic),
      connection.on('topics', ({ subscribed, refused }) => {
        const no = refused.find(other => other.topic === topic);
        if (no || subscribed.includes(topic)) setState(({ last }) => ({ last, granted: !no, refused: no?.reason }));
      }),
    ];
    if (connection.topics.includes(topic)) setState({ granted: true });
    return () => ends.forEach(end => end());
  }, [connection, topic, event]);
  return state;
}
