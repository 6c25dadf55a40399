//! The page: files that are part of the binary, and what the page has to know about this server.

use actix_web::{
    HttpResponse,
    http::header::{self, CacheControl, CacheDirective},
    web::{self, Data, Path, ServiceConfig},
};
use serde::Serialize;

use crate::{
    api_error::ApiError,
    caller::Caller,
    config::{AuthMode, User},
    state::State,
};

/// Same-origin resources only, no inline code, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Asset {
    name: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        &[$(Asset { name: $name, text: include_str!(concat!("../assets/", $name)) }),*]
    };
}

const ASSETS: &[Asset] = assets![
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
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| {
        ApiError::new(actix_web::http::StatusCode::NOT_FOUND, format_args!("no asset {name:?}"))
    })?;
    let content_type = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Addresses of this page can carry a token.
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(CacheControl(vec![CacheDirective::NoCache]))
        .body(asset.text))
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
