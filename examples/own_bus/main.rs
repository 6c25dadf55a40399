//! A bus of one's own between two nodes: `cargo run -p realtime-examples --bin own_bus`.
//!
//! The contract is in the documentation of `Bus`; `tests/own_bus.rs` tests this one with the suite of `realtime-core`.

mod bus;

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App, HttpResponse,
    web::{self, Data, Path},
};
use realtime_sse::{
    HttpServer, Hub, SseConfig, UserId,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

use bus::ChannelBus;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bus = ChannelBus::new(1024);
    // Two nodes of one process; over a broker they would be two processes.
    let [one, two] = ["one", "two"].map(|node| Hub::builder().node(node).bus(bus.clone()).start());
    let (one, two) = (one?, two?);
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;

    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(two.clone()))
            .configure(routes(one.clone(), jwt.clone(), SseConfig::default()))
            .route("/push/{user}", web::post().to(push))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("open a stream of node one: curl -N 'http://{address}/resource/sse?Authorization={token}'");
    eprintln!("publish on node two: curl -d 'your order has been paid' http://{address}/push/42");
    server.run().await?;
    Ok(())
}

/// Publishes on the second node; the streams are of the first.
async fn push(two: Data<Hub>, user: Path<UserId>, text: String) -> Result<HttpResponse, Box<dyn Error>> {
    two.publish_to_user(user.into_inner(), text).await?;
    Ok(HttpResponse::NoContent().finish())
}
