import { StoredCursor, order } from './cursor.js';
import type { End } from './end.js';
import { Inbox } from './inbox.js';
import { type Bus, type Gap, type Link, type Message, type Open, type Sink, type Topics, endpoint } from './link.js';
import { type Options, type Platform, type Transport, defaultStorage, platform } from './options.js';
import { openStream } from './stream.js';
import { isExpired } from './token.js';
import { openWebSocket } from './websocket.js';

export interface Status {
  /**
   * `idle`: not begun. `connecting`: an attempt is under way. `live`: messages arrive. `waiting`: the next attempt comes
   * at `until`. `refused`: the server does not want this login. `closed`: ended in order. The last two are final.
   */
  state: 'idle' | 'connecting' | 'live' | 'waiting' | 'refused' | 'closed';
  transport?: Transport;
  /** Whether the connection is another tab's. */
  shared?: boolean;
  /** Time of the next attempt, in ms since 1970; absent while an `EventSource` reconnects by itself. */
  until?: number;
  /** Close code of the WebSocket or HTTP status of the event stream that has ended. */
  code?: number;
  reason?: string;
}

/** What the handlers of an event get. */
export type EventOf<E extends string> = E extends 'gap'
  ? Gap
  : E extends 'status'
    ? Status
    : E extends 'bus'
      ? Bus
      : E extends 'topics'
        ? Topics
        : Message;

interface Attempt {
  transport: Transport;
  /** The cursor that it began behind. */
  cursor: string | null;
  /** The token that it was begun with, or that its session has taken since. */
  token: string | undefined;
  /** Whether the attempt before it had brought that token, too. */
  again: boolean;
  /** The topics that it has asked for. */
  topics: string[];
  /** Those of which it has yet to bring what newcomers get; `*` for all of the session's. */
  fresh: Set<string>;
  granted: Set<string>;
  /** Its requests for topics since it began that have no answer yet. */
  unanswered: number;
  /**
   * Ids of what came behind `cursor` by other sessions, while it was opened beside one. Absent once it has brought all
   * that they did.
   */
  brought: Set<string | null> | undefined;
  /** Whether it is an attempt at another tab's connection. */
  shared: boolean;
  link?: Link;
  /** Ends it for a reason of its own or of this side. */
  fail(end: End): void;
  /** When its session began, and when something came last. */
  liveAt?: number;
  heardAt: number;
  /** Waits for the beginning of the session, later for heartbeats. */
  timer?: unknown;
  /** Waits for the answer to a ping. */
  pinged?: unknown;
}

/** Connection to a realtime server that comes back by itself. */
export class Connection implements AsyncIterable<Message> {
  readonly #options: Options;
  readonly #platform: Platform;
  readonly #transports: Transport[];
  readonly #inbox: Inbox;
  readonly #sleepless: () => void;
  #status: Status = { state: 'idle' };
  #pingInterval: number;

  #attempt: Attempt | undefined;
  /** Attempt beside a live one: at the preferred transport, with other topics or another token, or at another tab's. */
  #trial: Attempt | undefined;
  #trialTimer: unknown;
  #trials = 0;
  /** Counts attempts, so that a late token is known as such. */
  #round = 0;
  #waitTimer: unknown;
  /** Whether the pause is the server's, which waking up does not cut short. */
  #hinted = false;
  /** Ends in a row without a session that lasted. */
  #failures = 0;
  /** Failures in a row to open the preferred transport. */
  #unopened = 0;
  #token: string | undefined;
  /** The topics that each subscription wants. */
  readonly #wanted = new Set<string[]>();
  /** The topics of which it has had what newcomers get; `*` for those that it need not ask for. */
  readonly #had = new Set<string>();
  /** When the cursor was last moved by something that came. */
  #upTo: number | null = null;
  #sharing = false;
  /** The token of the last attempt. */
  #brought: string | undefined;
  /** The token that was refused, once another one has been asked for. */
  #refused: string | undefined;
  /** Whether one was refused that had not been brought before. */
  #pardoned = false;
  /** The last session that began. */
  #session: Attempt | undefined;

