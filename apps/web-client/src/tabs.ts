import type { Connection } from './connection.js';
import { order } from './cursor.js';
import { type Gap, type Link, type Message, type Open, type Sink, endpoint } from './link.js';
import type { Options, Platform, Transport } from './options.js';

/** What tabs tell each other. `leader` is the number of a leadership; a later one is higher. */
type Word =
  | { type: 'ask' }
  | { type: 'lead'; leader: number; live: boolean; transport?: Transport; seq: number; cursor: string | null }
  | { type: 'join'; leader: number; tab: string; number: number; cursor: string | null; topics: string[] }
  | { type: 'joined'; leader: number; tab: string; number: number; seq: number; transport: Transport; messages: Message[] }
  | { type: 'no'; leader: number; tab: string; number: number }
  | { type: 'message'; leader: number; seq: number; message: Message }
  | { type: 'gap'; leader: number; seq: number; gap: Gap; before: string | null }
  | { type: 'bus'; leader: number; seq: number; downSince: number | null }
  | { type: 'send'; leader: number; text: string }
  | { type: 'end'; leader: number; code?: number; reason: string; verdict: 'refused' | 'closed' };

/** A connection, and what it lets its tab do. */
interface Share {
  connection: Connection;
  options: Options;
  platform: Platform;
  /** The topics of which the tab has had what newcomers get; `*` for those of the login. */
  had: Set<string>;
  token(): string;
  attach(open: Open): void;
}

/**
 * Lets the tabs of one login share one connection. Each tab opens its own at first, with what a newcomer gets. One of
 * them leads; the others go over to its connection once it covers what they have had, and close their own. The lock of
 * the leader passes on when its tab ends; a leader that does not answer is overtaken.
 *
 * `token` returns the token of the last session. `attach` goes over to another link, if that can be tried now.
 */
export function share(
  connection: Connection,
  options: Options,
  platform: Platform,
  had: Set<string>,
  token: () => string,
  attach: (open: Open) => void,
): Promise<void> {
  return begin({ connection, options, platform, had, token, attach });
}

async function begin(share: Share): Promise<void> {
  if (share.options.shared === true || isLimited(share.options)) new Tab(share, await groupOf(share));
}

/** What a follower has of its leader's connection. */
interface Following {
  sink: Sink;
  link: Link;
  leader: number;
  /** Number of its last request to join. */
  number: number;
  /** Number of the last word that it took. */
  seq: number;
  joined: boolean;
  live: boolean;
}

/** A tab that would follow: its topics, and the number of its last request to join. */
interface Member {
  topics: string[];
  number: number;
  /** Takes the leader's connection out of them. */
  end(): void;
}

class Tab {
  readonly #share: Share;
  readonly #group: string;
  readonly #login: string;
  readonly #id = crypto.randomUUID();
  readonly #channel: BroadcastChannel;
  readonly #ends: (() => void)[];
  #closed = false;
  /** The newest leadership that was heard of, this tab's own included. */
  #newest = 0;
  /** This tab's own leadership. */
  #leading: number | undefined;
  #resign = () => {};
  #queued: AbortController | undefined;
  #following: Following | undefined;
  #numbers = 0;
  #timer: unknown;
  /** Questions to the leader in a row without a word from it. */
  #unanswered = 0;
  #heard = true;
  /** Number of the last word that was told. */
  #seq = 0;

  /** The last messages, without a hole. */
  #recent: Message[] = [];
  #size = 0;
  /** The cursor in front of them. */
  #from: string | null;
  /** The cursor behind them. */
  #last: string | null;
  /** Since where the messages of each topic are complete. */
  readonly #since = new Map<string, string | null>();
  /** The tabs that have asked to join. */
  readonly #members = new Map<string, Member>();

