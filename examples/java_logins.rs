//! A Rust node among RuoYi's Java nodes, with their logins and their channels:
//! `cargo run -p realtime-examples --bin java_logins -- redis://127.0.0.1:6379/0`.

use std::{env, error::Error, sync::Arc};

use actix_web::App;
use realtime_redis::{RedisCluster, RedisConfig, SaTokenAuthenticator, SaTokenConfig};
use realtime_sse::SseConfig;
use realtime_websocket::{AllowedOrigins, HttpServer, Hub, WebSocketConfig};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "redis://127.0.0.1:6379/0".to_owned());
    // The Java nodes' redisson.keyPrefix, empty for none.
    let config = RedisConfig::single(&url).key_prefix("");
    let hub = Hub::builder().cluster(RedisCluster::pubsub(config, "rust-1")?).start()?;

    // sa-token.jwt-secret-key; global_prefix is false where tenant.enable is off.
    let sa_token = SaTokenConfig::new(&url, "abcdefghijklmnopqrstuvwxyz").global_prefix(true);
    let every = sa_token.recheck;
    let sa_token = SaTokenAuthenticator::new(sa_token)?;
    // Ends the sessions of logins that Java nodes have ended; dropping it ends the watch.
    let _watch = sa_token.watch(hub.clone(), every);
    let sa_token = Arc::new(sa_token);

    let server = HttpServer::new(move || {
        let origins = AllowedOrigins::new(["http://localhost:5173"]).expect("it is an origin");
        let websocket = WebSocketConfig::default().allowed_origins(origins);
        App::new()
            .configure(realtime_websocket::routes(hub.clone(), sa_token.clone(), websocket))
            .configure(realtime_sse::routes(hub.clone(), sa_token.clone(), SseConfig::default()))
    })
    .bind(arguments.next().as_deref().unwrap_or("127.0.0.1:8084"))?;

    eprintln!("listening on {}", server.addrs()[0]);
    server.run().await?;
    Ok(())
}
