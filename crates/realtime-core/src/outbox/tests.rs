//! The outbox and its two ways out: pulled frames and direct writes.

use std::{io, sync::Arc, task::Waker};

use super::*;
use crate::settings::OutboxLimits;

fn outbox(max_messages: usize, max_bytes: usize) -> Outbox {
    let limits = OutboxLimits { max_messages, max_bytes, ..OutboxLimits::default() };
    Outbox::new(Arc::new(OutboxGroup::new(&limits)))
}

fn frame(len: usize) -> Bytes {
    Bytes::from(vec![b'x'; len])
}

fn pull(outbox: &Outbox) -> Poll<Pull> {
    pull_up_to(outbox, 1)
}

fn pull_up_to(outbox: &Outbox, max: usize) -> Poll<Pull> {
    outbox.poll_pull(&mut Context::from_waker(Waker::noop()), max)
}

#[test]
fn a_full_outbox_sends_its_session_to_the_log() {
    let outbox = outbox(2, 100);
    assert_eq!(outbox.queue_or_catch_up(&frame(1), 7), Ok(Accepted::Done));
    assert_eq!(outbox.queue_or_catch_up(&frame(1), 8), Ok(Accepted::Done));
    assert_eq!(outbox.queue_or_catch_up(&frame(1), 9), Err(TrySendError::Full));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Bytes(frame(1))));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Bytes(frame(1))));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::CatchUp(9)));
    outbox.join();
    assert_eq!(pull(&outbox), Poll::Pending);
}

#[test]
fn a_frame_above_the_bound_passes_alone() {
    let outbox = outbox(10, 100);
    assert_eq!(outbox.offer(&frame(500)), Ok(Accepted::Done));
    assert_eq!(outbox.offer(&frame(1)), Err(TrySendError::Full));
}

#[test]
fn a_lost_local_send_is_announced_once() {
    let outbox = outbox(1, 100);
    let notice = || Some(Bytes::from_static(b"gap"));
    assert_eq!(outbox.queue_or_notice(&frame(1), notice), Ok(Accepted::Done));
    assert_eq!(outbox.queue_or_notice(&frame(1), notice), Err(TrySendError::Full));
    assert_eq!(outbox.queue_or_notice(&frame(1), notice), Err(TrySendError::Full));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Bytes(frame(1))));
    assert_eq!(pull_up_to(&outbox, 3), Poll::Ready(Pull::Bytes(Bytes::from_static(b"gap"))));
    assert_eq!(pull(&outbox), Poll::Pending);
}

#[test]
fn queued_frames_are_sent_before_the_close() {
    let outbox = outbox(10, 100);
    outbox.offer(&frame(1)).unwrap();
    outbox.close(CloseReason::Kicked);
    outbox.close(CloseReason::Normal);
    assert_eq!(outbox.offer(&frame(1)), Err(TrySendError::Closed));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Bytes(frame(1))));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Closed(CloseReason::Kicked)));
}

#[test]
fn only_a_socket_that_accepts_nothing_stalls() {
    let outbox = outbox(10, 100);
    let stalled = || outbox.tick(false).stalled;
    assert_eq!((stalled(), stalled()), (0, 0), "nothing waits");
    outbox.offer(&frame(1)).unwrap();
    outbox.offer(&frame(1)).unwrap();
    assert_eq!((stalled(), stalled()), (1, 2));
    let _ = pull(&outbox);
    assert_eq!((stalled(), stalled()), (0, 1));
}

#[test]
fn frames_leave_together_and_large_ones_in_pieces() {
    let outbox = outbox(10, 1000);
    for len in [3, 4, 2, 30, 1] {
        outbox.offer(&frame(len)).unwrap();
    }
    let mut pieces = Vec::new();
    while let Poll::Ready(Pull::Bytes(bytes)) = pull_up_to(&outbox, 10) {
        pieces.push((bytes.len(), outbox.is_cut()));
    }
    assert_eq!(pieces, [(9, false), (10, true), (10, true), (10, false), (1, false)]);
    assert_eq!(outbox.lock().frames.bytes(), 0);
}

