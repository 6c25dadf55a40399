//! [`Traced`], the trace that a request belongs to, and [`PublishSpan`], the span of a publish in it.

use std::{
    fmt::Display,
    future::{Ready, ready},
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::HeaderMap};
use realtime_core::{Envelope, Position, TraceContext};

use crate::api_error::ApiError;

/// The context in the headers `traceparent` and `tracestate`. What is malformed is none, and never an error.
pub(crate) struct Traced(pub(crate) Option<TraceContext>);

impl FromRequest for Traced {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(context(request.headers()))))
    }
}

fn context(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all("traceparent");
    let (parent, None) = (parents.next()?, parents.next()) else { return None };
    let states = headers.get_all("tracestate").map(|state| state.to_str());
    // One that is no text makes the list invalid.
    let states: Vec<_> = states.collect::<Result<_, _>>().unwrap_or_default();
    TraceContext::parse(parent.to_str().ok()?, Some(states.join(",").as_str()))
}

/// The span `realtime.publish`, while spans are exported and its trace is recorded.
#[must_use]
pub(crate) struct PublishSpan {
    #[cfg(feature = "opentelemetry")]
    span: opentelemetry::global::BoxedSpan,
}

impl PublishSpan {
    /// Begins the span of a publish in a request's trace. The envelope then belongs to the span, or without one to the
    /// request's own.
    #[cfg(not(feature = "opentelemetry"))]
    pub(crate) fn begin(context: Option<TraceContext>, envelope: Envelope) -> (Self, Envelope) {
        (Self {}, context.into_iter().fold(envelope, Envelope::with_trace_context))
    }

    /// Ends the span with the position of the message, or the error.
    #[cfg(not(feature = "opentelemetry"))]
    pub(crate) fn end(self, published: Result<Option<Position>, &impl Display>) {
        let _ = published;
    }

    /// Begins the span of a publish in a request's trace. The envelope then belongs to the span, or without one to the
    /// request's own.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn begin(context: Option<TraceContext>, envelope: Envelope) -> (Self, Envelope) {
        use std::str::FromStr;

        use opentelemetry::{
            Context, KeyValue, SpanId, TraceFlags, TraceId, global,
            trace::{Span, SpanContext, SpanKind, TraceContextExt, TraceState, Tracer},
        };

        let mut parent = Context::new();
        if let Some(context) = &context {
            let state = context.tracestate().and_then(|state| TraceState::from_str(state).ok());
            parent = parent.with_remote_span_context(SpanContext::new(
                TraceId::from_bytes(context.trace_id()),
                SpanId::from_bytes(context.span_id()),
                TraceFlags::new(context.flags()),
                true,
                state.unwrap_or_default(),
            ));
        }
        let tracer = global::tracer("realtime-demo");
        let span = tracer
            .span_builder("realtime.publish")
            .with_kind(SpanKind::Producer)
            .with_attributes([
                KeyValue::new("messaging.system", "realtime"),
                KeyValue::new("messaging.operation.name", "publish"),
                KeyValue::new("messaging.operation.type", "send"),
            ])
            .start_with_context(&tracer, &parent);
        let own = span.span_context();
        let own = span.is_recording().then(|| {
            let (trace, id, flags) = (own.trace_id(), own.span_id(), own.trace_flags());
            let state = own.trace_state().header();
            TraceContext::new(trace.to_bytes(), id.to_bytes(), flags.to_u8(), Some(state.as_str()))
        });
        let context = own.flatten().or(context);
        (Self { span }, context.into_iter().fold(envelope, Envelope::with_trace_context))
    }

    /// Ends the span with the position of the message, or the error.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn end(mut self, published: Result<Option<Position>, &impl Display>) {
        use opentelemetry::{
            KeyValue,
            trace::{Span, Status},
        };

        match published {
            Ok(Some(position)) => {
                self.span.set_attribute(KeyValue::new("messaging.message.id", position.to_string()));
            }
            Ok(None) => {}
            Err(error) => self.span.set_status(Status::error(error.to_string())),
        }
        self.span.end();
    }
}
