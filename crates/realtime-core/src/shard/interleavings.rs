//! The hand-over between passes, the log, outboxes and direct writes, under the schedules that `shuttle` tries.

use std::{
    future::poll_fn,
    io,
    sync::atomic::AtomicUsize,
    task::{Context, Poll, Waker},
};

use shuttle::{
    check_random,
    future::block_on,
    rand::{Rng, thread_rng},
    thread,
};

use super::*;
use crate::{
    Envelope, Message, Scope, Session, Settings,
    settings::{History, OutboxLimits},
    wire::{DirectWrite, GapReason, Outbound, SendDirect, WireFormat},
};

/// Number of schedules.
const ITERATIONS: usize = 1_000;

/// Number of published messages.
const MESSAGES: u64 = 9;

/// WireFormat format for tests, with a line for each frame: the text of a message, `gap`, `ping`.
#[derive(Debug)]
struct LineWire;

impl WireFormat for LineWire {
    fn name(&self) -> &'static str {
        "line"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        format!("{}\n", message.data).into()
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        Some(Bytes::from_static(b"gap\n"))
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::from_static(b"ping\n")
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

/// A node whose outboxes hold one message, and whose log holds `window` messages.
fn new_node(window: usize) -> (Arc<Node>, Arc<Shard>) {
    let node = Arc::new(Node::new(Settings {
        history: History { max_messages: window, ..History::default() },
        outbox: OutboxLimits { max_messages: 1, ..OutboxLimits::default() },
        ..Settings::default()
    }));
    node.log.begin(Some(Position { epoch: 1, offset: 0 }));
    let shard = Shard::new(Arc::clone(&node));
    (node, shard)
}

fn connect(shard: &Arc<Shard>, user: i64, cursor: Option<Position>) -> Session {
    let wire: Arc<dyn WireFormat> = Arc::new(LineWire);
    let wire = shard.node.wire(&wire).expect("there are few wires");
    let principal = Principal::new(user.into(), &user.to_string());
    let registered = shard.register(principal, Transport::new("test"), wire, cursor.map(Ok));
    Session::new(registered.expect("there is room"))
}

/// Publishes messages `1`, `2`, ... to all, with passes over one and over two of them.
fn publish_all(shard: &Shard) {
    for offset in 1..=MESSAGES {
        let envelope = Envelope::broadcast(Scope::Both, Message::text(offset.to_string()));
        shard.node.log.push(Some(Position { epoch: 1, offset }), Arc::new(envelope), None);
        if offset % 3 != 1 {
            shard.pass();
        }
    }
}

/// Pulls the next output of a session's body.
fn pull(session: &mut Session) -> Outbound {
    block_on(poll_fn(|cx| session.poll_next(cx)))
}

/// A socket: the text that was written to it, and the number of bytes that it still accepts.
#[derive(Debug, Clone)]
struct Socket(Arc<Mutex<(String, usize)>>);

impl Socket {
    fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new((String::new(), room))))
    }

    /// Accepts all bytes, like a dispatcher that waits for the socket.
    fn write_all(&self, bytes: &[u8]) {
        lock(&self.0).0 += str::from_utf8(bytes).expect("frames are texts");
    }

    fn text(&self) -> String {
        lock(&self.0).0.clone()
    }
}

impl DirectWrite for Socket {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let (text, room) = &mut *lock(&self.0);
        let taken = bytes.len().min(*room);
        *room -= taken;
        *text += str::from_utf8(&bytes[..taken]).expect("frames are texts");
        Ok(taken)
    }

    fn abort(&self) {}
}

/// The connection's task: it writes what it pulls, and opens direct writing when nothing is queued, until the session
/// is closed.
fn serve(mut session: Session, socket: &Socket) {
    session.attach(Arc::new(socket.clone()));
    loop {
        session.open_direct();
        match pull(&mut session) {
            Outbound::Bytes(bytes) => socket.write_all(&bytes),
            Outbound::Close(_) | Outbound::Abort(_) => return,
        }
    }
}

fn messages() -> String {
    (1..=MESSAGES).map(|offset| format!("{offset}\n")).collect()
}

