//! Retained messages, ids and text streams, beside records that are none.

use realtime_core::{
    CollapseKey, Envelope, EnvelopeId, Message, Scope, Topic,
    bus::{Bus, BusError, BusEvent, StreamStore, StreamWrite, StreamWritten, WriteCondition},
    streams::{StreamChange, StreamEntry, StreamId, StreamKey},
};
use realtime_redis::{RedisConfig, RedisStreamsBus};
use realtime_tests::{Proxy, Redis, conformance::Subscriber, within};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Writes something with a script.
fn write(redis: &Redis, script: &str) {
    let script = format!("local bad, call = '\\255\\254', redis.call {script} return 'written'");
    assert_eq!(redis.cli(&["eval", &script, "0"]), "written", "{script}");
}

fn retained(text: &str) -> Arc<Envelope> {
    let topic = Topic::new("order:7").unwrap();
    let envelope = Envelope::to_topic(topic, Scope::Both, Message::text(text.to_owned()));
    Arc::new(envelope.retain().collapse(CollapseKey::new("state").unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_are_kept_beside_garbage() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    for (n, script) in [
        "call('set', '{rt}:retained', 'x')",
        "call('set', '{rt}:retained:order', 'x')",
        "call('set', '{rt}:retained:ends', 'x')",
        "call('set', '{rt}:retained:topics', 'x')",
        "call('hset', '{rt}:retained', '', 'much')",
        "call('hset', '{rt}:retained', '', '9223372036854775807')",
        "call('hset', '{rt}:retained', '', '-9223372036854775807')",
        "call('hset', '{rt}:retained', bad, bad, 'x', '1-1 {')",
        "call('zadd', '{rt}:retained:order', '+inf', bad)",
        "call('zadd', '{rt}:retained:ends', 0, bad, '-inf', 'x')",
        "for n = 1, 999 do call('zadd', '{rt}:retained:topics', 0, 'order:7 ' .. bad .. n) end",
        "call('zadd', '{rt}:retained:topics', '+inf', bad, '-inf', 'order:7', 1, 'order:7 ')",
    ]
    .into_iter()
    .enumerate()
    {
        write(&redis, script);
        // The first may be needed to put it right.
        for _ in 0..2 {
            bus.publish(&retained(&n.to_string())).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        }
        let late = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
        let mut events = Subscriber::start(&late);
        let kept = events.until(|event| matches!(event, BusEvent::Retained(_))).await;
        let BusEvent::Retained(kept) = kept else { unreachable!() };
        let texts: Vec<_> = kept.iter().map(|kept| kept.envelope.message().data.to_string()).collect();
        assert_eq!(texts, [n.to_string()], "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_that_does_not_arrive_in_time_is_skipped() {
    let redis = Redis::start().await;
    let publisher = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    publisher.publish(&retained("kept")).await.unwrap();
    // It takes 4 s.
    write(&redis, "call('hset', '{rt}:retained', 'x', string.rep(string.rep('x', 1024), 16384))");
    let proxy = Proxy::start_at(redis.port(), 4 << 20).await;
    let config = RedisConfig::single(format!("redis://127.0.0.1:{}/", proxy.port()));
    let slow = RedisStreamsBus::new(config).unwrap();
    let mut events = Subscriber::start(&slow);
    let kept = within("the retained messages", events.until(|event| matches!(event, BusEvent::Retained(_))));
    let BusEvent::Retained(kept) = kept.await else { unreachable!() };
    let texts: Vec<_> = kept.iter().map(|kept| kept.envelope.message().data.to_string()).collect();
    assert_eq!(texts, ["kept"]);
    assert!(slow.metrics().undecodable >= 1);
    within("the bus", events.until(|event| matches!(event, BusEvent::Up(_)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_whose_record_is_broken_is_a_new_one() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    for (n, script) in [
        "call('set', '{rt}:id:ID', 'x')",
        "call('set', '{rt}:id:ID', bad)",
        "call('rpush', '{rt}:id:ID', 'x')",
    ]
    .into_iter()
    .enumerate()
    {
        for retain in [false, true] {
            let id = format!("{n}{retain}");
            write(&redis, &script.replace("ID", &id));
            let envelope = Arc::unwrap_or_clone(retained("x")).with_id(EnvelopeId::new(&id).unwrap());
            let plain =
                Envelope::broadcast(Scope::Both, Message::text("x")).with_id(EnvelopeId::new(&id).unwrap());
            let envelope = Arc::new(if retain { envelope } else { plain });
            let first = bus.publish(&envelope).await.unwrap_or_else(|error| panic!("{script}: {error}"));
            assert_eq!(bus.publish(&envelope).await.unwrap(), first, "{script}");
        }
    }
}

/// The key of a text stream.
fn key(id: &str) -> StreamKey {
    StreamKey { topic: Topic::new("answers").unwrap(), id: StreamId::new(id).unwrap() }
}

/// Begins a text stream.
async fn begin(store: &dyn StreamStore, id: &str, text: &str) -> Result<StreamWritten, BusError> {
    let change = StreamChange::Text(text.into());
    let entry = StreamEntry { key: key(id), run: 1, at: 0, change };
    let write = StreamWrite {
        entry: &entry,
        writer: "w",
        condition: WriteCondition::Always,
        keep: Duration::from_secs(60),
    };
    store.write(&write).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_stream_is_written_and_read_beside_garbage() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let store = bus.streams().unwrap();
    for (n, script) in [
        "call('hset', '{rt}:stream:answers ID', 'run', 'x', 'writer', bad, 'len', bad, 'state', bad)",
        "call('hset', '{rt}:stream:answers ID', 'run', '0', 'writer', 'w', 'len', 'x', 'from', bad, 'state', '')",
        "call('hset', '{rt}:stream:answers ID', 'run', '1', 'writer', 'w', 'len', bad, 'from', bad, 'state', '')",
        "call('hset', '{rt}:stream:answers ID', 'run', '1e300', 'writer', 'w', 'len', '1', 'from', '0', 'state', '')",
        "call('rpush', '{rt}:stream:answers ID', 'x')",
        "call('rpush', '{rt}:text:answers ID', 'x')",
        "call('del', '{rt}:streams') call('set', '{rt}:streams', 'x')",
        "call('del', '{rt}:stream-leases') call('set', '{rt}:stream-leases', 'x')",
        "call('zadd', '{rt}:streams', '+inf', bad, 4e12, 'x', 4e12, 'answers none')",
        "for i = 1, 300 do call('zadd', '{rt}:stream-leases', i, bad .. i) end",
        "call('set', '{rt}:stream-sweep', 'x')",
        "call('hset', '{rt}:stream-sweep', 'last', bad, 'since', '1e300')",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("s{n}");
        write(&redis, &script.replace("ID", &id));
        let written = begin(&*store, &id, "Größe").await.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(matches!(written, StreamWritten::Added(_)), "{script}: {written:?}");
        let heads = store.heads().await.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(heads.iter().any(|head| head.key == key(&id)), "{script}: {heads:?}");
        let (_, text) = store.read(&key(&id)).await.unwrap().unwrap_or_else(|| panic!("{script}"));
        assert_eq!(text, "Größe", "{script}");
        assert_eq!(store.renew(&[key(&id)]).await.unwrap(), [], "{script}");
        for _ in 0..4 {
            store.abandoned().await.unwrap_or_else(|error| panic!("{script}: {error}"));
        }
    }
    // Texts that are none belong to one stream only.
    write(&redis, "call('set', '{rt}:text:answers s0', string.rep(bad, 3) .. 'x')");
    assert!(store.read(&key("s0")).await.unwrap().is_none());
    write(&redis, SEARCHED);
    for _ in 0..5 {
        store.abandoned().await.unwrap();
    }
    // Leases of nobody do not hide those that have ended.
    let forgotten = redis.cli(&["zcard", "{rt}:stream-leases"]).parse::<u64>().unwrap();
    assert!(forgotten < 50, "{forgotten} leases");
}

/// Makes it a Redis whose ended leases were searched for without a pause.
const SEARCHED: &str = "local now = redis.call('time')[1] * 1000
                        call('hset', '{rt}:stream-sweep', 'last', now, 'since', now - 20000)";

/// Waits until a search finds the stream that nobody writes any more.
async fn until_abandoned(store: &dyn StreamStore, id: &str) {
    within("the abandoned stream", async {
        while store.abandoned().await.unwrap().iter().all(|head| head.key != key(id)) {
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_text_stream_that_is_too_long_ends_like_others() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let store = bus.streams().unwrap();
    for (id, end) in [("later", "redis.call('time')[1] * 1000 + 3600000"), ("never", "'+inf'")] {
        begin(&*store, id, "x").await.unwrap();
        write(&redis, &format!("call('zadd', '{{rt}}:stream-leases', {end}, 'answers {id}')"));
        write(&redis, SEARCHED);
        until_abandoned(&*store, id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_unreadable_and_ended_text_streams_hide_no_other() {
    let redis = Redis::start().await;
    let bus = RedisStreamsBus::new(RedisConfig::single(redis.url())).unwrap();
    let store = bus.streams().unwrap();
    for record in ["'run', '1', 'len', 'x'", "'run', '1', 'writer', 'w', 'len', '0', 'state', 'done'"] {
        let leases = format!(
            "for i = 1, 100 do
               call('del', '{{rt}}:stream:answers ' .. i)
               call('hset', '{{rt}}:stream:answers ' .. i, {record})
               call('zadd', '{{rt}}:stream-leases', 1, 'answers ' .. i)
             end"
        );
        write(&redis, &leases);
        begin(&*store, "abandoned", "x").await.unwrap();
        write(&redis, "call('zadd', '{rt}:stream-leases', 2, 'answers abandoned')");
        write(&redis, SEARCHED);
        until_abandoned(&*store, "abandoned").await;
    }
}
