//! A WebSocket server that sends every text and every message of bytes back, for conformance suites: docs/conformance.md.
//!
//! `cargo run -p realtime-tests --bin echo -- realtime 9001`, or `actix` for actix-web's server. Anybody may connect, and
//! no limit is below what the suites send.

use std::{env, error::Error, sync::Arc, time::Duration};

use actix_web::App;
use bytes::Bytes;
use bytestring::ByteString;
use realtime_core::{
    Authenticator, BoxFuture, Hub, Principal, SessionHandle, Settings,
    auth::{AuthError, Handshake},
    settings::Limits,
};
use realtime_websocket::{InboundHandler, WebSocketConfig, routes};

struct Anybody;

impl Authenticator for Anybody {
    fn authenticate<'a>(&'a self, _: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async { Ok(Principal::new(1.into(), "")) })
    }
}

struct Echo;

impl InboundHandler for Echo {
    fn on_text(&self, _: SessionHandle, text: ByteString) -> BoxFuture<'static, Option<ByteString>> {
        Box::pin(async { Some(text) })
    }

    fn on_binary(&self, _: SessionHandle, data: Bytes) -> Option<BoxFuture<'static, Option<Bytes>>> {
        Some(Box::pin(async { Some(data) }))
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [kind, port] =
        env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: echo KIND PORT")?;
    let address = ("127.0.0.1", port.parse::<u16>()?);
    let mut settings = Settings::default();
    unlimit(&mut settings.limits);
    // Autobahn's client answers a ping within an unfinished frame of its own.
    settings.heartbeat.interval = Duration::from_secs(3600);
    settings.history.max_age = Duration::from_secs(4 * 3600);
    let hub = Hub::builder().settings(settings).start()?;
    let app = move || {
        let config = WebSocketConfig::default().inbound(Echo);
        App::new().configure(routes(hub.clone(), Arc::new(Anybody), config))
    };
    let server = match kind.as_str() {
        "realtime" => realtime_server::HttpServer::new(app).bind(address)?.run(),
        // Any longer, and every FIN comes that much after its Close frame.
        "actix" => {
            actix_web::HttpServer::new(app).client_disconnect_timeout(Duration::ZERO).bind(address)?.run()
        }
        _ => return Err("the server is `realtime` or `actix`".into()),
    };
    server.await?;
    Ok(())
}

fn unlimit(limits: &mut Limits) {
    limits.max_connections_per_user = 0;
    limits.max_inbound_bytes = 0;
    limits.max_inbound_rate = 0;
    limits.max_inbound_frame_rate = 0;
    limits.max_inbound_byte_rate = 0;
}