#[test]
fn a_session_that_changes_between_pass_and_log_gets_everything_once_and_in_order() {
    check_random(
        || {
            let (_node, shard) = new_node(100);
            let mut session = connect(&shard, 1, None);
            let publisher = thread::spawn(move || publish_all(&shard));
            let mut text = String::new();
            while text.len() < messages().len() {
                let Outbound::Bytes(bytes) = pull(&mut session) else { panic!("nobody closed it") };
                text += str::from_utf8(&bytes).expect("frames are texts");
            }
            assert_eq!(text, messages());
            publisher.join().expect("all are published");
        },
        ITERATIONS,
    );
}

#[test]
fn a_session_with_a_cursor_gets_everything_after_it_once_and_in_order() {
    check_random(
        || {
            let (_node, shard) = new_node(100);
            let publisher = {
                let shard = Arc::clone(&shard);
                thread::spawn(move || publish_all(&shard))
            };
            let cursor = Position { epoch: 1, offset: 0 };
            let mut session = connect(&shard, 1, Some(cursor));
            let mut text = String::new();
            while text.len() < messages().len() {
                let Outbound::Bytes(bytes) = pull(&mut session) else { panic!("nobody closed it") };
                text += str::from_utf8(&bytes).expect("frames are texts");
            }
            assert_eq!(text, messages());
            publisher.join().expect("all are published");
        },
        ITERATIONS,
    );
}

#[test]
fn messages_that_a_session_misses_are_announced_at_their_place() {
    check_random(
        || {
            let (_node, shard) = new_node(2);
            let mut session = connect(&shard, 1, None);
            let publisher = thread::spawn(move || publish_all(&shard));
            let mut text = String::new();
            while !text.ends_with(&format!("{MESSAGES}\n")) {
                let Outbound::Bytes(bytes) = pull(&mut session) else { panic!("nobody closed it") };
                text += str::from_utf8(&bytes).expect("frames are texts");
            }
            let mut expected = 1;
            let mut told = false;
            for line in text.lines() {
                match line.parse::<u64>() {
                    Ok(offset) => {
                        assert!(offset == expected || offset > expected && told, "{text}");
                        expected = offset + 1;
                        told = false;
                    }
                    Err(_) => told = true,
                }
            }
            publisher.join().expect("all are published");
        },
        ITERATIONS,
    );
}

#[test]
fn a_topic_that_is_entered_while_messages_are_missed_is_complete_in_what_it_keeps() {
    check_random(
        || {
            let (node, shard) = new_node(2);
            let mut session = connect(&shard, 1, None);
            let topic = Topic::new("order:42").expect("a name");
            // Its outbox is full, and what is kept leaves the window before it is read.
            for offset in 1..=5 {
                let message = Message::text(offset.to_string());
                let envelope = match offset {
                    3 => Envelope::to_topic(topic.clone(), Scope::Both, message).retain(),
                    _ => Envelope::broadcast(Scope::Both, message),
                };
                node.log.push(Some(Position { epoch: 1, offset }), Arc::new(envelope), None);
                if offset == 2 {
                    shard.pass();
                }
            }
            shard.pass();
            let handle = session.handle();
            let subscriber = thread::spawn(move || handle.subscribe(topic));
            let mut text = String::new();
            while !text.contains("5\n") {
                let Outbound::Bytes(bytes) = pull(&mut session) else { panic!("nobody closed it") };
                text += str::from_utf8(&bytes).expect("frames are texts");
            }
            subscriber.join().expect("it is in the topic");
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Outbound::Bytes(bytes)) = session.poll_next(&mut cx) {
                text += str::from_utf8(&bytes).expect("frames are texts");
            }
            assert_eq!(text.matches("3\n").count(), 1, "{text}");
        },
        ITERATIONS,
    );
}

#[test]
fn two_lanes_write_one_stream_of_whole_frames() {
    check_random(
        || {
            let (_node, shard) = new_node(100);
            let session = connect(&shard, 1, None);
            // Direct writing ends somewhere, mostly within a frame.
            let socket = Socket::new(thread_rng().gen_range(0..16));
            let handle = session.handle();
            let body = {
                let socket = socket.clone();
                thread::spawn(move || serve(session, &socket))
            };
            let sent = Arc::new(AtomicUsize::new(0));
            let local = {
                let (handle, sent) = (handle.clone(), Arc::clone(&sent));
                thread::spawn(move || {
                    for _ in 0..2 {
                        sent.fetch_add(usize::from(handle.send_local("local").is_ok()), Ordering::Relaxed);
                    }
                })
            };
            publish_all(&shard);
            local.join().expect("local sends end");
            // Until all pulled bytes have been written.
            let expected = messages().len() + sent.load(Ordering::Relaxed) * "local\n".len();
            while socket.text().len() < expected {
                thread::yield_now();
            }
            handle.close(CloseReason::Normal);
            body.join().expect("the body ends");
            let text = socket.text();
            let published: Vec<_> = text.lines().filter(|line| *line != "local").collect();
            assert_eq!(published.join("\n") + "\n", messages());
            assert_eq!(text.len(), expected);
        },
        ITERATIONS,
    );
}

