//! [`State`]: the state of all handlers.

use std::{
    future::{Ready, ready},
    sync::Arc,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Data};
use realtime_core::{Authenticator, Hub, Transport, UserId, auth::JwtAuthenticator, facade::Facade};

use crate::{
    answers::Answers,
    client::Client,
    config::{Config, User},
    dashboard::Dashboard,
    passwords::Passwords,
    throttles::Throttles,
    token,
};

pub(crate) const WEBSOCKET: Transport = Transport::new("websocket");
pub(crate) const SSE: Transport = Transport::new("sse");

/// State that the handlers of all workers share.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) hub: Hub,
    /// Check of logins.
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// Signer of the page's logins, unless the logins are issued elsewhere.
    pub(crate) jwt: Option<JwtAuthenticator>,
    /// Methods of each transport; they return `Disabled` for a disabled module.
    pub(crate) websocket: Facade,
    pub(crate) sse: Facade,
    pub(crate) api_key: String,
    pub(crate) passwords: Passwords,
    pub(crate) throttles: Throttles,
    pub(crate) dashboard: Dashboard,
    pub(crate) answers: Answers,
}

impl State {
    pub(crate) fn new(
        config: Config,
        hub: Hub,
        authenticator: Arc<dyn Authenticator>,
        jwt: Option<JwtAuthenticator>,
    ) -> Self {
        let facade = |enabled: bool, transport| Facade::new(enabled.then(|| hub.clone()), transport);
        Self {
            authenticator,
            jwt,
            websocket: facade(config.websocket.enabled, WEBSOCKET),
            sse: facade(config.sse.enabled, SSE),
            api_key: config.api.key.as_deref().map_or_else(token::random_secret, str::to_owned),
            passwords: Passwords::default(),
            throttles: Throttles::default(),
            dashboard: Dashboard::default(),
            answers: Answers::default(),
            hub,
            config,
        }
    }

    /// A demo user, by id.
    pub(crate) fn user(&self, id: &UserId) -> Option<&User> {
        self.config.auth.users.iter().find(|user| user.id == *id)
    }

    /// The first demo user of a role.
    pub(crate) fn user_with_role(&self, role: &str) -> Option<&User> {
        self.config.auth.users.iter().find(|user| user.role == role)
    }
}

impl FromRequest for Client {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<Data<State>>().expect("the server sets the state of every app");
        ready(Ok(Self::of(request, &state.config.server.trusted_proxies)))
    }
}
