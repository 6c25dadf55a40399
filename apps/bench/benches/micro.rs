//! Costs of single steps in the delivery of a message: `cargo bench -p realtime-bench`.

use std::cell::RefCell;

use divan::{Bencher, black_box, counter::ItemsCount};
use realtime_core::{
    Message, Position,
    bench::{self, Unicasts},
};

fn main() {
    divan::main();
}

/// A message of 150 bytes.
fn message() -> Message {
    Message::text("x".repeat(150))
}

#[divan::bench]
fn encode_raw_websocket(bencher: Bencher) {
    let message = message();
    bencher.bench(|| realtime_websocket::bench::raw(&message));
}

#[divan::bench]
fn encode_realtime_v1(bencher: Bencher) {
    let message = message();
    bencher.bench(|| realtime_websocket::bench::v1(&message));
}

#[divan::bench]
fn encode_event_stream(bencher: Bencher) {
    let message = message();
    bencher.bench(|| realtime_sse::bench::block(&message));
}

/// One frame in and out.
#[divan::bench]
fn outbox(bencher: Bencher) {
    bencher.bench_local(bench::outbox());
}

/// Broadcasts from the log through a pass to 1,000 sessions, and read from there; items are deliveries.
#[divan::bench(args = [1, 20])]
fn pass_to_1000_sessions(bencher: Bencher, broadcasts: usize) {
    bencher.counter(ItemsCount::new(1000 * broadcasts)).bench_local(bench::pass(1000, broadcasts));
}

/// 64 messages, each to one of a number of sessions: envelope, log, pass, outbox; items are messages.
#[divan::bench(args = [1000, 10_000], sample_size = 16)]
fn unicast(bencher: Bencher, sessions: usize) {
    let unicasts = RefCell::new(Unicasts::new(sessions, 64));
    bencher
        .counter(ItemsCount::new(64_usize))
        .with_inputs(|| unicasts.borrow_mut().read())
        .bench_local_values(|()| unicasts.borrow_mut().send());
}

/// The same, and out of the outboxes.
#[divan::bench(args = [1000, 10_000], sample_size = 16)]
fn unicast_and_read(bencher: Bencher, sessions: usize) {
    let mut unicasts = Unicasts::new(sessions, 64);
    bencher.counter(ItemsCount::new(64_usize)).bench_local(move || {
        unicasts.send();
        unicasts.read();
    });
}

/// The replay of messages to a client that reconnects; items are messages.
#[divan::bench(args = [1000, 50_000])]
fn replay(bencher: Bencher, messages: u64) {
    bencher.counter(ItemsCount::new(messages)).bench_local(bench::replay(messages));
}

/// Twenty frames of 150 bytes for one write each to 1,000 sessions.
#[divan::bench]
fn gather_for_1000_sessions(bencher: Bencher) {
    bencher.counter(ItemsCount::new(1000_usize)).bench_local(bench::gather(1000, 20));
}

#[divan::bench]
fn cursor_write(bencher: Bencher) {
    let position = Position { epoch: 1_795_492_719_616, offset: 123_456 };
    bencher.bench(|| black_box(position).to_string());
}

#[divan::bench]
fn cursor_read(bencher: Bencher) {
    bencher.bench(|| black_box("1795492719616.123456").parse::<Position>());
}

#[divan::bench(args = [1, 1000])]
fn ruoyi_encode(bencher: Bencher, users: i64) {
    let users: Vec<i64> = (0..users).collect();
    let text = message().data.to_string();
    bencher.bench(|| realtime_redis::bench::ruoyi_encode(&users, &text));
}

#[divan::bench(args = [1, 1000])]
fn ruoyi_decode(bencher: Bencher, users: i64) {
    let users: Vec<i64> = (0..users).collect();
    let payload = realtime_redis::bench::ruoyi_encode(&users, &message().data.to_string());
    bencher.bench(|| realtime_redis::bench::ruoyi_decode(payload.as_bytes()));
}