/// A socket that accepts a limited number of bytes.
#[derive(Debug, Clone, Default)]
struct Socket(Arc<Mutex<(Vec<u8>, usize)>>);

impl Socket {
    fn with_room(room: usize) -> Self {
        Self(Arc::new(Mutex::new((Vec::new(), room))))
    }

    fn got(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }
}

impl DirectWrite for Socket {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let (got, room) = &mut *self.0.lock().unwrap();
        if *room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = bytes.len().min(*room);
        *room -= taken;
        got.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn abort(&self) {
        self.0.lock().unwrap().0.push(b'!');
    }
}

fn direct(room: usize) -> (Outbox, Socket) {
    let (outbox, socket) = (outbox(4, 100), Socket::with_room(room));
    outbox.attach(Arc::new(socket.clone()));
    (outbox, socket)
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn the_direct_lane_is_closed_until_it_is_opened() {
    let (outbox, socket) = direct(100);
    outbox.offer(&text("a")).unwrap();
    outbox.open_direct();
    assert!(!outbox.is_direct(), "a frame has yet to be pulled");
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Bytes(text("a"))));
    outbox.open_direct();
    assert!(outbox.is_direct());
    assert_eq!(outbox.offer(&text("b")), Ok(Accepted::Done));
    assert_eq!(outbox.send_direct(text("c")), SendDirect::Sent);
    assert_eq!((socket.got().as_str(), pull(&outbox)), ("bc", Poll::Pending));
}

#[test]
fn a_pass_writes_once_and_a_pull_in_between_flushes_first() {
    let (outbox, socket) = direct(100);
    outbox.open_direct();
    assert_eq!(outbox.queue_or_catch_up(&text("a"), 1), Ok(Accepted::NeedsFlush));
    assert_eq!(outbox.queue_or_catch_up(&text("b"), 2), Ok(Accepted::Done));
    assert_eq!(socket.got(), "");
    assert_eq!((pull(&outbox), socket.got().as_str()), (Poll::Pending, "ab"));
    outbox.flush(&mut WriteBuffer::default());
    assert_eq!(socket.got(), "ab");
    // A full queue is flushed in between.
    for seq in 3..9 {
        outbox.queue_or_catch_up(&text("c"), seq).unwrap();
    }
    outbox.flush(&mut WriteBuffer::default());
    assert_eq!(socket.got(), "abcccccc");
}

#[test]
fn the_rest_of_a_partial_write_is_left_to_the_body_in_order() {
    let (outbox, socket) = direct(4);
    outbox.open_direct();
    for frame in ["ab", "cde", "fg"] {
        outbox.queue_or_catch_up(&text(frame), 1).unwrap();
    }
    outbox.flush(&mut WriteBuffer::default());
    assert_eq!(outbox.offer(&text("h")), Ok(Accepted::Done));
    assert_eq!(outbox.send_direct(text("i")), SendDirect::Later(text("i")), "a frame is begun");
    assert_eq!((socket.got().as_str(), outbox.is_cut()), ("abcd", true));
    assert_eq!(pull_up_to(&outbox, 10), Poll::Ready(Pull::Bytes(text("efgh"))));
    assert_eq!(outbox.send_direct(text("i")), SendDirect::Write(text("i")), "the lane is closed");
    assert_eq!(outbox.queue_or_catch_up(&text("j"), 2), Ok(Accepted::Done));
    for seq in 3..7 {
        outbox.queue_or_catch_up(&text("k"), seq).ok();
    }
    outbox.open_direct();
    assert_eq!(
        pull_up_to(&outbox, 10),
        Poll::Ready(Pull::Bytes(text("jkkk"))),
        "a session that reads the log is not direct"
    );
}

