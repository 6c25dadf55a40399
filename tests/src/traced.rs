//! [`Traced`]: a live trace that is read.

use std::{fmt, pin::Pin};

use eventsource_stream::{Event, Eventsource};
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use crate::{API_KEY, Demo, within};

/// A live trace of a demo.
pub struct Traced(Pin<Box<dyn Stream<Item = Event> + Send>>);

impl Traced {
    /// Begins a trace and waits until its nodes are known. Returns the first event, too.
    pub async fn begin(demo: &Demo, body: &Value) -> (Self, Value) {
        let request = reqwest::Client::new().post(demo.api_url("/api/trace")).header("X-API-Key", API_KEY);
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{body}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let events = response.bytes_stream().eventsource().filter_map(async |event| event.ok());
        let mut this = Self(Box::pin(events));
        let nodes = this.next().await.expect("a first event");
        assert_eq!(nodes["kind"], "nodes", "{nodes}");
        (this, nodes)
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        let event = within("an event of a trace", self.0.next()).await;
        event.map(|event| serde_json::from_str(&event.data).unwrap())
    }

    /// The next event of a kind, and those before it.
    pub async fn until(&mut self, kind: &str) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("no {kind} among {before:#?}"));
            if event["kind"] == kind {
                return (event, before);
            }
            before.push(event);
        }
    }

    /// The kinds of the next events.
    pub async fn kinds(&mut self, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        while kinds.len() < count {
            let event = self.next().await.unwrap_or_else(|| panic!("only {kinds:?}"));
            kinds.push(event["kind"].as_str().unwrap().to_owned());
        }
        kinds
    }
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced").finish_non_exhaustive()
    }
}
