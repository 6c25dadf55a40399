//! Both transports under one scope and behind a middleware: `cargo run -p realtime-examples --bin scope`.

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App, Error as ActixError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::{Next, from_fn},
    web::{self, Data, Path},
};
use realtime_sse::SseConfig;
use realtime_websocket::{
    Envelope, HttpServer, Hub, Message, Scope, UserId, WebSocketConfig,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    let token = jwt.sign(&Claims::new(42, exp))?;

    let server = HttpServer::new(move || {
        // Paths are relative to the scope.
        let websocket = WebSocketConfig::default().path("/websocket");
        let sse = SseConfig::default().path("/sse");
        App::new().app_data(Data::new(hub.clone())).service(
            web::scope("/push")
                .wrap(from_fn(log))
                .configure(realtime_websocket::routes(hub.clone(), jwt.clone(), websocket))
                .configure(realtime_sse::routes(hub.clone(), jwt.clone(), sse))
                .route("/users/{user}", web::post().to(push)),
        )
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("connect user 42: ws://{address}/push/websocket?Authorization={token}");
    eprintln!("or: curl -N 'http://{address}/push/sse?Authorization={token}'");
    eprintln!("push to user 42: curl -d 'your order has been paid' http://{address}/push/users/42");
    server.run().await?;
    Ok(())
}

/// Logs each request without its query, which holds the token.
async fn log(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, ActixError> {
    let line = format!("{} {}", request.method(), request.path());
    let response = next.call(request).await?;
    eprintln!("{line}: {}", response.status());
    Ok(response)
}

async fn push(hub: Data<Hub>, user: Path<UserId>, text: String) -> Result<String, Box<dyn Error>> {
    let published = hub.publish(Envelope::to_users([&*user], Scope::Both, Message::text(text))?).await?;
    Ok(format!("{published:?}\n"))
}
