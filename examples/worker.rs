//! Publishes to a user of a cluster, from a process without HTTP:
//! `cargo run -p realtime-examples --bin worker -- redis://127.0.0.1/ 42 "your order has been paid"`.
//!
//! It needs `realtime-core` and `realtime-redis` alone, which depend on neither actix-web nor a transport. Nodes that
//! share the Redis deliver the message.

use std::{env, error::Error};

use realtime_core::{Envelope, Hub, Message, Scope, UserId};
use realtime_redis::{RedisConfig, RedisStreamsBus};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, user, text] = arguments.as_slice() else {
        return Err("usage: worker <redis url> <user> <text>".into());
    };
    let user: UserId = user.parse()?;

    // A node without sessions needs neither presence nor control.
    // How much is kept is theirs to say, as in `RedisConfig::history`.
    let redis = RedisConfig::single(url).without_trimming();
    let hub = Hub::builder().bus(RedisStreamsBus::new(redis)?).start()?;
    let envelope = Envelope::to_users([&user], Scope::Both, Message::text(text.as_str()))?;
    let published = hub.publish(envelope).await?;
    eprintln!("published at {}", published.position.ok_or("a stream has positions")?);
    Ok(())
}