#[test]
fn a_large_answer_leaves_in_pieces_and_only_one_is_queued() {
    const LARGE: usize = 20_000;
    let outbox = outbox(4, LARGE);
    assert_eq!(outbox.send_direct(text("pong")), SendDirect::Write(text("pong")));
    assert_eq!(outbox.send_direct(frame(LARGE)), SendDirect::Sent);
    assert_eq!(outbox.send_direct(frame(LARGE)), SendDirect::Later(frame(LARGE)));
    assert_eq!(
        outbox.send_direct(text("pong")),
        SendDirect::Later(text("pong")),
        "in the order of its requests"
    );
    let mut left = LARGE;
    for _ in 0..20 {
        let Poll::Ready(Pull::Bytes(bytes)) = pull_up_to(&outbox, 1000) else {
            panic!("{left} bytes are left")
        };
        left -= bytes.len();
        assert_eq!(outbox.tick(false).stalled, 0, "the socket takes it");
        let pong = outbox.send_direct(text("pong"));
        assert!(matches!(pong, SendDirect::Later(_)) == (left > 0), "{pong:?} with {left} bytes left");
    }
    assert_eq!((left, pull(&outbox)), (0, Poll::Pending));
    assert_eq!(outbox.send_direct(frame(LARGE)), SendDirect::Sent);
}

#[test]
fn a_small_answer_waits_for_a_large_one_before_it() {
    // Direct writing is off, or is on and the socket takes a part of the first frame.
    for room in [0, 100] {
        let outbox = outbox(4, 30_000);
        if room > 0 {
            outbox.attach(Arc::new(Socket::with_room(room)));
            outbox.open_direct();
        }
        for seq in 1..=2 {
            outbox.queue_or_catch_up(&frame(200), seq).unwrap();
        }
        assert_eq!(outbox.send_direct(frame(20_000)), SendDirect::Sent);
        let mut left = 20_400 - room;
        while left > 0 {
            assert_eq!(outbox.send_direct(text("b")), SendDirect::Later(text("b")), "{left} bytes are left");
            let Poll::Ready(Pull::Bytes(bytes)) = pull_up_to(&outbox, 200) else {
                panic!("{left} bytes are left")
            };
            left -= bytes.len();
        }
        assert_eq!(outbox.send_direct(text("b")), SendDirect::Write(text("b")));
    }
}

#[test]
fn a_run_leaves_in_one_write_and_the_rest_is_queued_within_the_bound() {
    let frames = [text("ab"), text("cd"), text("ef"), text("gh"), text("ij"), text("kl"), text("mn")];
    let run: Vec<_> = (10..).zip(&frames).collect();
    let send = |outbox: &Outbox| outbox.send_run(&run, b"abcdefghijklmn", &mut WriteBuffer::default());
    let (outbox, socket) = direct(100);
    outbox.open_direct();
    assert_eq!((send(&outbox), socket.got().as_str()), ((7, Ok(Accepted::Done)), "abcdefghijklmn"));
    assert_eq!(outbox.lock().frames.frames().capacity(), 0, "nothing was queued");
    // At most four are queued: the rest of the second, and three more.
    let (outbox, socket) = direct(3);
    outbox.open_direct();
    assert_eq!((send(&outbox), socket.got().as_str()), ((5, Err(TrySendError::Full)), "abc"));
    assert_eq!((outbox.is_cut(), outbox.is_direct()), (true, false));
    assert_eq!(pull_up_to(&outbox, 100), Poll::Ready(Pull::Bytes(text("defghij"))));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::CatchUp(15)));
    assert_eq!(outbox.lock().taken, 10);
    // Behind a queued frame, and to a body.
    let (outbox, socket) = direct(100);
    outbox.open_direct();
    outbox.queue_or_catch_up(&text("-"), 9).unwrap();
    assert_eq!((send(&outbox), socket.got().as_str()), ((7, Ok(Accepted::Done)), "-abcdefghijklmn"));
    let outbox = self::outbox(10, 100);
    assert_eq!(send(&outbox), (7, Ok(Accepted::Done)));
    assert_eq!(pull_up_to(&outbox, 100), Poll::Ready(Pull::Bytes(text("abcdefghijklmn"))));
    outbox.close(CloseReason::Kicked);
    assert_eq!(send(&outbox), (0, Err(TrySendError::Closed)));
}

