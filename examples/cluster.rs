//! Nodes of a cluster over Redis: `cargo run -p realtime-examples --bin cluster -- redis://127.0.0.1/ node-1 127.0.0.1:8081`,
//! and the same for `node-2` on another port. What one publishes, the sessions of both receive.

use std::{env, error::Error, sync::Arc, time::SystemTime};

use actix_web::{
    App, HttpResponse,
    web::{self, Data, Path},
};
use realtime_redis::{RedisCluster, RedisConfig};
use realtime_sse::{
    HttpServer, Hub, SseConfig, UserId,
    auth::{Claims, JwtAlgorithm, JwtAuthenticator},
    routes,
};

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [redis, node, address] = arguments.as_slice() else {
        return Err("usage: cluster <redis url> <name of this node> <address>".into());
    };
    // Bus, presence and control, which agree on the node's name.
    let hub = Hub::builder().cluster(RedisCluster::streams(RedisConfig::single(redis), node)?).start()?;
    // The same secret on every node.
    let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, "a secret of at least 32 bytes ....")?);

    let served = hub.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::new(served.clone()))
            .app_data(Data::from(jwt.clone()))
            .configure(routes(served.clone(), jwt.clone(), SseConfig::default()))
            .route("/login/{user}", web::post().to(login))
            .route("/push/{user}", web::post().to(push))
            .route("/online", web::get().to(online))
            .route("/kick/{user}", web::post().to(kick))
            .route("/ready", web::get().to(ready))
    })
    // The hub is drained first: see below.
    .disable_signals()
    // What is open after the drain gets two seconds more.
    .shutdown_timeout(2)
    .bind(address)?;
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        tokio::signal::ctrl_c().await.ok();
        // Each client is asked to come back after a random time; another node serves it then.
        hub.drain().await;
        handle.stop(true).await;
    });

    eprintln!("listening on {address}");
    eprintln!("get a token of user 42, on any node: curl -X POST http://{address}/login/42");
    eprintln!("open the stream, on any node: curl -N 'http://{address}/resource/sse?Authorization=<token>'");
    eprintln!("push, on any node: curl -d 'your order has been paid' http://{address}/push/42");
    server.await?;
    Ok(())
}

/// Stands for your login.
async fn login(jwt: Data<JwtAuthenticator>, user: Path<UserId>) -> Result<String, Box<dyn Error>> {
    let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 3600;
    Ok(jwt.sign(&Claims::new(user.into_inner(), exp))?)
}

async fn push(hub: Data<Hub>, user: Path<UserId>, text: String) -> Result<HttpResponse, Box<dyn Error>> {
    hub.publish_to_user(user.into_inner(), text).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The users that are online on any node, and the nodes of their sessions.
async fn online(hub: Data<Hub>) -> Result<String, Box<dyn Error>> {
    let mut lines = String::new();
    for user in hub.presence().users(0, 100).await? {
        for session in hub.presence().sessions(&user.user_id).await? {
            lines += &format!("{} on {}\n", user.user_id, session.node);
        }
    }
    Ok(lines)
}

/// Ends the user's sessions on every node, and refuses their tokens.
async fn kick(hub: Data<Hub>, user: Path<UserId>) -> Result<String, Box<dyn Error>> {
    let result = hub.kick(&user).await?;
    Ok(format!("{} sessions ended\n", result.closed))
}

/// For the load balancer.
async fn ready(hub: Data<Hub>) -> HttpResponse {
    match hub.ready() {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(problem) => HttpResponse::ServiceUnavailable().body(problem),
    }
}
