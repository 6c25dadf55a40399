//! A service whose own configuration file has sections for both transports, for Redis and for the hub:
//! `cargo run -p realtime-examples --bin configured`.
//!
//! The file is `configured.yml` beside this program; another one can be given behind the address. The crates read no file:
//! their types deserialize from the file that an application reads its own configuration with.

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App,
    web::{self, Data, Path},
};
use config::{Config, File, FileFormat};
use realtime_core::{
    Envelope, Hub, Message, Scope, Settings, UserId,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
};
use realtime_redis::{RedisCluster, RedisConfig};
use realtime_sse::SseConfig;
use realtime_websocket::{HttpServer, WebSocketConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct AppConfig {
    orders: Orders,
    #[serde(default)]
    websocket: WebSocketConfig,
    #[serde(default)]
    sse: SseConfig,
    #[serde(default, deserialize_with = "RedisConfig::optional")]
    redis: Option<RedisConfig>,
    #[serde(default)]
    push: Settings,
}

/// The service's own section.
#[derive(Deserialize)]
struct Orders {
    currency: String,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = match env::args().nth(2) {
        Some(path) => std::fs::read_to_string(path)?,
        None => include_str!("configured.yml").to_owned(),
    };
    let file = Config::builder().add_source(File::from_str(&file, FileFormat::Yaml)).build()?;
    let AppConfig { orders, websocket, sse, redis, push } = file.try_deserialize()?;

    let mut hub = Hub::builder();
    if let Some(redis) = redis {
        hub = hub
            .cluster(RedisCluster::new(redis.history(&push.history).retained(&push.retained), "orders-1")?);
    }
    let hub = hub.settings(push).start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;
    let paths = (websocket.path.clone(), sse.path.clone());

    let currency = Data::new(orders.currency);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(hub.clone()))
            .app_data(currency.clone())
            .configure(realtime_websocket::routes(hub.clone(), jwt.clone(), websocket.clone()))
            .configure(realtime_sse::routes(hub.clone(), jwt.clone(), sse.clone()))
            .route("/orders/{user}/paid/{amount}", web::post().to(paid))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("connect user 42: ws://{address}{}?Authorization={token}", paths.0);
    eprintln!("or: curl -N 'http://{address}{}?Authorization={token}'", paths.1);
    eprintln!("push to user 42: curl -X POST http://{address}/orders/42/paid/20");
    server.run().await?;
    Ok(())
}

async fn paid(
    hub: Data<Hub>,
    currency: Data<String>,
    order: Path<(UserId, u32)>,
) -> Result<String, Box<dyn Error>> {
    let (user, amount) = order.into_inner();
    let message = Message::text(format!("paid: {amount} {}", **currency));
    let published = hub.publish(Envelope::to_users([&user], Scope::Both, message)?).await?;
    Ok(format!("{published:?}\n"))
}
