//! [`Service`]: the endpoint's routes, from a request's handshake to a stream or an answer.

use std::{fmt, sync::Arc, time::SystemTime};

use realtime_core::{
    Authenticator, Hub,
    auth::{AllowedOrigins, AuthError, Handshake, TrustedProxies},
    ruoyi::{ErrorStatus, Reply},
};
use serde::Serialize;

use super::{
    config::SseConfig,
    connection::SseConnection,
    cors::Cors,
    format::{Framing, TRANSPORT},
    refusal::{OpenError, reconnect_later},
    streams::{SPARE, Streams},
};
use crate::{Answer, answer::RETRY, issue_ticket};

/// The routes of an endpoint: `GET {path}`, `GET|POST {path}/close`, `POST {path}/refresh`, with
/// [tickets](SseConfig::tickets) `POST {path}/ticket`, and `OPTIONS` of each.
///
/// The adapter gives each request to [`Self::handshake`] first, then to [`Self::page`].
pub struct Service {
    hub: Hub,
    streams: Streams,
    authenticator: Arc<dyn Authenticator>,
    allowed_origins: AllowedOrigins,
    error_status: ErrorStatus,
    trusted_proxies: TrustedProxies,
    login_cookie: Option<Arc<str>>,
    tickets: bool,
}

impl Service {
    /// The routes as configured.
    pub fn new(hub: Hub, authenticator: Arc<dyn Authenticator>, config: SseConfig) -> Self {
        let SseConfig {
            enabled: _,
            path: _,
            retry,
            allowed_origins,
            error_status,
            trusted_proxies,
            login_cookie,
            tickets,
        } = config;
        Self {
            hub,
            streams: Streams::new(retry),
            authenticator,
            allowed_origins,
            error_status,
            trusted_proxies,
            login_cookie,
            tickets,
        }
    }

    /// The handshake of a request as the routes see it: with the address of the client behind the trusted proxies, and the
    /// login of its cookie. A cookie is a login only if no page of another origin has made the request.
    pub fn handshake(&self, request: Handshake) -> Handshake {
        let handshake = request.behind(&self.trusted_proxies);
        let cookie = self.login_cookie.as_ref().filter(|_| self.allowed_origins.trusts_cookies(&handshake));
        handshake.with_login_cookie(cookie)
    }

    /// The headers that tell the page of a request what it may do with the response; each has a value in addition to others
    /// of the name.
    ///
    /// # Errors
    /// The answer to a page that would use its visitor's cookies although it is not named, with these headers.
    pub fn page(&self, request: &Handshake) -> Result<Vec<(&'static str, String)>, Answer> {
        Cors::of(&self.allowed_origins, request).map(Cors::headers).map_err(|page| {
            self.hub.count_foreign_page();
            let mut answer = page.refuse();
            answer.headers.extend(Cors::None.headers());
            answer
        })
    }

    /// The answer to a preflight request, for these methods of the resource.
    pub fn preflight(&self, request: &Handshake, methods: &'static str) -> Answer {
        Cors::preflight(&self.allowed_origins, request, methods)
    }

    /// The answer to the request of a stream that announces a body.
    pub fn refuse_body(&self) -> Answer {
        Answer::error(400, 400, &"the request of an event stream must not have a body").ending_connection()
    }

    /// Opens a stream. `framing` is asked for once nothing but the hub can refuse it.
    ///
    /// # Errors
    /// The answer to a request that gets no stream.
    pub async fn connect(
        &self,
        request: Handshake,
        framing: impl FnOnce() -> Framing,
    ) -> Result<SseConnection, Answer> {
        let refuse = |error: OpenError| error.answer(self.streams.retry, self.error_status);
        // Before anything that costs more.
        let admission = self.hub.admit(request.client_ip()).map_err(|error| refuse(error.into()))?;
        let request = request.with_tickets(self.tickets);
        let principal = self.hub.authenticate(&*self.authenticator, &request).await;
        let principal = principal.map_err(|error| self.refuse_login(&error))?;
        let opened = self.streams.open_request(&self.hub, framing, admission, principal, &request);
        opened.await.map_err(refuse)
    }

    /// Ends the streams of the request's token. An invalid token has no streams, and is not an error.
    pub async fn close(&self, request: &Handshake) -> Answer {
        if let Some(refusal) = self.too_many(request) {
            return refusal;
        }
        if let Ok(principal) = self.authenticator.authenticate(request).await {
            self.hub.disconnect(&principal.user, principal.token, TRANSPORT, SPARE);
        }
        Answer::json(200, &Reply::ok())
    }

    /// Makes a ticket for the login of the request.
    pub async fn ticket(&self, request: &Handshake) -> Answer {
        if let Some(refusal) = self.too_many(request) {
            return refusal;
        }
        issue_ticket(&self.hub, &*self.authenticator, request, self.error_status).await
    }

    /// Renews the login of a stream with the token of the request.
    pub async fn refresh(&self, request: &Handshake) -> Answer {
        if let Some(refusal) = self.too_many(request) {
            return refusal;
        }
        let refuse = |code: u16, problem: &dyn fmt::Display| {
            Answer::refusal(self.error_status.of(code), code, &problem.to_string(), RETRY)
        };
        let session = match request.query_only("session") {
            Ok(session) => session.and_then(|id| id.parse().ok()),
            Err(error) => return refuse(400, &error),
        };
        let Some(session) = session else {
            return refuse(400, &"session: the id of the stream's session is missing");
        };
        let principal = match self.authenticator.authenticate(request).await {
            Ok(principal) => principal,
            Err(error) => {
                error.report();
                return refuse(error.status(), &error.answer());
            }
        };
        let expires_at = principal.expires_at;
        match self.hub.renew_session(session, principal).await {
            Ok(()) => {
                let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
                let expires_in = expires_at.map(|end| left(end).as_millis());
                Answer::json(200, &Reply::data(Refreshed { expires_in }))
            }
            Err(error) => refuse(error.status(), &error),
        }
    }

    /// Answer to a request about a stream that is beyond the rates of handshakes: its login is checked, too.
    fn too_many(&self, request: &Handshake) -> Option<Answer> {
        let error = self.hub.admit_request(request.client_ip()).err()?;
        let retry = error.retry_after().unwrap_or_default().max(RETRY);
        Some(Answer::refusal(error.status(), error.status(), &error, retry))
    }

    fn refuse_login(&self, error: &AuthError) -> Answer {
        tracing::debug!(%error, "login refused");
        error.report();
        match error.status() {
            503 => reconnect_later(self.streams.retry),
            code => Answer::error(self.error_status.of(code), code, error),
        }
    }
}

/// Answer to a renewed login.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refreshed {
    /// Milliseconds until the login ends; `None`: it never does.
    expires_in: Option<u128>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("allowed_origins", &self.allowed_origins).finish_non_exhaustive()
    }
}
