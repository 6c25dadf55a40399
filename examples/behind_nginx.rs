//! Behind a reverse proxy: `cargo run -p realtime-examples --bin behind_nginx`.
//!
//! What nginx needs for long-lived connections, and for the client's address:
//!
//! ```nginx
//! map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
//!
//! location /resource/ {
//!     proxy_pass http://127.0.0.1:8080;
//!     proxy_http_version 1.1;
//!     proxy_set_header Host $http_host;                        # the origin check compares it with `Origin`
//!     proxy_set_header Upgrade $http_upgrade;
//!     proxy_set_header Connection $connection_upgrade;
//!     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
//!     proxy_buffering off;                                     # or an event waits for the next ones
//!     proxy_read_timeout 60s;                                  # more than heartbeat.interval, 20 s
//! }
//! ```

use std::{env, error::Error, net::IpAddr, sync::Arc, time::SystemTime};

use actix_web::App;
use realtime_sse::SseConfig;
use realtime_websocket::{
    Authenticator, BoxFuture, HttpServer, Hub, Principal, WebSocketConfig,
    auth::{AuthError, Claims, Handshake, JwtAlgorithm, JwtAuthenticator, TrustedProxies},
};

/// Tokens, and where their users come from.
struct Logins(JwtAuthenticator);

impl Authenticator for Logins {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let mut principal = self.0.authenticate(handshake).await?;
            // Not the proxy's: this is what a limit for each address would count by.
            if let Some(address) = handshake.client_ip() {
                principal.extensions.insert(address);
            }
            Ok(principal)
        })
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder()
        .on_open(|session| {
            let address = session.get::<IpAddr>().expect("a connection over TCP has an address");
            // An error would mean that it is closing already.
            session.send_local(format!("you are connected from {address}")).ok();
        })
        .start()?;
    let jwt = JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?;
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;
    let logins = Arc::new(Logins(jwt));
    // Only `X-Forwarded-For` headers of these proxies count; any other client could write anything.
    let proxies = TrustedProxies::new(["127.0.0.1", "::1", "10.0.0.0/8"])?;

    let server = HttpServer::new(move || {
        let websocket = WebSocketConfig::default().trusted_proxies(proxies.clone());
        let sse = SseConfig::default().trusted_proxies(proxies.clone());
        App::new()
            .configure(realtime_websocket::routes(hub.clone(), logins.clone(), websocket))
            .configure(realtime_sse::routes(hub.clone(), logins.clone(), sse))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("connect user 42: ws://{address}/resource/websocket?Authorization={token}");
    server.run().await?;
    Ok(())
}
