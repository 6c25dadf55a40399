//! `/api`: publishing and presence for backends, with the key.

#![allow(unused_qualifications, reason = "utoipa's macros write paths in full")]

use std::{num::NonZeroU16, time::Duration};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    web::{self, Data, Json, Path, ServiceConfig},
};
use realtime_core::{
    CollapseKey, Envelope, EnvelopeId, EventName, Message, Scope, SessionId, SlowPolicy, Topic, UserId,
    auth::only,
    control::{CommandResult, Confirmation, NodeDelivery},
    presence::{OnlineSession, OnlineUser},
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use utoipa::{IntoParams, ToSchema};

use crate::{
    api_error::ApiError,
    audit,
    body::{Body, OptionalBody},
    client::Client,
    params::Params,
    publish_span::{PublishSpan, Traced},
    schema::{self, KickErrors, OnlineErrors, PublishErrors},
    state::State,
};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/api/publish").post(publish))
        .service(web::resource("/api/online").get(online))
        .service(web::resource("/api/online/{userId}").get(online_user).delete(kick));
}

/// The proof that a request has the key; extracting it fails with 401.
pub(crate) struct ApiKey;

impl FromRequest for ApiKey {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<Data<State>>().expect("the server sets the state of every app");
        let given = request.headers().get_all("X-API-Key");
        let given = given.map(|key| str::from_utf8(key.as_bytes()).unwrap_or("\u{fffd}"));
        std::future::ready(match only("header X-API-Key", given) {
            Ok(Some(given)) if given.as_bytes().ct_eq(state.live().api_key.as_bytes()).into() => Ok(Self),
            Ok(Some(_)) => {
                Err(state.throttles.wrong_key(&Client::of(request, &state.config.server.trusted_proxies)))
            }
            Ok(None) => Err(ApiError::unauthorized("header X-API-Key is missing")),
            Err(error) => Err(ApiError::unauthorized(error)),
        })
    }
}

// Writers of JSON in Java send `null` for what is absent, so every optional field is an `Option`.
/// A message and its target: exactly one of `userIds`, `topics` and `"broadcast": true`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Publish {
    /// The only transport that carries it; both, if it is absent.
    transport: Option<TransportName>,
    /// The users it is for.
    #[schema(value_type = Option<Vec<schema::UserId>>, min_items = 1)]
    user_ids: Option<Vec<UserId>>,
    /// Whether it is for all users.
    broadcast: Option<bool>,
    /// The named topics it is for.
    #[schema(value_type = Option<Vec<String>>, min_items = 1)]
    topics: Option<Vec<Topic>>,
    /// The text; by convention JSON.
    message: String,
    /// The event's name, 1 to 64 bytes without white space; `message`, if it is absent.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    event: Option<EventName>,
    /// Publishes with the same key within five minutes are one.
    #[schema(min_length = 1, max_length = 64)]
    idempotency_key: Option<String>,
    /// The id of a session that is left out.
    #[schema(value_type = Option<String>)]
    except_session: Option<SessionId>,
    /// Milliseconds after which the message is not sent any more.
    #[schema(minimum = 1)]
    ttl: Option<u64>,
    /// A newer message with the same key and recipients replaces this one.
    #[schema(min_length = 1, max_length = 64)]
    collapse_key: Option<String>,
    /// Of its class a slow client gets the newest.
    drop_oldest: Option<DropOldest>,
    /// Keeps it for newcomers of its topic.
    retain: Option<bool>,
    /// Milliseconds for which every node is waited for.
    #[schema(minimum = 1, maximum = 30000)]
    confirm: Option<u64>,
}

/// Messages of which a client that is slow gets the newest.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DropOldest {
    /// Name of the class.
    #[schema(min_length = 1, max_length = 64)]
    class: String,
    /// Number of the newest that are kept.
    #[schema(minimum = 1, maximum = 1024)]
    keep: u64,
}

/// Maximum of `dropOldest.keep`.
const MAX_KEEP: u16 = 1024;

impl DropOldest {
    fn policy(self) -> Result<SlowPolicy, String> {
        let class = CollapseKey::new(&self.class).map_err(|error| format!("class: {error}"))?;
        let keep = u16::try_from(self.keep).ok().and_then(NonZeroU16::new);
        let keep = keep.filter(|keep| keep.get() <= MAX_KEEP);
        let keep = keep.ok_or_else(|| format!("keep: must be from 1 to {MAX_KEEP}"))?;
        Ok(SlowPolicy::DropOldest { class, keep })
    }
}

/// A transport.
#[derive(Deserialize, Clone, Copy, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Transport)]
enum TransportName {
    WebSocket,
    Sse,
}

/// Where a message is in the log and, with `confirm`, how far it has got.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublishAnswer {
    /// `null` on a bus without positions.
    #[schema(required = true)]
    position: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<schema::NodeDelivery>, required = false)]
    nodes: Option<Vec<NodeDelivery>>,
    /// The live nodes that have not answered in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<String>, required = false)]
    missing: Option<Vec<String>>,
}

