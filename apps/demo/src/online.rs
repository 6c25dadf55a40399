//! Who is online: the list for the page, and a push to the topic `online` when it changes.

use std::{collections::BTreeMap, time::Duration};

use actix_web::web::{self, Data, Json, ServiceConfig};
use realtime_core::{
    BusError, Envelope, Hub, OnlineCount, PresenceError, PublishError, Reply, Scope, Topic, UserId,
};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::{caller::Caller, event::Event, fault::Fault, state::State};

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

async fn online(_: Caller, state: Data<State>) -> Result<Json<Reply<OnlineList>>, Fault> {
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

#[derive(Serialize)]
struct OnlineUsers {
    total: usize,
    users: Vec<User>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct User {
    user_id: UserId,
    name: String,
}

/// Tells the topic `online`, at most once a second, that users came or went. Runs until it is dropped.
pub(crate) async fn watch(state: Data<State>) {
    let mut timer = interval(Duration::from_secs(1));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let topic = Topic::new("online").expect("a plain word is a topic");
    let mut last = (0, Vec::new());
    loop {
        timer.tick().await;
        match look(&state.hub).await {
            Ok(seen) if seen != last => {
                let (total, users) = &seen;
                let users = users.iter().cloned().map(|user| Caller::of(&state, user));
                let users = users.map(|Caller { id: user_id, name }| User { user_id, name }).collect();
                let event = Event::new("online", OnlineUsers { total: *total, users });
                let envelope = Envelope::to_topics([topic.clone()], Scope::Both, event.message());
                let published = state.hub.publish(envelope.expect("one topic is not none")).await;
                if let Err(PublishError::Bus { source: BusError::Unsupported(_), .. }) = published {
                    tracing::info!("this bus carries no topics: pages ask for themselves who is online");
                    return;
                }
                if let Err(error) = published {
                    tracing::warn!(%error, "could not say who is online");
                    continue;
                }
                last = seen;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "could not see who is online"),
        }
    }
}

async fn look(hub: &Hub) -> Result<(usize, Vec<UserId>), PresenceError> {
    let total = hub.presence().count().await?.users;
    let users = hub.presence().users(0, SHOWN).await?;
    Ok((total, users.into_iter().map(|user| user.user_id).collect()))
}
