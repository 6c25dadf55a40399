//! [`Answer`]: a response that is complete, as an adapter sends it.

use std::time::Duration;

use bytes::Bytes;
use realtime_core::{ruoyi::Reply, wire::random_retry};
use serde::Serialize;

/// A complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names in lower case and values of its headers, each name once.
    pub headers: Vec<(&'static str, String)>,
    /// Its body, empty for none.
    pub body: Bytes,
    /// The connection has to be closed behind it: where the request ends is doubtful.
    pub ends_connection: bool,
}

/// Mean of the `Retry-After` of a temporary refusal.
pub(crate) const RETRY: Duration = Duration::from_secs(3);

impl Answer {
    /// A response with a body.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status, headers, body: body.into(), ends_connection: false }
    }

    /// A response with JSON.
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        let json = serde_json::to_vec(body).expect("strings, numbers and booleans are always JSON");
        Self::new(status, "application/json", json)
    }

    /// RuoYi's reply with an error.
    pub(crate) fn error(status: u16, code: u16, problem: &impl ToString) -> Self {
        Self::json(status, &Reply::error(code, problem.to_string()))
    }

    /// The same with a `Retry-After` if it is temporary (429, 503): around `retry`, so that those who are refused together
    /// do not come back together.
    pub(crate) fn refusal(status: u16, code: u16, problem: &impl ToString, retry: Duration) -> Self {
        let answer = Self::error(status, code, problem);
        if !matches!(status, 429 | 503) {
            return answer;
        }
        // In whole seconds (RFC 9110, section 10.2.3).
        let seconds = random_retry(retry).as_secs_f64().ceil();
        answer.header("retry-after", format!("{seconds:.0}"))
    }

    /// A response without a body.
    #[cfg(feature = "sse")]
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), ends_connection: false }
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub(crate) fn ending_connection(mut self) -> Self {
        self.ends_connection = true;
        self
    }
}
