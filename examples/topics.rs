//! Named topics: a user who follows an order sees its changes. `cargo run -p realtime-examples --bin topics`.
//!
//! The application decides which topics a user may follow: by a policy, where clients name topics when they connect, or by a
//! route of its own, which puts open sessions into a topic.

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App, HttpRequest, HttpResponse,
    web::{self, Data, Path},
};
use realtime_sse::{
    Authenticator, Envelope, EventName, HttpServer, Hub, Message, Principal, Scope, SseConfig, Topic, UserId,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    handshake, routes,
};
use serde::Serialize;

/// The data of the event `order`.
#[derive(Serialize)]
struct Order {
    id: u64,
    status: String,
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().topic_policy(may_follow).start()?;
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);

    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(hub.clone()))
            .app_data(Data::from(jwt.clone()))
            .configure(routes(hub.clone(), jwt.clone(), SseConfig::default()))
            .route("/login/{user}", web::post().to(login))
            .route("/orders/{id}/follow", web::post().to(follow))
            .route("/orders/{id}", web::put().to(change))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("get a token of user 42: curl -X POST http://{address}/login/42");
    eprintln!("open the stream: curl -N 'http://{address}/resource/sse?Authorization=<token>'");
    eprintln!("or with orders: curl -N 'http://{address}/resource/sse?Authorization=<token>&topics=order:7'");
    eprintln!("follow an order: curl -X POST 'http://{address}/orders/7/follow?Authorization=<token>'");
    eprintln!("change it: curl -X PUT -d shipped http://{address}/orders/7");
    server.run().await?;
    Ok(())
}

/// Yours: may this user see this order?
fn may_follow(_: &Principal, topic: &Topic) -> bool {
    topic.as_str().strip_prefix("order:").is_some_and(|order| order.parse::<u64>().is_ok())
}

/// Stands for your login. Every session of the token is in the topic `role:buyer`.
async fn login(jwt: Data<JwtAuthenticator>, user: Path<UserId>) -> Result<String, Box<dyn Error>> {
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 3600;
    let mut claims = Claims::new(user.into_inner(), exp);
    claims.topics.push(Topic::new("role:buyer")?);
    Ok(jwt.sign(&claims)?)
}

/// Puts the sessions of the caller into the topic of an order. Sessions that are opened later have to ask again.
async fn follow(
    hub: Data<Hub>,
    jwt: Data<JwtAuthenticator>,
    request: HttpRequest,
    order: Path<u64>,
) -> Result<HttpResponse, Box<dyn Error>> {
    let Ok(principal) = jwt.authenticate(&handshake(&request)).await else {
        return Ok(HttpResponse::Unauthorized().finish());
    };
    let topic = Topic::new(&format!("order:{order}"))?;
    if !may_follow(&principal, &topic) {
        return Ok(HttpResponse::Forbidden().finish());
    }
    for session in hub.sessions(&principal.user) {
        session.subscribe(topic.clone());
    }
    Ok(HttpResponse::Ok().body(format!("{} sessions follow it\n", hub.subscribers(&topic))))
}

async fn change(hub: Data<Hub>, order: Path<u64>, status: String) -> Result<HttpResponse, Box<dyn Error>> {
    let topics = [Topic::new(&format!("order:{order}"))?, Topic::new("role:seller")?];
    let message = Message::json(EventName::new("order")?, &Order { id: *order, status })?;
    // A session in both topics gets it once.
    hub.publish(Envelope::to_topics(topics, Scope::Both, message)?).await?;
    Ok(HttpResponse::NoContent().finish())
}
