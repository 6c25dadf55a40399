//! List of online users for the page, which reloads it on messages of the topic `presence`.

use std::collections::BTreeMap;

use actix_web::web::{self, Data, Json, ServiceConfig};
use realtime_core::{UserId, presence::OnlineCount, ruoyi::Reply};
use serde::Serialize;

use crate::{api_error::ApiError, caller::Caller, state::State};

/// The page shows no more users than this.
const SHOWN: usize = 50;

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/demo/online").get(online));
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
