//! [`Collector`]: a receiver of spans by OTLP.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use crate::within;

/// A server that takes spans as `http/protobuf`. It ends with its drop.
#[derive(Debug)]
pub struct Collector {
    port: u16,
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
    server: JoinHandle<()>,
}

/// A span as it was received.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// The resource's `service.name`.
    pub service: String,
    /// All of its parts.
    pub span: Span,
}

impl Collector {
    /// Starts it on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans = Arc::<Mutex<Vec<CollectedSpan>>>::default();
        let app = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { port, spans, server }
    }

    /// Its address, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of a trace, once there are that many.
    pub async fn trace(&self, id: &str, count: usize) -> Vec<CollectedSpan> {
        within(&format!("{count} spans of trace {id}"), async {
            loop {
                let spans = self.spans().into_iter();
                let found: Vec<_> = spans.filter(|span| hex(&span.span.trace_id) == id).collect();
                if found.len() >= count {
                    return found;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl CollectedSpan {
    /// An attribute as text; empty if there is none.
    pub fn attribute(&self, name: &str) -> String {
        text_of(&self.span.attributes, name)
    }

    /// The id.
    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// The id of the parent.
    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<CollectedSpan>>>>, body: Bytes) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = text_of(&attributes, "service.name");
        let taken = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        let taken = taken.map(|span| CollectedSpan { service: service.clone(), span });
        spans.lock().unwrap().extend(taken);
    }
    StatusCode::OK
}

fn text_of(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        Some(AnyValue { value: Some(Value::BoolValue(value)) }) => value.to_string(),
        None => String::new(),
        Some(other) => panic!("attribute {name} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
