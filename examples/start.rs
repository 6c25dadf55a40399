//! The service of docs/getting-started.md: `cargo run -p realtime-examples --bin start`.

use std::{error::Error, sync::Arc, time::SystemTime};

use actix_web::{App, web};
use realtime_sse::SseConfig;
use realtime_websocket::{
    Envelope, HttpServer, Hub, Message, Scope, UserId, WebSocketConfig,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // One hub for the process, made before the workers start.
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);

    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(hub.clone()))
            .app_data(web::Data::from(jwt.clone()))
            .configure(realtime_websocket::routes(hub.clone(), jwt.clone(), WebSocketConfig::default()))
            .configure(realtime_sse::routes(hub.clone(), jwt.clone(), SseConfig::default()))
            .route("/login/{user}", web::post().to(login))
            .route("/orders/{user}/paid", web::post().to(paid))
    })
    .bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8083"))?;

    eprintln!("listening on {}", server.addrs()[0]);
    server.run().await?;
    Ok(())
}

/// Stands for your login: here everybody is who they say.
async fn login(jwt: web::Data<JwtAuthenticator>, user: web::Path<UserId>) -> Result<String, Box<dyn Error>> {
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    Ok(jwt.sign(&Claims::new(user.into_inner(), exp))?)
}

/// Stands for your business: something has happened that a user should know.
async fn paid(hub: web::Data<Hub>, user: web::Path<UserId>) -> Result<String, Box<dyn Error>> {
    let message = Message::text(r#"{"type":"order","data":{"status":"paid"}}"#);
    let published = hub.publish(Envelope::to_users([&*user], Scope::Both, message)?).await?;
    Ok(published.position.map(|position| position.to_string()).unwrap_or_default())
}
