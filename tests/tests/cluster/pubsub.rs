//! The bus in RuoYi's bytes over a real redis-server.

mod outages;
mod ruoyi_bytes;

use std::sync::Arc;

use realtime_core::{Envelope, Message, Scope, Transport};
use realtime_redis::{RedisConfig, RedisPubSubBus};
use realtime_tests::Redis;

fn bus(redis: &Redis) -> RedisPubSubBus {
    RedisPubSubBus::new(RedisConfig::single(redis.url())).unwrap()
}

fn only(transport: &str) -> Scope {
    Scope::Only(Transport::parse(transport).unwrap())
}

fn to_sse(text: &str) -> Arc<Envelope> {
    Arc::new(Envelope::broadcast(only("sse"), Message::text(text)))
}