  constructor(options: Options) {
    this.#options = options;
    this.#platform = platform(options.dial);
    this.#transports = (options.transports ?? ['websocket', 'sse']).filter(
      transport =>
        endpoint(options, transport) &&
        (transport === 'websocket' ? this.#platform.WebSocket : this.#platform.fetch || options.sse),
    );
    if (!this.#transports.length) throw new Error('realtime: no transport is supported');
    const { url, name = '', storage = defaultStorage() } = options;
    const address = typeof url === 'string' ? url : (url.websocket ?? url.sse);
    const stored = new StoredCursor(storage, `realtime:${address}:${name}`);
    this.#inbox = new Inbox(stored, options.cursor, options.maxBehind ?? 10_000, error =>
      // As any uncaught error.
      this.#platform.setTimeout(() => {
        throw error;
      }, 0),
    );
    this.#pingInterval = options.heartbeat ?? 20_000;
    this.subscribe(...(options.topics ?? []));
    this.#sleepless = this.#platform.wake(() => this.#wake());
    // Handlers that are set right after `connect` miss nothing.
    Promise.resolve().then(() => {
      if (this.#status.state === 'idle') this.#open();
    });
  }

  get status(): Status {
    return this.#status;
  }

  /** Position behind the last message, `null` where none is known yet. */
  get cursor(): string | null {
    return this.#inbox.cursor;
  }

  /** Messages that came a second time and were left out. */
  get duplicates(): number {
    return this.#inbox.duplicates;
  }

  /** The topics that were asked for and granted. */
  get topics(): string[] {
    return [...(this.#attempt?.granted ?? [])];
  }

  /**
   * Calls a handler with each message of an event, with all messages (`*`), gaps (`gap`), states of the connection
   * (`status`) or of the bus behind it (`bus`), and with what the server says to topics (`topics`). With a topic, with its
   * messages only, and the topic is subscribed to meanwhile. Returns what ends that.
   */
  on<E extends string>(
    event: E,
    handler: (value: EventOf<E>) => void,
    topic?: EventOf<E> extends Message ? string : never,
  ): () => void {
    const end = topic === undefined ? undefined : this.subscribe(topic);
    const off = this.#inbox.on(event, end ? value => value.topic === topic && handler(value) : handler);
    for (const name of this.#inbox.events) this.#attempt?.link?.listen?.(name);
    return () => {
      off();
      end?.();
    };
  }

  /** Asks for topics until the returned function is called. A topic that several ask for stays until the last one ends. */
  subscribe(...topics: string[]): () => void {
    // All changes of a turn at once.
    const changed = () => void Promise.resolve().then(() => this.#sync());
    this.#wanted.add(topics);
    changed();
    return () => {
      if (this.#wanted.delete(topics)) changed();
    };
  }

  /**
   * Opens a session beside the live one, which gets what newcomers get, as if the page had been loaded just now: what its
   * topics retain, and the texts of streams so far.
   */
  renew(): void {
    this.#had.clear();
    this.#redial();
  }

  /** The messages that come from now on. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message> {
    return this.#inbox.readers.open();
  }

  /**
   * Sends a text to the service's handler.
   * @throws {Error} when no WebSocket is live
   */
  send(text: string): void {
    const link = this.#status.state === 'live' ? this.#attempt?.link : undefined;
    if (!link?.send) {
      const { state, transport = 'no transport' } = this.#status;
      throw new Error(`realtime: cannot send, ${state} over ${transport}`);
    }
    link.send(text);
  }

  /** Ends the connection for good. Its stored cursor stays. */
  close(): void {
    this.#finish({ state: 'closed', reason: 'closed by the client' });
  }

  async #open(): Promise<void> {
    const round = this.#drop();
    const transport = this.#transports[this.#unopened >= 2 ? 1 : 0] ?? this.#transports[0]!;
    this.#set({ state: 'connecting', transport });
    if (round !== this.#round) return;
    try {
      if (!this.#token || isExpired(this.#token, this.#platform)) this.#token = await this.#ask();
    } catch (error) {
      if (round === this.#round) this.#retry({ reason: `no token: ${error}`, verdict: 'retry' });
      return;
    }
    if (round !== this.#round) return;
    if (!this.#token || this.#token === this.#refused) {
      this.#finish({ state: 'refused', code: 401, reason: this.#token ? 'token refused' : 'no token' });
      return;
    }
    this.#dial(transport, false);
  }

  /** A token, in time. */
  async #ask(): Promise<string> {
    const { token } = this.#options;
    if (typeof token === 'string') return token;
    let timer: unknown;
    const late = (_: unknown, reject: (reason: string) => void) => {
      timer = this.#platform.setTimeout(() => reject('no answer'), TOKEN_LIMIT);
    };
    return Promise.race([token(), new Promise<string>(late)]).finally(() => this.#platform.clearTimeout(timer));
  }

  /** Brings a live session another token. */
  async #refresh(attempt: Attempt): Promise<void> {
    if (typeof this.#options.token === 'string') return;
    // Where there is none, the session's end asks again.
    const token = await this.#ask().catch(() => '');
    if (attempt !== this.#attempt || !token || token === this.#token) return;
    this.#token = token;
    if (attempt.link?.refresh) attempt.link.refresh(token);
    else this.#redial();
  }

  #topics(): string[] {
    return [...new Set([...this.#wanted].flat())];
  }

  /** Makes the topics of the live session those that are wanted. */
  #sync(): void {
    const attempt = this.#attempt;
    const wanted = this.#topics();
    for (const topic of this.#had) if (topic !== '*' && !wanted.includes(topic)) this.#had.delete(topic);
    if (this.#status.state !== 'live' || !attempt || this.#trial) return;
    const added = wanted.filter(topic => !attempt.topics.includes(topic));
    const removed = attempt.topics.filter(topic => !wanted.includes(topic));
    for (const topic of removed) attempt.granted.delete(topic);
    if (attempt.link?.topics) {
      attempt.topics = wanted;
      for (const topic of added) attempt.fresh.add(topic);
      if (added.length) attempt.unanswered++;
      attempt.link.topics(added, removed);
    } else if (added.length || removed.length) this.#redial();
    // Forgotten while the session was opened: by `renew`, or since it was left and entered again.
    if (['*', ...wanted].some(topic => !this.#had.has(topic) && !attempt.fresh.has(topic))) this.#redial();
    if (removed.length) this.#inbox.emit('topics', { subscribed: [], refused: [] });
  }

  /** Opens a session beside the live one, which takes its place, if that can be done now. */
  #redial(other?: Open): void {
    // Another tab's is asked for the topics that are granted.
    if (this.#status.state === 'live' && !this.#trial && !(other && this.#attempt!.unanswered)) {
      this.#dial(this.#attempt!.transport, true, other);
    }
  }

  /** Begins to open a session, which is told to the attempt's own sink while the attempt counts. */
  #dial(transport: Transport, trial: boolean, other?: Open, token = this.#token!): void {
    const { setTimeout, now } = this.#platform;
    const inbox = this.#inbox;
    // A session that has yet to bring something that is in front of the inbox's cursor.
    const late = this.#session?.brought && this.#session;
    const { cursor } = late ?? inbox;
    const brought = late || (trial && !other) ? new Set(late?.brought) : undefined;
    const topics = this.#topics();
    const fresh = new Set(['*', ...topics].filter(topic => !this.#had.has(topic)));
    const mine = () => attempt === this.#attempt;
    const moved = (_: void, cursor: string | null | undefined) => {
      this.#upTo = now();
      if (!cursor) return;
      // What newcomers get comes in front of everything that has a position. A newer session has asked for it by itself.
      if (!this.#trial) {
        for (const topic of ['*', ...granted]) {
          this.#had.add(topic);
          fresh.delete(topic);
        }
      }
      if (cursor === inbox.cursor) attempt.brought = undefined;
    };
    const counts = () => mine() || attempt === this.#trial;
    const fail = (end: End) => {
      if (!counts()) return;
      this.#release(attempt);
      const trial = this.#trial;
      if (attempt === trial) {
        this.#trial = undefined;
        if (other || transport !== this.#attempt!.transport) {
          this.#planTrial();
          this.#sync();
          return;
        }
        this.#release(this.#attempt!);
      } else if (
        trial &&
        !trial.shared &&
        (end.code === 4410 ||
          end.broken === false ||
          (attempt.transport === trial.transport && end.verdict === 'retry'))
      ) {
        // The server may have ended it for the newer one. Otherwise it need not wait for another transport, which may hang.
        this.#attempt = trial;
        this.#trial = undefined;
        this.#set({ state: 'connecting', transport: trial.transport });
        return;
      }
      this.#attempt = undefined;
      this.#ended(attempt, end);
    };
    const shared = !!other;
    const granted = shared ? this.#attempt!.granted : new Set<string>();
    const again = token === this.#brought;
    this.#brought = this.#token;
    const attempt: Attempt = {
      transport,
      cursor,
      token,
      again,
      topics,
      fresh,
      granted,
      unanswered: 0,
      brought,
      shared,
      heardAt: now(),
      fail,
    };
    if (trial) this.#trial = attempt;
    else this.#attempt = attempt;
    const sink: Sink = {
      live: (place, over = attempt.transport) => {
        attempt.transport = over;
        if (counts()) this.#live(attempt, place);
      },
      told: ({ pingInterval, subscribed = [], refused = [] }) => {
        this.#pingInterval = pingInterval ?? this.#pingInterval;
        if (!mine()) return;
        this.#watch(attempt);
        if (!pingInterval) attempt.unanswered--;
        // One may have been left meanwhile.
        const wanted = this.#topics();
        for (const topic of subscribed) if (wanted.includes(topic)) granted.add(topic);
        // A newcomer that is told its place at once gets nothing else.
        if (pingInterval && !cursor) moved(undefined, inbox.cursor);
        inbox.emit('topics', { subscribed, refused });
      },
      broken: () => {
        if (!mine()) return;
        this.#set({ state: 'waiting', transport: attempt.transport, reason: 'broken off' });
        // A browser comes back when the server has said, which it does not show.
        this.#hinted = !shared;
        if (shared) this.#limit(attempt);
      },
      heard: () => {
        attempt.heardAt = now();
        this.#platform.clearTimeout(attempt.pinged);
        attempt.pinged = undefined;
      },
      message: message => {
        if (!mine()) return;
        this.#trial?.brought?.add(message.id);
        moved(inbox.message(message, attempt), message.id);
      },
      gap: (gap, begun = cursor) =>
        mine() && moved(inbox.gap({ ...gap, since: gap.since ?? this.#upTo }, begun), gap.cursor),
      cursor: cursor => mine() && moved(inbox.advance(cursor), cursor),
      expiring: () => mine() && this.#refresh(attempt),
      refreshed: () => (attempt.token = this.#token),
      unrefreshed: () => mine() && this.#redial(),
      bus: downSince => mine() && inbox.bus(downSince),
      end: fail,
    };
    this.#limit(attempt);
    const open = other ?? (transport === 'websocket' ? openWebSocket : (this.#options.sse ?? openStream));
    try {
      attempt.link = open(
        { platform: this.#platform, options: this.#options, token, cursor, topics, fresh: [...fresh], events: inbox.events },
        sink,
      );
    } catch (error) {
      setTimeout(() => fail({ reason: String(error), verdict: 'retry' }), 0);
    }
  }

  /** Gives an attempt so long to begin its session. A server may take 5 s to tell where it begins. */
  #limit(attempt: Attempt): void {
    this.#platform.clearTimeout(attempt.timer);
    attempt.timer = this.#platform.setTimeout(
      () => attempt.fail({ reason: 'no answer', verdict: 'retry', stale: true }),
      OPEN_LIMIT,
    );
  }

  #live(attempt: Attempt, cursor: string | null): void {
    const { cursor: known } = this.#inbox;
    // Begun in a history that has ended meanwhile: what it replays cannot be told from what is known.
    if (attempt.liveAt === undefined && known && (!attempt.cursor || order(known, attempt.cursor) === undefined)) {
      this.#unopened = 0;
      this.#open();
      return;
    }
    if (attempt === this.#trial) {
      this.#release(this.#attempt!);
      this.#attempt = attempt;
      this.#trial = undefined;
    }
    const { transport } = attempt;
    if (attempt.liveAt === undefined && !attempt.shared) this.#token = this.#brought = attempt.token;
    attempt.liveAt = this.#platform.now();
    this.#session = attempt;
    if (transport === this.#transports[0]) this.#unopened = this.#trials = 0;
    else this.#planTrial();
    this.#inbox.advance(cursor);
    this.#watch(attempt);
    this.#set({ state: 'live', transport, ...(attempt.shared && { shared: true }) });
    this.#sync();
    this.#share(attempt);
  }

  /** Lets the tabs of one login have one connection. */
  #share({ transport, link }: Attempt): void {
    const { shared = 'auto' } = this.#options;
    if (!shared || this.#sharing || link?.listen || !globalThis.navigator?.locks) return;
    if (shared === 'auto' && transport !== 'sse') return;
    this.#sharing = true;
    import('./tabs.js')
      .then(({ share }) => share(this, this.#options, this.#platform, this.#had, () => this.#token!, open => this.#redial(open)))
      .catch(error => console.warn('realtime: tabs share nothing:', error));
  }

  /** Redials when nothing has come for longer than heartbeats take. */
  #watch(attempt: Attempt): void {
    const { clearTimeout, setTimeout, now } = this.#platform;
    clearTimeout(attempt.timer);
    // Its heartbeats are not to be seen.
    if (attempt.link?.listen) return;
    const limit = this.#pingInterval + SLACK;
    const silent = now() - attempt.heardAt;
    // A clock that was put back says nothing about the silence.
    if (silent >= limit) attempt.fail({ reason: 'silence', verdict: 'retry' });
    else attempt.timer = setTimeout(() => this.#watch(attempt), silent < 0 ? limit : limit - silent);
    if (silent < 0) attempt.heardAt = now();
  }

  #wake(): void {
    const attempt = this.#attempt;
    if (this.#status.state === 'waiting' && !this.#hinted) this.#open();
    if (this.#status.state !== 'live' || !attempt) return;
    if (attempt.link?.ping) {
      if (attempt.pinged !== undefined) return;
      attempt.pinged = this.#platform.setTimeout(() => this.#open(), WAKE_LIMIT);
      try {
        attempt.link.ping();
      } catch {
        this.#open();
      }
    } else if (this.#platform.now() - attempt.heardAt >= WAKE_LIMIT) {
      // A stream cannot be asked.
      this.#open();
    }
  }

  #ended(attempt: Attempt, end: End): void {
    if (attempt.liveAt === undefined) {
      // Turn by turn once both have failed.
      this.#unopened = attempt.transport === this.#transports[0] ? this.#unopened + 1 : 1;
      // A refused handshake looks like a broken network.
      if (this.#transports.length === 1 && attempt.transport === 'websocket' && this.#unopened > 1) end.stale = true;
    }
    const asked = typeof this.#options.token === 'function';
    const { code, reason, verdict } = end;
    // A ticket is good for one attempt, also for one that the server has no room for.
    if (verdict === 'token' && asked && (attempt.again || !this.#pardoned)) {
      this.#pardoned ||= !attempt.again;
      this.#refused = attempt.token;
      // One that came meanwhile has not been tried yet.
      if (this.#token === attempt.token) this.#token = undefined;
      this.#open();
    } else if (verdict === 'retry') {
      if (end.stale && asked) this.#token = undefined;
      this.#retry(end);
    } else {
      this.#finish({ state: verdict === 'closed' ? 'closed' : 'refused', code, reason });
    }
  }

  /** Waits: at random up to a bound that doubles, and the server's own time if it gave one. */
  #retry({ code, reason, retry, broken }: End): void {
    this.#drop();
    const { base = 1000, cap = 30_000 } = this.#options.backoff ?? {};
    const jitter = this.#platform.random() * Math.min(cap, base * 2 ** this.#failures++);
    this.#hinted = retry !== undefined && !broken;
    const pause = retry === undefined ? jitter : retry + (this.#failures > 1 ? jitter : 0);
    this.#waitTimer = this.#platform.setTimeout(() => this.#open(), pause);
    this.#set({ state: 'waiting', until: this.#platform.now() + pause, code, reason });
  }

  /** Lets the preferred transport be tried in a while, unless that is planned. The pause doubles with each try. */
  #planTrial(): void {
    if (this.#trialTimer !== undefined) return;
    const after = (this.#options.upgradeAfter ?? 60_000) * Math.min(10, 2 ** this.#trials);
    this.#trialTimer = this.#platform.setTimeout(async () => {
      const preferred = this.#transports[0]!;
      const isDue = () => this.#status.state === 'live' && !this.#trial && this.#attempt!.transport !== preferred;
      // The token may have been a ticket, which the live session has used up. That one keeps its own until it is replaced.
      const token = isDue() && this.#trials++ ? await this.#ask().catch(() => '') : '';
      this.#trialTimer = undefined;
      // What is under way instead plans it anew.
      if (isDue()) this.#dial(preferred, true, undefined, token || this.#token);
    }, after);
  }

  /** Ends whatever is open, and the wait for the next. Returns the number of the round that begins. */
  #drop(): number {
    this.#platform.clearTimeout(this.#waitTimer);
    for (const attempt of [this.#attempt, this.#trial]) if (attempt) this.#release(attempt);
    this.#attempt = this.#trial = undefined;
    this.#hinted = false;
    return ++this.#round;
  }

  /** Ends an attempt. After a session that lasted, failures count anew. */
  #release(attempt: Attempt): void {
    this.#platform.clearTimeout(attempt.timer);
    this.#platform.clearTimeout(attempt.pinged);
    attempt.link?.close();
    if (attempt.liveAt !== undefined && this.#platform.now() - attempt.liveAt >= STABLE) {
      this.#failures = 0;
      this.#refused = undefined;
      this.#pardoned = false;
    }
  }

  #finish(status: Status): void {
    // `closed` and `refused`.
    if (/ed$/.test(this.#status.state)) return;
    this.#drop();
    this.#platform.clearTimeout(this.#trialTimer);
    this.#sleepless();
    this.#set(status);
    this.#inbox.readers.close();
  }

  #set(status: Status): void {
    this.#status = status;
    this.#inbox.emit('status', status);
  }
}

/** Milliseconds: for the beginning of a session. */
const OPEN_LIMIT = 10_000;
/** Milliseconds for a token, which a user may have to log in for. */
const TOKEN_LIMIT = 30_000;
/** Milliseconds that a heartbeat may be late. */
const SLACK = 5000;
/** Milliseconds for an answer after waking up. */
const WAKE_LIMIT = 2000;
/** Milliseconds after which a session counts as one that lasted. */
const STABLE = 5000;
