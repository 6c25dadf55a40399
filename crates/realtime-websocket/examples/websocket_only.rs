//! Pushes over WebSocket and nothing else: `cargo run -p realtime-websocket --example websocket_only`.

use std::{error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App,
    web::{self, Data, Path},
};
use realtime_websocket::{
    HttpServer, Hub, WebSocketConfig, WebSockets,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;
    eprintln!("connect user 42: ws://127.0.0.1:8081/resource/websocket?Authorization={token}");
    eprintln!("push to user 42: curl -d 'your order has been paid' http://127.0.0.1:8081/push/42");

    let sockets = WebSockets::new(hub.clone());
    HttpServer::new(move || {
        App::new()
            .app_data(Data::new(sockets.clone()))
            .configure(routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
            .route("/push/{user}", web::post().to(push))
    })
    .bind(("127.0.0.1", 8081))?
    .run()
    .await?;
    Ok(())
}

async fn push(sockets: Data<WebSockets>, user: Path<i64>, text: String) -> Result<String, Box<dyn Error>> {
    let published = sockets.publish_to(&[(*user).into()], text).await?;
    Ok(format!("{published:?}\n"))
}