#[test]
fn a_topic_given_to_a_session_that_is_opening_is_its_own() {
    check_random(
        || {
            let (node, shard) = new_node(100);
            let _first = connect(&shard, 1, None);
            let topic = Topic::new("order:42").expect("a name");
            let subscriber = {
                let (node, topic) = (Arc::clone(&node), topic.clone());
                thread::spawn(move || {
                    loop {
                        if let Some(session) = node.directory.of(&2.into()).pop() {
                            SessionHandle(session).subscribe(topic);
                            return;
                        }
                        thread::yield_now();
                    }
                })
            };
            let second = connect(&shard, 2, None);
            subscriber.join().expect("it is found");
            let members = shard.lock();
            for slot in members.topics.get(&topic).expect("a session is in it") {
                assert_eq!(members.sessions[*slot as usize].session.id, second.handle().id());
            }
        },
        ITERATIONS,
    );
}

#[test]
fn a_connections_own_frame_does_not_land_in_another() {
    check_random(
        || {
            let (_node, shard) = new_node(100);
            let mut session = connect(&shard, 1, None);
            let socket = Socket::new(thread_rng().gen_range(0..16));
            session.attach(Arc::new(socket.clone()));
            session.open_direct();
            let handle = session.handle();
            let local = thread::spawn(move || {
                // The rest of the other frame may take the only slot of the queue.
                while handle.send_local("local").is_err() {
                    thread::yield_now();
                }
            });
            // The body's work between two pulls.
            let mut pong = Some(Bytes::from_static(b"pong\n"));
            loop {
                if let Some(frame) = pong.take() {
                    match session.send_direct(frame) {
                        SendDirect::Sent => {}
                        SendDirect::Write(frame) => socket.write_all(&frame),
                        SendDirect::Later(frame) => pong = Some(frame),
                    }
                }
                if socket.text().len() == "local\npong\n".len() {
                    break;
                }
                if let Poll::Ready(Outbound::Bytes(bytes)) =
                    session.poll_next(&mut Context::from_waker(Waker::noop()))
                {
                    socket.write_all(&bytes);
                }
                thread::yield_now();
            }
            local.join().expect("it was sent");
            let text = socket.text();
            assert!(["local\npong\n", "pong\nlocal\n"].contains(&text.as_str()), "{text}");
        },
        ITERATIONS,
    );
}

#[test]
fn an_end_that_is_waited_for_too_long_comes_all_the_same() {
    check_random(
        || {
            let (_node, shard) = new_node(100);
            let mut session = connect(&shard, 1, None);
            let after = Position { epoch: 1, offset: 7 };
            session.handle().0.close_after(CloseReason::Kicked, Some(after));
            let ticking = thread::spawn(move || {
                let ticks = Ticks {
                    period: Duration::from_secs(1),
                    per_heartbeat: 1000,
                    max_stall: 1000,
                    timeout: 1000,
                    max_closing: 1000,
                    max_hold: 0,
                };
                shard.tick(1, ticks);
            });
            assert!(matches!(pull(&mut session), Outbound::Close(CloseReason::Kicked)));
            ticking.join().expect("a tick ends");
        },
        ITERATIONS,
    );
}

#[test]
fn a_connection_that_ends_while_it_is_evicted_is_counted_once() {
    check_random(
        || {
            let (node, shard) = new_node(100);
            let session = connect(&shard, 1, None);
            let state = Arc::clone(&session.handle().0);
            let evicting = thread::spawn(move || shard.evict(&state));
            drop(session);
            evicting.join().expect("it is evicted");
            assert_eq!(node.directory.connections(), 0);
        },
        ITERATIONS,
    );
}