  constructor(share: Share, group: string) {
    const { connection } = share;
    this.#share = share;
    this.#group = group;
    this.#login = loginOf(share.token());
    this.#from = this.#last = connection.cursor;
    for (const topic of connection.topics) this.#since.set(topic, this.#from);
    this.#channel = new BroadcastChannel(group);
    this.#channel.onmessage = ({ data }) => this.#take(data);
    this.#ends = [
      connection.on('*', message => this.#message(message)),
      connection.on('gap', gap => this.#gap(gap)),
      connection.on('bus', ({ downSince }) => this.#tell({ type: 'bus', downSince })),
      connection.on('topics', ({ refused }) => {
        const { topics, cursor } = connection;
        for (const topic of this.#since.keys()) if (!topics.includes(topic)) this.#since.delete(topic);
        for (const topic of topics) if (!this.#since.has(topic)) this.#since.set(topic, cursor);
        this.#turnAway(refused);
        this.#announce();
      }),
      connection.on('status', () => this.#changed()),
    ];
    // Held as long as the tab lives.
    this.#lock(this.#id, () => new Promise<void>(end => this.#ends.push(end)));
    const { document } = globalThis;
    if (document) {
      const abort = new AbortController();
      // A frozen page still answers other tabs, while nothing comes over its connection.
      document.addEventListener('freeze', () => this.#leave(), abort);
      document.addEventListener('resume', () => this.#compete(false), abort);
      this.#ends.push(() => abort.abort());
    }
    void this.#compete(false);
    this.#changed();
  }

  /** Gives the leadership up, and asks for none. */
  #leave(): void {
    this.#queued?.abort();
    this.#queued = undefined;
    this.#resign();
    if (this.#leading !== undefined) this.#stepDown();
  }

  /** Waits for the leadership, or takes it from a leader that does not answer. */
  async #compete(steal: boolean): Promise<void> {
    this.#queued?.abort();
    const queued = new AbortController();
    this.#queued = queued;
    await navigator.locks
      .request(this.#group, steal ? { steal } : { signal: queued.signal }, () => this.#lead(queued))
      .catch(error => {
        // The page may have no locks, as in a sandboxed frame.
        if (error.name !== 'AbortError') this.#close();
      });
    if (queued !== this.#queued || this.#closed) return;
    // Another tab has taken it.
    this.#stepDown();
    void this.#compete(false);
  }

  #lead(queued: AbortController): Promise<void> | undefined {
    if (this.#closed || queued !== this.#queued) return;
    this.#newest = Math.max(Date.now(), Math.floor(this.#newest) + 1) + Math.random();
    this.#leading = this.#newest;
    this.#announce();
    // Its messages come over a connection of its own now.
    this.#end('this tab leads');
    return new Promise(resign => (this.#resign = resign));
  }

  #stepDown(): void {
    this.#leading = undefined;
    for (const { end } of this.#members.values()) end();
    this.#members.clear();
    this.#changed();
  }

  /** Ends what this tab has of another one's connection. The connection dials at once. */
  #end(reason: string): void {
    this.#following?.sink.end({ reason, retry: 0, verdict: 'retry' });
  }

  /** Looks at the state of the connection. */
  #changed(): void {
    const { connection, token } = this.#share;
    const { state, shared, code, reason = '' } = connection.status;
    if (state === 'refused' || state === 'closed') {
      // Another login of a tab may be good, and a frame that the server does not take is one tab's. What it says of this login
      // holds for all.
      if (code && !/^(4?401|100[2379])$/.test(`${code}`)) this.#tell({ type: 'end', code, reason, verdict: state });
      this.#close();
    } else if (state === 'live' && !shared && loginOf(token()) !== this.#login) {
      // Another user, and so other tabs.
      this.#close();
      void begin(this.#share);
    } else if (this.#leading !== undefined) this.#announce();
    else if (state === 'live' && !shared) {
      this.#post({ type: 'ask' });
      this.#watch();
    }
  }

  /** Whether the connection's transport is one to share. */
  get #wants(): boolean {
    const { connection, options } = this.#share;
    return options.shared === true || connection.status.transport === 'sse';
  }

  /** Looks after the leader, as long as there is a use for one. */
  #watch(): void {
    const { clearTimeout, setTimeout, random } = this.#share.platform;
    clearTimeout(this.#timer);
    if (this.#closed || this.#leading !== undefined || !this.#wants) return;
    this.#timer = setTimeout(() => {
      if (this.#heard) this.#unanswered = 0;
      else if (++this.#unanswered > 1) {
        this.#unanswered = 0;
        void this.#compete(true);
        return;
      }
      this.#heard = false;
      this.#post({ type: 'ask' });
      this.#watch();
    }, BEAT * (0.75 + random() / 2));
  }

  #announce(): void {
    if (this.#leading === undefined) return;
    const { status, cursor } = this.#share.connection;
    const live = status.state === 'live' && !status.shared;
    this.#post({ type: 'lead', leader: this.#leading, live, transport: status.transport, seq: this.#seq, cursor });
  }

  /** Tells those that follow. */
  #tell(word: any): void {
    if (this.#leading !== undefined) this.#post({ ...word, leader: this.#leading, seq: ++this.#seq });
  }

  #post(word: Word): void {
    if (!this.#closed) this.#channel.postMessage(word);
  }

  #message(message: Message): void {
    const { id } = message;
    // One of a topic that was new may come late: before the topic is said to be complete.
    if (id !== null && id === this.#share.connection.cursor) {
      this.#last = id;
      this.#from ??= id;
      this.#recent.push(message);
      this.#size += sizeOf(message);
      while (this.#recent.length > RECENT || this.#size > RECENT_SIZE) {
        const first = this.#recent.shift()!;
        this.#size -= sizeOf(first);
        this.#from = first.id;
      }
    }
    this.#tell({ type: 'message', message });
  }

  #gap(gap: Gap): void {
    const before = this.#last;
    this.#recent = [];
    this.#size = 0;
    this.#from = this.#last = gap.cursor;
    for (const topic of this.#since.keys()) this.#since.set(topic, gap.cursor);
    this.#tell({ type: 'gap', gap, before });
  }

  #take(word: Word): void {
    if (word.type === 'ask') this.#announce();
    else if (word.leader === this.#leading) {
      if (word.type === 'join') this.#join(word);
      else if (word.type === 'send') this.#share.connection.send(word.text);
    } else if (word.type === 'lead') {
      if (word.leader < this.#newest) return;
      this.#newest = word.leader;
      this.#heard = true;
      // Its lock is lost, too.
      if (this.#leading !== undefined) this.#stepDown();
      this.#follow(word);
    } else {
      const following = this.#following;
      if (!following || word.leader !== following.leader) return;
      this.#heard = true;
      following.sink.heard();
      if (word.type === 'no' || word.type === 'joined') {
        if (word.tab !== this.#id || word.number !== following.number) return;
        if (word.type === 'no') this.#end('the leader lacks some of it');
        else this.#joined(following, word);
      } else if (following.joined && 'seq' in word) {
        if (word.seq === ++following.seq) this.#hand(following.sink, word);
        else this.#end('words were lost');
      }
    }
  }

  /** Hands on what the leader has told. */
  #hand(sink: Sink, word: Word): void {
    if (word.type === 'message') sink.message(word.message);
    else if (word.type === 'gap') sink.gap(word.gap, word.before);
    else if (word.type === 'bus') sink.bus(word.downSince);
    else if (word.type === 'end') sink.end(word);
  }

  /** Takes note of who leads. */
  #follow({ leader, live, transport, seq, cursor }: Word & { type: 'lead' }): void {
    const { connection, had, attach } = this.#share;
    const following = this.#following;
    if (!following) {
      const hasAll = ['*', ...connection.topics].every(topic => had.has(topic));
      if (live && hasAll && this.#wants && !connection.status.shared) {
        attach((request, sink) => this.#open(leader, request.cursor, sink));
      }
      return;
    }
    const { sink } = following;
    sink.heard();
    // Its transport is told when a tab joins.
    if (following.leader !== leader || (live && transport !== connection.status.transport)) {
      following.leader = leader;
      following.joined = false;
      delete following.link.send;
    }
    following.live = live;
    if (!live) sink.broken();
    else if (!following.joined) this.#askToJoin(following, connection.cursor);
    else if (following.seq !== seq) this.#end('words were lost');
    else {
      if (connection.status.state !== 'live') sink.live(null);
      sink.cursor(cursor);
    }
  }

  /** Opens a link over the leader's connection. */
  #open(leader: number, cursor: string | null, sink: Sink): Link {
    const following: Following = {
      sink,
      leader,
      number: 0,
      seq: 0,
      joined: false,
      live: true,
      link: {
        ping: () => this.#post({ type: 'ask' }),
        // The leader is looked after here.
        listen: () => {},
        close: () => {
          if (this.#following === following) this.#following = undefined;
        },
      },
    };
    this.#following = following;
    this.#askToJoin(following, cursor);
    return following.link;
  }

  #askToJoin(following: Following, cursor: string | null): void {
    following.number = ++this.#numbers;
    const { topics } = this.#share.connection;
    const { leader, number } = following;
    this.#post({ type: 'join', leader, tab: this.#id, number, cursor, topics });
  }

  #joined(following: Following, { leader, seq, transport, messages }: Word & { type: 'joined' }): void {
    const { link, sink } = following;
    following.joined = true;
    following.seq = seq;
    if (transport === 'websocket') link.send = text => this.#post({ type: 'send', leader, text });
    else delete link.send;
    sink.live(null, transport);
    for (const message of messages) if (following === this.#following) sink.message(message);
  }

  /** Answers a tab that would follow. */
  #join({ leader, tab, number, cursor, topics }: Word & { type: 'join' }): void {
    const { connection } = this.#share;
    const { state, transport, shared } = connection.status;
    const isLive = state === 'live' && !shared;
    this.#admit(tab, number, topics);
    this.#from ??= connection.cursor;
    const has = (since: string | null) => since && cursor && (order(since, cursor) ?? 1) <= 0;
    const hasTopic = (topic: string) => connection.topics.includes(topic) && has(this.#since.get(topic) ?? this.#from);
    if (!isLive || !cursor || !has(this.#from) || !topics.every(hasTopic)) {
      this.#post({ type: 'no', leader, tab, number });
      return;
    }
    const messages = this.#recent.filter(({ id }) => (order(id!, cursor) ?? 1) > 0);
    this.#post({ type: 'joined', leader, tab, number, seq: this.#seq, transport: transport!, messages });
  }

  /** Puts the connection into the topics of a tab, until the tab ends or wants others. */
  #admit(tab: string, number: number, topics: string[]): void {
    const { connection } = this.#share;
    const known = this.#members.get(tab);
    if (known?.topics.join() === topics.join()) {
      known.number = number;
      return;
    }
    const end = connection.subscribe(...topics);
    known?.end();
    this.#members.set(tab, { topics, number, end });
    if (known) return;
    const leader = this.#leading;
    this.#lock(tab, () => {
      if (leader !== this.#leading) return;
      this.#members.get(tab)?.end();
      this.#members.delete(tab);
    });
  }

  /** Sends the tabs away that are in a topic which the session is refused: each is told so over a connection of its own. */
  #turnAway(refused: { topic: string }[]): void {
    for (const [tab, member] of this.#members) {
      if (refused.some(({ topic }) => member.topics.includes(topic))) {
        // It stays known, so that the same topics are not asked for again.
        member.end();
        this.#post({ type: 'no', leader: this.#leading!, tab, number: member.number });
      }
    }
  }

  /** Runs something with the lock that a tab holds as long as it lives. */
  #lock(tab: string, run: () => Promise<void> | void): void {
    navigator.locks.request(`${this.#group}:${tab}`, run).catch(() => {});
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#share.platform.clearTimeout(this.#timer);
    for (const end of this.#ends) end();
    for (const { end } of this.#members.values()) end();
    this.#leading = undefined;
    this.#leave();
    this.#channel.close();
  }
}

/** Whether the browser has few connections for the endpoint: over HTTP/1.1. */
function isLimited(options: Options): boolean {
  const { protocol, origin } = new URL(endpoint(options, 'sse')!, globalThis.location?.href);
  const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
  const known = (entries as PerformanceResourceTiming[]).filter(
    ({ name, nextHopProtocol }) => nextHopProtocol && new URL(name).origin === origin,
  );
  const last = known[known.length - 1];
  return last ? /^http\/1/.test(last.nextHopProtocol) : protocol === 'http:';
}

/** Name of what the tabs have in common: addresses, the options that tell logins apart, and the login. */
async function groupOf({ options, token }: Share): Promise<string> {
  const { clientId, name } = options;
  const places = (['websocket', 'sse'] as const).map(transport => {
    const place = endpoint(options, transport);
    return place && new URL(place, globalThis.location?.href).href;
  });
  const whole = new TextEncoder().encode(JSON.stringify([WORDS, places, clientId, name, loginOf(token())]));
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', whole));
  return `realtime:${[...hash].map(byte => byte.toString(16).padStart(2, '0')).join('')}`;
}

function sizeOf({ data, bytes }: Message): number {
  return data.length + (bytes?.length ?? 0);
}

/** What tokens of one login have in common: of a JWT all claims but its times and its number, of others all. */
function loginOf(token: string): string {
  try {
    const { exp, iat, nbf, jti, ...login } = JSON.parse(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/')));
    return JSON.stringify(login);
  } catch {
    return token;
  }
}

/** Version of what tabs tell each other: those of another one, as after a deploy, are strangers. */
const WORDS = 2;
/** Milliseconds between looks at the leader. */
const BEAT = 2000;
/** Messages that a tab keeps for those that follow it. */
const RECENT = 200;
/** Characters and bytes that these have at most. */
const RECENT_SIZE = 1 << 18;
