//! Pushes over WebSocket and nothing else: `cargo run -p realtime-websocket --example websocket_only`.

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App,
    web::{self, Data, Path},
};
use realtime_websocket::{
    HttpServer, Hub, UserId, WebSocketConfig, WebSockets,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;

    let sockets = WebSockets::new(hub.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(sockets.clone()))
            .configure(routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
            .route("/push/{user}", web::post().to(push))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8081"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("connect user 42: ws://{address}/resource/websocket?Authorization={token}");
    eprintln!("push to user 42: curl -d 'your order has been paid' http://{address}/push/42");
    server.run().await?;
    Ok(())
}

async fn push(sockets: Data<WebSockets>, user: Path<UserId>, text: String) -> Result<String, Box<dyn Error>> {
    let published = sockets.publish_to([user.into_inner()], text).await?;
    Ok(format!("{published:?}\n"))
}
