//! The scenes of the page: each button publishes what an application would push.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix_web::web::{self, Data, Json, ServiceConfig};
use realtime_core::{Envelope, Scope, Topic, UserId, bus::Published, ruoyi::Reply};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::{ai, api_error::ApiError, body::Body, caller::Caller, event::Event, state::State, story};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/demo/order").post(order))
        .service(web::resource("/demo/notice").post(notice))
        .service(web::resource("/demo/approval").post(approval))
        .service(web::resource("/demo/dashboard").post(dashboard))
        .service(web::resource("/demo/ai").get(story::tell).post(ai::start))
        .service(web::resource("/demo/ai/{id}").get(ai::read))
        .service(web::resource("/demo/ai/{id}/stop").post(ai::stop));
}

/// What only users of `auth.users` may do.
const PUBLISH: &str = "publish here";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(skip_serializing_if = "Option::is_none")]
    order_no: Option<String>,
    position: Option<String>,
}

impl Sent {
    fn at(published: Published) -> Json<Reply<Self>> {
        Self::order(None, published)
    }

    fn order(order_no: Option<String>, published: Published) -> Json<Reply<Self>> {
        let position = published.position.map(|position| position.to_string());
        Json(Reply::data(Self { order_no, position }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderRequest {
    status: OrderStatus,
    order_no: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderStatus {
    Paid,
    Shipped,
    Delivered,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderData<'a> {
    order_no: &'a str,
    status: OrderStatus,
    buyer: &'a UserId,
    seller: &'a UserId,
}

/// The buyer follows the order on an event stream, the seller works with it over a WebSocket.
async fn order(
    caller: Caller,
    state: Data<State>,
    body: Body<OrderRequest>,
) -> Result<Json<Reply<Sent>>, ApiError> {
    static NUMBER: AtomicU32 = AtomicU32::new(1042);
    caller.check_is_of_demo(&state, PUBLISH)?;
    let OrderRequest { status, order_no } = body.0;
    let order_no = order_no.unwrap_or_else(|| format!("SO-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let missing = |role| ApiError::bad_request(format_args!("auth.users has nobody of the role `{role}`"));
    let buyer = &state.user_with_role("buyer").ok_or_else(|| missing("buyer"))?.id;
    let seller = &state.user_with_role("seller").ok_or_else(|| missing("seller"))?.id;
    // Both or none: the page would show half an order as a complete one.
    state.sse.hub()?;
    state.websocket.hub()?;
    let text = Event::new("order", OrderData { order_no: &order_no, status, buyer, seller }).json();
    state.sse.publish_to(std::slice::from_ref(buyer), text.clone()).await?;
    let published = state.websocket.publish_to(std::slice::from_ref(seller), text).await?;
    Ok(Sent::order(Some(order_no), published))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoticeRequest {
    title: String,
    content: String,
}

#[derive(Serialize)]
struct NoticeData {
    title: String,
    content: String,
    from: Caller,
}

async fn notice(
    from: Caller,
    state: Data<State>,
    body: Body<NoticeRequest>,
) -> Result<Json<Reply<Sent>>, ApiError> {
    from.check_is_of_demo(&state, PUBLISH)?;
    let NoticeRequest { title, content } = body.0;
    if title.trim().is_empty() {
        return Err(ApiError::bad_request("title: must not be empty"));
    }
    let event = Event::new("notice", NoticeData { title, content, from });
    let published = state.hub.publish(Envelope::broadcast(Scope::Both, event.message())).await?;
    Ok(Sent::at(published))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalRequest {
    applicant: UserId,
    title: String,
    result: ApprovalResult,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ApprovalResult {
    Approved,
    Rejected,
}

#[derive(Serialize)]
struct ApprovalData {
    title: String,
    result: ApprovalResult,
    by: Caller,
}

async fn approval(
    by: Caller,
    state: Data<State>,
    body: Body<ApprovalRequest>,
) -> Result<Json<Reply<Sent>>, ApiError> {
    by.check_is_of_demo(&state, PUBLISH)?;
    let ApprovalRequest { applicant, title, result } = body.0;
    let event = Event::new("approval", ApprovalData { title, result, by });
    Ok(Sent::at(state.sse.publish_to(&[applicant], event.json()).await?))
}

/// Number of figures that one run publishes, one a second.
const FIGURES: u32 = 60;

#[derive(Serialize)]
struct Figures {
    orders: u32,
    revenue: f64,
    online: usize,
    cpu: f64,
}

/// Starts a minute of figures, and ends the current one.
async fn dashboard(caller: Caller, state: Data<State>) -> Result<Json<Reply>, ApiError> {
    caller.check_is_of_demo(&state, PUBLISH)?;
    state.sse.hub()?;
    state.dashboard.replace(tokio::spawn(push_figures(state.clone().into_inner().into())));
    Ok(Json(Reply::ok()))
}

async fn push_figures(state: Data<State>) {
    let mut timer = interval(Duration::from_secs(1));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let topic = Topic::new("dashboard").expect("a plain word is a topic");
    let (mut orders, mut cpu) = (120_u32, 40.0_f64);
    for _ in 0..FIGURES {
        timer.tick().await;
        orders += rand::random_range(0..4);
        cpu = (cpu + rand::random_range(-8.0..8.0)).clamp(5.0, 95.0);
        let online = state.hub.presence().count().await.map_or(0, |count| count.users);
        let revenue = (f64::from(orders) * 37_190.0).round() / 100.0;
        let event =
            Event::new("dashboard", Figures { orders, revenue, online, cpu: (cpu * 10.0).round() / 10.0 });
        let scope = Scope::Only(state.sse.transport());
        let envelope =
            Envelope::to_topics([topic.clone()], scope, event.message()).expect("one topic is not none");
        if let Err(error) = state.hub.publish(envelope).await {
            tracing::warn!(%error, "the dashboard's figures were not published");
            return;
        }
    }
}
