//! A command that panics on a node costs nobody else a session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use realtime_core::{
    Envelope, Hub, MemoryBus, Message, Position, Principal, Scope, Session, Topic, Transport,
    wire::{BusState, GapReason, WireFormat},
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl};
use realtime_tests::{Redis, within};
use tokio::time::sleep;

/// A wire format of an application, with a fault.
struct Faulty;

impl WireFormat for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn message(&self, message: &Message, _: Option<&Topic>, _: Option<Position>) -> Bytes {
        assert!(message.data != *"bad", "this text has no frame");
        Bytes::new()
    }

    fn gap(&self, _: GapReason, _: Option<Position>, _: Option<SystemTime>, _: Duration) -> Option<Bytes> {
        None
    }

    fn heartbeat(&self, _: Option<Position>, _: BusState) -> Bytes {
        Bytes::new()
    }

    fn answers_heartbeat(&self) -> bool {
        false
    }
}

#[actix_web::test]
async fn a_command_that_panics_repeats_no_kick() {
    let (redis, bus) = (Redis::start().await, MemoryBus::new());
    let [a, b] = ["a", "b"].map(|name| {
        let control = RedisControl::make(RedisConfig::single(redis.url()), Incarnation::new(name)).unwrap();
        Hub::builder().node(name).bus(bus.clone()).control(control).start().unwrap()
    });
    within("the starts", async { tokio::join!(a.started(), b.started()) }).await;
    redis.knows_all_nodes();
    let wire: Arc<dyn WireFormat> = Arc::new(Faulty);
    let open = |user: i64, token: &str| -> Session {
        b.connect(Principal::new(user.into(), token), Transport::new("test"), &wire, None).unwrap()
    };
    let kicked = open(1, "before");
    assert_eq!(a.kick(&1.into()).await.unwrap().closed, 1);
    assert!(kicked.closing().is_some());
    let (again, other) = (open(1, "after"), open(2, "t"));
    let topic = Topic::new("x").unwrap();
    let bad = Envelope::to_topic(topic.clone(), Scope::Both, Message::text("bad")).retain();
    a.publish(bad).await.unwrap();
    let mut login = Principal::new(2.into(), "new");
    login.topics = vec![topic];
    a.renew_session(other.handle().id(), login).await.ok();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(again.closing(), None, "it was not kicked again");
    // Commands are still carried out.
    within("a kick", async {
        while again.closing().is_none() {
            a.kick(&1.into()).await.ok();
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
