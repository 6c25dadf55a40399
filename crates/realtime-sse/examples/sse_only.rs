//! Pushes over Server-Sent Events and nothing else: `cargo run -p realtime-sse --example sse_only`.

use std::{error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App,
    web::{self, Data, Path},
};
use realtime_sse::{
    HttpServer, Hub, SseConfig, SseEmitters,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;
    eprintln!("connect user 42: curl -N 'http://127.0.0.1:8082/resource/sse?Authorization={token}'");
    eprintln!("push to user 42: curl -d 'your order has been paid' http://127.0.0.1:8082/push/42");

    let sse = SseEmitters::new(hub.clone());
    HttpServer::new(move || {
        App::new()
            .app_data(Data::new(sse.clone()))
            .configure(routes(hub.clone(), jwt.clone(), SseConfig::default()))
            .route("/push/{user}", web::post().to(push))
    })
    .bind(("127.0.0.1", 8082))?
    .run()
    .await?;
    Ok(())
}

async fn push(sse: Data<SseEmitters>, user: Path<i64>, text: String) -> Result<String, Box<dyn Error>> {
    let published = sse.publish_to(&[(*user).into()], text).await?;
    Ok(format!("{published:?}\n"))
}