/// Maximum of `confirm`.
const MAX_CONFIRM: u64 = 30_000;

/// Publish a message.
///
/// Answered when the bus has taken the message, or with `confirm` when all sessions' sockets have.
#[utoipa::path(
    post,
    path = "/api/publish",
    operation_id = "publish",
    tag = "publish",
    request_body = Publish,
    params(
        ("traceparent" = Option<String>, Header, description = "Context of the trace that the message belongs to (W3C Trace Context). One that is malformed is none."),
        ("tracestate" = Option<String>, Header, description = "The rest of that context, up to 512 bytes."),
    ),
    responses((status = 200, description = "The bus has taken the message.", body = PublishAnswer), PublishErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn publish(
    _: ApiKey,
    state: Data<State>,
    Traced(context): Traced,
    body: Body<Publish>,
) -> Result<Json<PublishAnswer>, ApiError> {
    let Publish {
        transport,
        user_ids,
        broadcast,
        topics,
        message,
        event,
        idempotency_key,
        except_session,
        ttl,
        collapse_key,
        drop_oldest,
        retain,
        confirm,
    } = body.0;
    let scope = match transport {
        None => Scope::Both,
        Some(name) => {
            let facade = match name {
                TransportName::WebSocket => &state.websocket,
                TransportName::Sse => &state.sse,
            };
            facade.hub()?;
            Scope::Only(facade.transport())
        }
    };
    let message = Message::new(event.unwrap_or_default(), message);
    let envelope = match (user_ids, broadcast.unwrap_or_default(), topics) {
        (Some(users), false, None) => Envelope::to_users(&users, scope, message)
            .map_err(|error| ApiError::bad_request(format_args!("userIds: {error}")))?,
        (None, true, None) => Envelope::broadcast(scope, message),
        (None, false, Some(topics)) => Envelope::to_topics(topics, scope, message)
            .map_err(|error| ApiError::bad_request(format_args!("topics: {error}")))?,
        (None, false, None) => {
            return Err(ApiError::bad_request(
                "a target is missing: one of userIds, topics, \"broadcast\": true",
            ));
        }
        _ => {
            return Err(ApiError::bad_request(
                "only one of userIds, topics and \"broadcast\": true can be the target",
            ));
        }
    };
    let mut envelope = except_session.into_iter().fold(envelope, Envelope::except);
    let id = idempotency_key.map(|key| EnvelopeId::new(&key)).transpose();
    let id = id.map_err(|error| ApiError::bad_request(format_args!("idempotencyKey: {error}")))?;
    if let Some(id) = id {
        envelope = envelope.with_id(id);
    }
    if let Some(ttl) = ttl {
        if ttl == 0 {
            return Err(ApiError::bad_request("ttl: must be at least 1"));
        }
        envelope = envelope.with_ttl(Duration::from_millis(ttl));
    }
    let key = collapse_key.map(|key| CollapseKey::new(&key)).transpose();
    if let Some(key) = key.map_err(|error| ApiError::bad_request(format_args!("collapseKey: {error}")))? {
        envelope = envelope.collapse(key);
    }
    if let Some(drop_oldest) = drop_oldest {
        if envelope.collapse_key().is_some() {
            return Err(ApiError::bad_request("only one of collapseKey and dropOldest can be given"));
        }
        let policy = drop_oldest.policy();
        let policy = policy.map_err(|error| ApiError::bad_request(format_args!("dropOldest.{error}")))?;
        envelope = envelope.when_slow(policy);
    }
    if retain.unwrap_or_default() {
        envelope = envelope.retain();
    }
    if confirm.is_some_and(|millis| !(1..=MAX_CONFIRM).contains(&millis)) {
        return Err(ApiError::bad_request(format_args!("confirm: must be from 1 to {MAX_CONFIRM}")));
    }
    let (span, envelope) = PublishSpan::begin(context, envelope);
    let Some(millis) = confirm else {
        let published = state.hub.publish(envelope).await;
        span.end(published.as_ref().map(|published| published.position));
        let position = published?.position.map(|position| position.to_string());
        return Ok(Json(PublishAnswer { position, nodes: None, missing: None }));
    };
    let confirmed = state.hub.publish_and_confirm(envelope, Duration::from_millis(millis)).await;
    span.end(confirmed.as_ref().map(|confirmed| Some(confirmed.position)));
    let Confirmation { position, nodes, missing, .. } = confirmed?;
    let position = Some(position.to_string());
    Ok(Json(PublishAnswer { position, nodes: Some(nodes), missing: Some(missing) }))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Number of the page, from 1.
    #[serde(default = "first_page")]
    #[param(minimum = 1)]
    page: usize,
    /// Users of a page.
    #[serde(default = "page_size")]
    #[param(minimum = 1, maximum = 1000)]
    size: usize,
}

fn first_page() -> usize {
    1
}

fn page_size() -> usize {
    50
}

const MAX_PAGE_SIZE: usize = 1000;

/// A page of the users who are online.
#[derive(Serialize, ToSchema)]
pub(crate) struct OnlineAnswer {
    /// Users who are online, on all pages.
    total: usize,
    /// Sessions of all of them.
    sessions: usize,
    #[schema(value_type = Vec<schema::OnlineUser>)]
    items: Vec<OnlineUser>,
}

/// List who is online.
///
/// Over both transports and all nodes, in ascending order of the users.
#[utoipa::path(
    get,
    path = "/api/online",
    operation_id = "listOnline",
    tag = "presence",
    params(PageQuery),
    responses((status = 200, description = "A page of users.", body = OnlineAnswer), OnlineErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn online(
    _: ApiKey,
    state: Data<State>,
    query: Params<PageQuery>,
) -> Result<Json<OnlineAnswer>, ApiError> {
    let PageQuery { page, size } = query.values;
    if page == 0 {
        return Err(ApiError::bad_request("page: counts from 1"));
    }
    if !(1..=MAX_PAGE_SIZE).contains(&size) {
        return Err(ApiError::bad_request(format_args!("size: must be from 1 to {MAX_PAGE_SIZE}")));
    }
    let presence = state.hub.presence();
    let count = presence.count().await?;
    let items = presence.users((page - 1).saturating_mul(size), size).await?;
    Ok(Json(OnlineAnswer { total: count.users, sessions: count.sessions, items }))
}

/// The sessions of a user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OnlineUserAnswer {
    #[schema(value_type = schema::UserId)]
    user_id: UserId,
    online: bool,
    #[schema(value_type = Vec<schema::OnlineSession>)]
    sessions: Vec<OnlineSession>,
}

/// List the sessions of a user.
#[utoipa::path(
    get,
    path = "/api/online/{userId}",
    operation_id = "getOnlineUser",
    tag = "presence",
    params(("userId" = String, Path, description = "The user, a number or text.")),
    responses((status = 200, description = "Its sessions; none if it is offline.", body = OnlineUserAnswer), OnlineErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn online_user(
    _: ApiKey,
    state: Data<State>,
    user: Path<String>,
) -> Result<Json<OnlineUserAnswer>, ApiError> {
    let user_id = parse_user(&user)?;
    let sessions = state.hub.presence().sessions(&user_id).await?;
    Ok(Json(OnlineUserAnswer { online: !sessions.is_empty(), user_id, sessions }))
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct KickQuery {
    /// The only session that is ended, and every other one of its token. Must not be empty.
    session_id: Option<String>,
}

/// The last message to the user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KickMessage {
    /// The text.
    message: String,
    /// The event's name; `message`, if it is absent.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    event: Option<EventName>,
}

/// How far a kick has got.
#[derive(Serialize, ToSchema)]
pub(crate) struct KickAnswer {
    /// Sessions that were ended.
    closed: usize,
    /// The live nodes that have not confirmed it in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unconfirmed: Vec<String>,
}

/// Kick a user.
///
/// Ends the sessions on every node and refuses their tokens until these expire. A new login works. A body is a last message
/// to all sessions of the user.
#[utoipa::path(
    delete,
    path = "/api/online/{userId}",
    operation_id = "kick",
    tag = "presence",
    params(("userId" = String, Path, description = "The user, a number or text."), KickQuery),
    request_body = Option<KickMessage>,
    responses((status = 200, description = "The sessions have ended.", body = KickAnswer), KickErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn kick(
    _: ApiKey,
    request: HttpRequest,
    state: Data<State>,
    user: Path<String>,
    query: Params<KickQuery>,
    body: OptionalBody<KickMessage>,
) -> Result<Json<KickAnswer>, ApiError> {
    let user = parse_user(&user)?;
    if query.has_empty {
        // A caller that has lost the id must not end all sessions.
        return Err(ApiError::bad_request(
            "sessionId: is empty; without it all sessions of the user are ended",
        ));
    }
    let CommandResult { closed, unconfirmed, .. } = match (&query.values.session_id, body.0) {
        (None, None) => state.hub.kick(&user).await?,
        (None, Some(KickMessage { message, event })) => {
            state.hub.kick_with(&user, Message::new(event.unwrap_or_default(), message)).await?
        }
        (Some(session), None) => {
            let session = session.parse::<SessionId>();
            let session =
                session.map_err(|error| ApiError::bad_request(format_args!("sessionId: {error}")))?;
            state.hub.kick_session(&user, session).await?
        }
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "message: goes to all sessions of a user, not to the one of sessionId",
            ));
        }
    };
    audit::note(&request, "closed", closed);
    audit::note(&request, "unconfirmed", unconfirmed.len());
    Ok(Json(KickAnswer { closed, unconfirmed }))
}

pub(crate) fn parse_user(text: &str) -> Result<UserId, ApiError> {
    // What stands in a path in place of bytes that are no text.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(ApiError::bad_request("userId: not UTF-8"));
    }
    text.parse().map_err(|error| ApiError::bad_request(format_args!("userId: {error}")))
}
