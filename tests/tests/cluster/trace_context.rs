//! The trace that a message is published in reaches the writes on every node.

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    SpanId, TraceId, Value, global,
    trace::{Status, TracerProvider},
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use realtime_core::{
    Envelope, Hub, Message, Principal, Scope, TraceContext, Transport,
    testkit::{TestSession, ready},
};
use realtime_redis::{RedisCluster, RedisConfig};
use realtime_tests::{API_KEY, Collector, Demo, Redis, ServerKind, within};
use tokio::time::sleep;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

const PARENT: &str = "b7ad6b7169203331";

/// A `traceparent` of a new trace, and the trace's id.
fn new_trace(flags: &str) -> (String, String) {
    let trace = format!("{:032x}", rand::random::<u128>() | 1);
    (format!("00-{trace}-{PARENT}-{flags}"), trace)
}

/// A node whose spans go to a collector.
async fn node(redis: &Redis, collector: &Collector, name: &str, more: &[(&str, &str)]) -> Demo {
    let (redis, collector) = (redis.url(), collector.url());
    let mut variables = vec![
        ("REALTIME__REDIS__URL", redis.as_str()),
        ("REALTIME__SERVER__NODE", name),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
        ("OTEL_SERVICE_NAME", name),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    variables.extend(more);
    let demo = Demo::start_with(&variables).await;
    demo.until_ready().await;
    demo
}

/// Publishes a text to user 1 with headers. Returns the position.
async fn publish(demo: &Demo, text: &str, headers: &[(&str, &str)]) -> String {
    let body = serde_json::json!({ "userIds": [1], "message": text }).to_string();
    let mut request = reqwest::Client::new().post(demo.api_url("/api/publish")).header("X-API-Key", API_KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), 200, "{headers:?}");
    let answer: serde_json::Value = response.json().await.unwrap();
    answer["position"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_on_another_node_are_spans_below_the_publish() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let a = node(&redis, &collector, "a", &[]).await;
    let b = node(&redis, &collector, "b", &[]).await;
    let (mut socket, mut stream) = (b.socket(1).await, b.stream(1).await);
    let (traceparent, trace) = new_trace("01");
    let headers = [("traceparent", traceparent.as_str()), ("tracestate", "vendor=value")];
    let began = SystemTime::now();
    let position = publish(&a, "traced", &headers).await;
    assert_eq!(socket.text().await, "traced");
    assert_eq!(stream.data().await, "traced");

    let spans = collector.trace(&trace, 3).await;
    let [publishes, writes] = ["realtime.publish", "realtime.write"]
        .map(|name| spans.iter().filter(|span| span.span.name == name).collect::<Vec<_>>());
    let [publish] = publishes.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((publish.service.as_str(), publish.parent().as_str()), ("a", PARENT));
    assert_eq!(publish.span.kind(), SpanKind::Producer);
    assert_eq!(publish.span.trace_state, "vendor=value");
    assert_eq!(publish.attribute("messaging.message.id"), position);
    let mut transports: Vec<_> = writes.iter().map(|write| write.attribute("realtime.transport")).collect();
    transports.sort_unstable();
    assert_eq!(transports, ["sse", "websocket"], "{spans:#?}");
    let lane = if ServerKind::of_run() == ServerKind::Actix { "body" } else { "taken_over" };
    for write in &writes {
        assert_eq!((write.service.as_str(), write.parent()), ("b", publish.id()));
        assert_eq!(write.span.kind(), SpanKind::Consumer);
        assert_eq!(write.span.trace_state, "vendor=value");
        assert_eq!(write.attribute("messaging.message.id"), position);
        assert_eq!(write.attribute("realtime.node"), "b");
        assert_eq!(write.attribute("realtime.lane"), lane);
        assert_eq!(write.attribute("realtime.replayed"), "false");
        assert_eq!(write.attribute("realtime.session.id").len(), 32);
        assert!(write.attribute("realtime.bytes").parse::<usize>().unwrap() >= "traced".len());
        let nanos = |time: SystemTime| {
            u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
        };
        assert!(nanos(began) <= write.span.start_time_unix_nano);
        assert!(write.span.start_time_unix_nano <= write.span.end_time_unix_nano);
        assert!(write.span.end_time_unix_nano <= nanos(SystemTime::now()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_not_recorded_has_no_spans_and_costs_nobody_the_message() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    // A request without a trace begins none.
    let off = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let a = node(&redis, &collector, "a", &off).await;
    let b = node(&redis, &collector, "b", &off).await;
    let mut socket = b.socket(1).await;
    let (unsampled, _) = new_trace("00");
    let (valid, sampled) = new_trace("01");
    let malformed = valid.to_uppercase();
    for (text, headers) in [
        ("plain", &[][..]),
        ("unsampled", &[("traceparent", unsampled.as_str())]),
        ("malformed", &[("traceparent", malformed.as_str()), ("tracestate", "a=1")]),
        ("twice", &[("traceparent", valid.as_str()), ("traceparent", valid.as_str())]),
        ("sampled", &[("traceparent", valid.as_str())]),
    ] {
        publish(&a, text, headers).await;
        assert_eq!(socket.text().await, text);
    }
    assert_eq!(collector.trace(&sampled, 2).await.len(), 2);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");

    let entries = redis.cli(&["xrange", "{rt}:log", "-", "+"]);
    let entry = |text: &str| {
        let wanted = format!("\"data\":\"{text}\"");
        entries.lines().find(|line| line.contains(&wanted)).unwrap_or_else(|| panic!("{entries}")).to_owned()
    };
    for text in ["plain", "malformed", "twice"] {
        assert!(!entry(text).contains("trace"), "{}", entry(text));
    }
    assert!(entry("unsampled").contains(&format!("\"traceparent\":\"{unsampled}\"")), "as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_when_the_process_ends() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let late = [("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let mut demo = node(&redis, &collector, "a", &late).await;
    let mut socket = demo.socket(1).await;
    let (traceparent, trace) = new_trace("01");
    publish(&demo, "traced", &[("traceparent", &traceparent)]).await;
    assert_eq!(socket.text().await, "traced");
    assert_eq!(collector.spans().len(), 0);
    demo.terminate();
    assert!(within("its end", demo.child().wait()).await.unwrap().success());
    assert_eq!(collector.trace(&trace, 2).await.len(), 2);
}

/// The spans of this process.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Seen {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

static SEEN: LazyLock<(Seen, SdkTracerProvider)> = LazyLock::new(|| {
    let seen = Seen::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(seen.clone()).build();
    global::set_tracer_provider(provider.clone());
    (seen, provider)
});

/// The writes below a span, once there are that many.
async fn writes(trace: TraceId, parent: SpanId, count: usize) -> Vec<SpanData> {
    within(&format!("{count} writes"), async {
        loop {
            let spans = SEEN.0.0.lock().unwrap().clone();
            let of_parent = |span: &SpanData| {
                span.name == "realtime.write"
                    && span.span_context.trace_id() == trace
                    && span.parent_span_id == parent
            };
            let found: Vec<_> = spans.into_iter().filter(of_parent).collect();
            if found.len() >= count {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn attribute<'a>(span: &'a SpanData, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|attribute| &attribute.value)
}

async fn hub(redis: &Redis, name: &str) -> Hub {
    LazyLock::force(&SEEN);
    let cluster = RedisCluster::streams(RedisConfig::single(redis.url()), name).unwrap();
    let hub = Hub::builder().node(name).cluster(cluster).start().unwrap();
    ready(&hub).await;
    hub
}

fn envelope(text: &str) -> Envelope {
    Envelope::to_users([1], Scope::Both, Message::text(text.to_owned())).unwrap()
}

/// The envelope in a new trace, with the ids of the trace and the span.
fn traced(text: &str) -> (Envelope, TraceId, SpanId) {
    let context = TraceContext::parse(&new_trace("01").0, None).unwrap();
    let (trace, span) = (TraceId::from_bytes(context.trace_id()), SpanId::from_bytes(context.span_id()));
    (envelope(text).with_trace_context(context), trace, span)
}

async fn open(hub: &Hub, cursor: Option<&str>) -> TestSession {
    let principal = Principal::new(1.into(), "a token");
    TestSession::open(hub, principal, Transport::new("sse"), cursor).await.unwrap()
}

#[tokio::test]
async fn a_publish_in_a_span_of_tracing_belongs_to_it() {
    let redis = Redis::start().await;
    let (a, b) = (hub(&redis, "a").await, hub(&redis, "b").await);
    let mut session = open(&b, None).await;
    let layer = tracing_opentelemetry::layer().with_tracer(SEEN.1.tracer("the test"));
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    a.publish(envelope("in a span")).instrument(tracing::info_span!("an order is shipped")).await.unwrap();
    assert_eq!(session.text().await, "in a span");
    let spans = SEEN.0.0.lock().unwrap().clone();
    let order = spans.iter().find(|span| span.name == "an order is shipped").unwrap();
    let (trace, id) = (order.span_context.trace_id(), order.span_context.span_id());
    let written = writes(trace, id, 1).await;
    assert_eq!(written[0].status, Status::Unset);
    assert_eq!(attribute(&written[0], "realtime.lane"), Some(&"body".into()));
}

#[tokio::test]
async fn sixteen_sessions_of_a_node_have_spans_of_their_own_and_the_others_one() {
    let redis = Redis::start().await;
    let hub = hub(&redis, "a").await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(open(&hub, None).await);
    }
    // In one run with one that is not traced.
    let (envelope_, trace, span) = traced("traced");
    let (first, second) = tokio::join!(hub.publish(envelope_), hub.publish(envelope("plain")));
    let (first, _) = (first.unwrap(), second.unwrap());
    for session in &mut sessions {
        assert_eq!([session.text().await, session.text().await], ["traced", "plain"]);
    }
    let written = writes(trace, span, 17).await;
    let others: Vec<_> = written.iter().filter_map(|span| attribute(span, "realtime.sessions")).collect();
    assert_eq!((written.len(), others), (17, vec![&Value::I64(4)]));
    let position = first.position.unwrap().to_string();
    for write in written {
        assert_eq!(attribute(&write, "messaging.message.id"), Some(&position.clone().into()));
    }
}

#[tokio::test]
async fn a_replay_is_a_span_and_a_session_that_ends_before_its_write_too() {
    let redis = Redis::start().await;
    let hub = hub(&redis, "a").await;
    let unread = open(&hub, None).await;
    let cursor = hub.cursor().unwrap().to_string();
    let (envelope, trace, span) = traced("traced");
    hub.publish(envelope).await.unwrap();
    let mut late = open(&hub, Some(&cursor)).await;
    assert_eq!(late.text().await, "traced");
    let replayed = writes(trace, span, 1).await;
    assert_eq!(attribute(&replayed[0], "realtime.replayed"), Some(&Value::Bool(true)));
    assert_eq!(attribute(&replayed[0], "realtime.session.id"), Some(&late.handle().id().to_string().into()));
    let id = unread.handle().id().to_string();
    drop(unread);
    let all = writes(trace, span, 2).await;
    assert_eq!(attribute(&all[1], "realtime.session.id"), Some(&id.into()));
    assert_eq!(all[1].status, Status::error("the session has ended before"));
}
