//! Rooms that clients join and write to: `cargo run -p realtime-examples --bin chat`.
//!
//! A client sends `join <room>`, `leave <room>`, or `say <room> <text>`. A room is a topic, so its messages reach its
//! sessions on every node, in one order.

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App,
    web::{self, Data, Path},
};
use realtime_websocket::{
    ByteString, Envelope, HttpServer, Hub, Message, Scope, SessionHandle, Topic, UserId, WebSocketConfig,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);

    let server = HttpServer::new(move || {
        let chat = {
            let hub = hub.clone();
            move |session: SessionHandle, text: ByteString| {
                let hub = hub.clone();
                async move {
                    on_text(&hub, &session, &text)
                        .await
                        .unwrap_or_else(|error| Some(error.to_string().into()))
                }
            }
        };
        let config = WebSocketConfig::default().inbound(chat);
        App::new()
            .app_data(Data::from(jwt.clone()))
            .configure(routes(hub.clone(), jwt.clone(), config))
            .route("/login/{user}", web::post().to(login))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("get a token for alice: curl -X POST http://{address}/login/alice");
    eprintln!("connect: ws://{address}/resource/websocket?Authorization=<token>");
    server.run().await?;
    Ok(())
}

/// Handles one text. What it returns is sent to this client alone.
async fn on_text(
    hub: &Hub,
    session: &SessionHandle,
    text: &str,
) -> Result<Option<ByteString>, Box<dyn Error + Send + Sync>> {
    let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (room, words) = rest.split_once(' ').unwrap_or((rest, ""));
    let topic = Topic::new(&format!("room:{room}"))?;
    match command {
        "join" => session.subscribe(topic),
        "leave" => session.unsubscribe(&topic),
        "say" if session.topics().contains(&topic) => {
            let message = Message::text(format!("{room} {}: {words}", session.user()));
            hub.publish(Envelope::to_topics([topic], Scope::Both, message)?).await?;
            return Ok(None);
        }
        "say" => return Ok(Some(format!("join {room} first").into())),
        _ => return Ok(Some("join <room>, leave <room> or say <room> <text>".into())),
    }
    Ok(Some(format!("{command} {room}: ok").into()))
}

/// Stands for your login, which would ask for a password.
async fn login(jwt: Data<JwtAuthenticator>, user: Path<UserId>) -> Result<String, Box<dyn Error>> {
    let exp = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 3600;
    Ok(jwt.sign(&Claims::new(user.into_inner(), exp))?)
}
