//! Users identified by the cookie of their session: `cargo run -p realtime-examples --bin login`.

use std::{
    collections::HashMap,
    env,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{
    App, HttpResponse,
    cookie::{Cookie, SameSite},
    web::{self, Data, Path},
};
use realtime_websocket::{
    Authenticator, BoxFuture, HttpServer, Hub, Principal, UserId, WebSocketConfig, WebSockets,
    auth::{AuthError, Handshake},
    routes,
};

/// Sessions of users who are signed in. It stands for your database.
#[derive(Default)]
struct Sessions(Mutex<HashMap<String, UserId>>);

impl Sessions {
    fn insert(&self, id: String, user: UserId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, user);
    }

    /// A real one would be a query, and would await its answer.
    async fn user_of(&self, id: &str) -> Option<UserId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

impl Authenticator for Sessions {
    fn authenticate<'a>(&'a self, handshake: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
        Box::pin(async move {
            let id = handshake.cookie("session");
            let id = id.ok_or_else(|| AuthError::Unauthorized("not signed in".into()))?;
            let user = self.user_of(id).await;
            let user = user.ok_or_else(|| AuthError::Unauthorized("the session has ended".into()))?;
            // A kick revokes the token of each session that it ends, here the session's id.
            Ok(Principal::new(user, id))
        })
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder().start()?;
    let sessions = Arc::new(Sessions::default());
    let sockets = WebSockets::new(hub.clone());

    let server = HttpServer::new(move || {
        // Browsers send cookies with requests of any page, so the default, which refuses pages of other origins, is the
        // protection against cross-site WebSocket hijacking.
        let config = WebSocketConfig::default();
        App::new()
            .app_data(Data::from(sessions.clone()))
            .app_data(Data::new(sockets.clone()))
            .configure(routes(hub.clone(), sessions.clone(), config))
            .route("/login/{user}", web::post().to(login))
            .route("/push/{user}", web::post().to(push))
    })
    .bind(env::args().nth(1).as_deref().unwrap_or("127.0.0.1:8080"))?;

    let address = server.addrs()[0];
    eprintln!("listening on {address}");
    eprintln!("sign in as user 42: curl -i -X POST http://{address}/login/42");
    eprintln!("connect: ws://{address}/resource/websocket, with the header `Cookie: session=...`");
    eprintln!("push to user 42: curl -d 'your order has been paid' http://{address}/push/42");
    server.run().await?;
    Ok(())
}

/// Stands for your login, which would ask for a password.
async fn login(sessions: Data<Sessions>, user: Path<UserId>) -> HttpResponse {
    let id = format!("{:032x}", rand::random::<u128>());
    sessions.insert(id.clone(), user.into_inner());
    let cookie = Cookie::build("session", id).path("/").http_only(true).same_site(SameSite::Lax).finish();
    HttpResponse::NoContent().cookie(cookie).finish()
}

async fn push(sockets: Data<WebSockets>, user: Path<UserId>, text: String) -> Result<String, Box<dyn Error>> {
    let published = sockets.publish_to(&[user.into_inner()], text).await?;
    Ok(format!("{published:?}\n"))
}
