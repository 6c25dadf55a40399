//! The page: files that are part of the binary, and what the page has to know about this server.

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, ServiceConfig},
};
use serde::Serialize;

use crate::{
    api_error::ApiError,
    asset::{self, Asset, assets},
    caller::Caller,
    config::{AuthMode, User},
    state::State,
};

/// Same-origin resources only, no inline code, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ASSETS: &[Asset] = assets![
    "assets":
    "answer.js",
    "api.js",
    "app.js",
    "approval.js",
    "badge.js",
    "channel.js",
    "chart.js",
    "chat.js",
    "dashboard.js",
    "ends.js",
    "favicon.svg",
    "feed.js",
    "frame.css",
    "i18n.js",
    "index.html",
    "jump.js",
    "login.css",
    "login.js",
    "message.js",
    "messages.css",
    "notice.js",
    "online.js",
    "order.js",
    "outage.js",
    "realtime.js",
    "scenes.css",
    "session.js",
    "style.css",
    "toast.js",
    "ui.js",
    "workspace.js",
    "zh.js",
];

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/").get(index).route(web::head().to(index)))
        .service(web::resource("/assets/{name}").get(asset).route(web::head().to(asset)))
        .service(web::resource("/realtime.js").get(client).route(web::head().to(client)))
        .service(web::resource("/demo/config").get(config));
}

async fn index() -> Result<HttpResponse, ApiError> {
    serve("index.html")
}

/// The client, at an address for pages of others, too.
async fn client() -> Result<HttpResponse, ApiError> {
    serve("realtime.js")
}

async fn asset(name: Path<String>) -> Result<HttpResponse, ApiError> {
    serve(&name)
}

fn serve(name: &str) -> Result<HttpResponse, ApiError> {
    asset::serve(ASSETS, name, CONTENT_SECURITY_POLICY)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageConfig<'a> {
    node: &'a str,
    version: &'static str,
    /// Logins are made here.
    login: bool,
    password_hint: Option<&'a str>,
    websocket: Module<'a>,
    sse: Module<'a>,
    users: Vec<PageUser<'a>>,
}

#[derive(Serialize)]
struct Module<'a> {
    enabled: bool,
    path: &'a str,
}

#[derive(Serialize)]
struct PageUser<'a> {
    id: &'a realtime_core::UserId,
    username: &'a str,
    name: &'a str,
    role: &'a str,
}

/// Names users to those who have logged in, and to anybody where the configuration says so.
async fn config(state: Data<State>, caller: Result<Caller, ApiError>) -> HttpResponse {
    let (config, live) = (&state.config, state.live());
    let public = config.auth.show_users;
    let hint = config.auth.password_hint.as_deref();
    // It is the hint of those who log in here.
    let hint = hint.filter(|_| public && config.auth.mode == AuthMode::Jwt && !live.users.is_empty());
    let users = live.users.iter().filter(|_| public || caller.is_ok());
    let users = users.map(|User { id, username, name, role, .. }| PageUser { id, username, name, role });
    HttpResponse::Ok().json(PageConfig {
        node: state.hub.node(),
        version: env!("CARGO_PKG_VERSION"),
        login: config.auth.mode == AuthMode::Jwt && !live.users.is_empty(),
        password_hint: hint,
        websocket: Module { enabled: config.websocket.enabled, path: &config.websocket.path },
        sse: Module { enabled: config.sse.enabled, path: &config.sse.path },
        users: users.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/assets")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, ASSETS.iter().map(|asset| asset.name).collect::<Vec<_>>());
    }
}