#[test]
fn a_stalled_socket_is_broken_off_until_it_has_taken_the_end() {
    let (outbox, socket) = direct(100);
    outbox.close(CloseReason::SlowConsumer);
    outbox.close(CloseReason::SlowConsumer);
    outbox.open_direct();
    assert!(socket.got() == "!" && outbox.lock().socket().is_none());
    for taken in [false, true] {
        let (outbox, socket) = direct(100);
        outbox.open_direct();
        outbox.close(CloseReason::Kicked);
        assert_eq!(pull(&outbox), Poll::Ready(Pull::Closed(CloseReason::Kicked)));
        outbox.open_direct();
        assert!(!outbox.is_direct(), "nothing is written behind the end");
        if taken {
            outbox.detach();
        }
        outbox.abort(CloseReason::Kicked);
        assert_eq!(socket.got(), if taken { "" } else { "!" });
    }
}

#[test]
fn a_slow_consumer_that_reads_again_gets_no_other_byte() {
    let outbox = outbox(10, 1000);
    outbox.offer(&frame(30)).unwrap();
    assert_eq!(pull_up_to(&outbox, 10), Poll::Ready(Pull::Bytes(frame(10))));
    outbox.close(CloseReason::SlowConsumer);
    assert_eq!(pull_up_to(&outbox, 10), Poll::Ready(Pull::Aborted(CloseReason::SlowConsumer)));
    assert_eq!(pull_up_to(&outbox, 10), Poll::Ready(Pull::Aborted(CloseReason::SlowConsumer)));
}

#[test]
fn silence_counts_from_a_heartbeat_that_has_left() {
    let outbox = outbox(10, 1000);
    let unanswered = |active| outbox.tick(active).unanswered;
    assert_eq!((unanswered(false), unanswered(false)), (0, 0), "nobody asked");
    outbox.offer(&frame(5)).unwrap();
    outbox.ask(&frame(1), &AtomicBool::default());
    assert_eq!((unanswered(false), unanswered(false)), (0, 0), "it waits behind others");
    while let Poll::Ready(Pull::Bytes(_)) = pull_up_to(&outbox, 10) {}
    assert_eq!((unanswered(false), unanswered(false), unanswered(false)), (1, 2, 3));
    assert_eq!((unanswered(true), unanswered(false)), (0, 0), "any byte is an answer");
}

#[test]
fn a_client_that_still_reads_frames_before_a_heartbeat_has_time_to_answer() {
    let outbox = outbox(100, 1000);
    for _ in 0..10 {
        outbox.offer(&frame(10)).unwrap();
        let _ = pull_up_to(&outbox, 5);
        assert_eq!(outbox.tick(false).unanswered, 0);
    }
    while let Poll::Ready(Pull::Bytes(_)) = pull_up_to(&outbox, 100) {}
    outbox.ask(&frame(1), &AtomicBool::default());
    let _ = pull(&outbox);
    let unanswered: Vec<_> = (0..12).map(|_| outbox.tick(false).unanswered).collect();
    assert_eq!(
        unanswered,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2],
        "ticks in which the client still reads do not count"
    );
}

#[test]
fn the_end_waits_for_messages_acknowledged_before() {
    let outbox = outbox(10, 1000);
    assert!(outbox.close_after(CloseReason::Kicked, Position { epoch: 1, offset: 7 }));
    assert!(
        !outbox.close_after(CloseReason::Normal, Position { epoch: 1, offset: 9 }),
        "the first one stays"
    );
    assert_eq!(outbox.closing(), Some(CloseReason::Kicked));
    for _ in 0..5 {
        let ticked = outbox.tick(false);
        assert_eq!((ticked.stalled, ticked.closing), (0, None), "waiting for the log is no stall");
    }
    assert_eq!(outbox.queue_or_catch_up(&frame(1), 6), Ok(Accepted::Done));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Bytes(frame(1))));
    assert_eq!(pull(&outbox), Poll::Pending);
    outbox.release();
    assert_eq!(outbox.offer(&frame(1)), Err(TrySendError::Closed));
    assert_eq!(pull(&outbox), Poll::Ready(Pull::Closed(CloseReason::Kicked)));
}

#[cfg(not(feature = "shuttle"))]
#[test]
fn the_state_is_no_larger_than_it_was() {
    assert!(size_of::<State>() <= 104, "{} bytes", size_of::<State>());
}
