//! List of online users for the page, which reloads it on messages of the topic `presence`; and kicks of these users.

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest,
    web::{self, Data, Json, ServiceConfig},
};
use realtime_core::{UserId, control::CommandResult, presence::OnlineCount, ruoyi::Reply};
use serde::{Deserialize, Serialize};

use crate::{api_error::ApiError, audit, body::Body, caller::Caller, state::State};

/// The page shows no more users than this.
const SHOWN: usize = 50;

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/demo/online").get(online))
        .service(web::resource("/demo/kick").post(kick));
}

#[derive(Serialize)]
struct OnlineList {
    total: usize,
    sessions: usize,
    items: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    user_id: UserId,
    name: String,
    sessions: usize,
    transports: BTreeMap<String, usize>,
}

async fn online(_: Caller, state: Data<State>) -> Result<Json<Reply<OnlineList>>, ApiError> {
    let presence = state.hub.presence();
    let OnlineCount { users: total, sessions } = presence.count().await?;
    let mut items = Vec::new();
    for user in presence.users(0, SHOWN).await? {
        let mut transports = BTreeMap::new();
        for session in presence.sessions(&user.user_id).await? {
            *transports.entry(session.transport).or_default() += 1;
        }
        let Caller { id: user_id, name } = Caller::of(&state, user.user_id);
        items.push(Item { user_id, name, sessions: user.sessions, transports });
    }
    Ok(Json(Reply::data(OnlineList { total, sessions, items })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KickRequest {
    user_id: UserId,
}

#[derive(Serialize)]
struct Kicked {
    closed: usize,
    /// Nodes that have not confirmed it yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unconfirmed: Vec<String>,
}

/// Ends a user's sessions on every node.
async fn kick(
    caller: Caller,
    request: HttpRequest,
    state: Data<State>,
    body: Body<KickRequest>,
) -> Result<Json<Reply<Kicked>>, ApiError> {
    caller.check_is_of_demo(&state, "kick")?;
    audit::note(&request, "by", &caller.id);
    audit::note(&request, "user", &body.0.user_id);
    let CommandResult { closed, unconfirmed, .. } = state.hub.kick(&body.0.user_id).await?;
    audit::note(&request, "closed", closed);
    audit::note(&request, "unconfirmed", unconfirmed.len());
    Ok(Json(Reply::data(Kicked { closed, unconfirmed })))
}
