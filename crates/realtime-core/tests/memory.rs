//! Memory of a connected, idle session: everything that the hub keeps for it, measured on the process.
//!
//! The table is printed with `cargo test -p realtime-core --test memory -- --nocapture`.
#![cfg(all(target_os = "linux", feature = "jwt"))]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that prints a table")]

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use realtime_core::{
    Hub, Message, Position, Session, Topic, Transport,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    wire::{BusState, GapReason, WireFormat},
};

struct Plain;

impl WireFormat for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        Bytes::copy_from_slice(message.data.as_bytes())
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        None
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::from_static(b"heartbeat")
    }

    fn answers_heartbeat(&self) -> bool {
        true
    }
}

/// Anonymous memory of the process in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn connect(hub: &Hub, user: usize) -> Session {
    // A shared one would cache the last tokens, which is bounded and not part of a session.
    let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of the tests, long enough").unwrap();
    let mut claims = Claims::new(i64::try_from(user).unwrap(), 4_102_444_800);
    claims.client_id = Some("e5cd7e4891bf95d1d19206ce24a7b32e".into());
    claims.iat = Some(1_700_000_000);
    let principal = jwt.verify(&jwt.sign(&claims).unwrap()).unwrap();
    let wire: Arc<dyn WireFormat> = Arc::new(Plain);
    hub.connect(principal, Transport::new("test"), &wire, None).unwrap()
}

/// Bytes per session of `users` new users, besides the [`Session`] itself, which its connection owns. The sessions are
/// returned, so that the next ones cannot reuse their memory.
async fn measure(hub: &Hub, first: usize, users: usize) -> (usize, Vec<Session>) {
    let mut kept = Vec::with_capacity(SESSIONS);
    let before = resident();
    kept.extend((0..SESSIONS).map(|n| connect(hub, first + n % users)));
    tokio::task::yield_now().await;
    let bytes = resident().saturating_sub(before + SESSIONS * size_of::<Session>()) / SESSIONS;
    (bytes, kept)
}

const SESSIONS: usize = 10_000;

#[tokio::test]
async fn an_idle_session_takes_little_memory() {
    let mut settings = realtime_core::Settings::default();
    settings.limits.max_connections_per_user = 0;
    let hub = Hub::builder().settings(settings).start().unwrap();
    let _shard = hub.shard();
    let _warm: Vec<Session> = (0..100).map(|user| connect(&hub, user)).collect();
    let (alone, _kept) = measure(&hub, 10_000, SESSIONS).await;
    let (shared, _kept_too) = measure(&hub, 100_000, SESSIONS / 4).await;
    println!("{:>20} bytes a session", "sessions of a user");
    println!("{:>20} {alone}", 1);
    println!("{:>20} {shared}", 4);
    // The slack of the allocator is included.
    assert!(alone < 640, "{alone} bytes a session of a user with one");
    assert!(shared < alone, "{shared} bytes a session of a user with four, which share a login");
}
