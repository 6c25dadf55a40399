//! [`State`]: the state of all handlers.

use std::{
    future::{Ready, ready},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Data};
use realtime_core::{Authenticator, Hub, Transport, UserId, facade::Facade, wire::LineLimit};

use crate::{
    answers::Answers,
    body_size::max_body,
    client::Client,
    config::{AllowedHosts, Config, User},
    dashboard::Dashboard,
    logins::Logins,
    passwords::Passwords,
    refusals::Refusals,
    throttles::Throttles,
    token,
};

pub(crate) const WEBSOCKET: Transport = Transport::new("websocket");
pub(crate) const SSE: Transport = Transport::new("sse");

/// Lines in each interval about requests for other hosts.
const FOREIGN_HOSTS: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

/// State that the handlers of all workers share.
pub(crate) struct State {
    /// The configuration at the start.
    pub(crate) config: Config,
    pub(crate) hub: Hub,
    pub(crate) started_at: SystemTime,
    /// Check of logins.
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// The same, if logins are signed tokens.
    pub(crate) logins: Option<Arc<Logins>>,
    /// Methods of each transport; they return `Disabled` for a disabled module.
    pub(crate) websocket: Facade,
    pub(crate) sse: Facade,
    live: RwLock<Arc<Live>>,
    /// Bytes of a request's body.
    pub(crate) max_body: usize,
    pub(crate) passwords: Passwords,
    pub(crate) throttles: Throttles,
    pub(crate) refusals: Refusals,
    /// Requests for other hosts.
    pub(crate) foreign_hosts: LineLimit,
    pub(crate) dashboard: Dashboard,
    pub(crate) answers: Answers,
}

/// Settings that a reload changes while the server runs.
#[derive(Clone)]
pub(crate) struct Live {
    /// Key of the API.
    pub(crate) api_key: String,
    /// It was configured, and not made at random.
    pub(crate) has_configured_key: bool,
    /// Users that can log in.
    pub(crate) users: Vec<User>,
    /// Names of this server.
    pub(crate) allowed_hosts: AllowedHosts,
}

impl State {
    pub(crate) fn new(
        config: Config,
        hub: Hub,
        authenticator: Arc<dyn Authenticator>,
        logins: Option<Arc<Logins>>,
    ) -> Self {
        let facade = |enabled: bool, transport| Facade::new(enabled.then(|| hub.clone()), transport);
        Self {
            authenticator,
            logins,
            websocket: facade(config.websocket.enabled, WEBSOCKET),
            sse: facade(config.sse.enabled, SSE),
            live: RwLock::new(Arc::new(Live::of(&config, token::random_secret))),
            max_body: max_body(&config.settings().limits),
            passwords: Passwords::default(),
            throttles: Throttles::default(),
            refusals: Refusals::default(),
            foreign_hosts: LineLimit::new(FOREIGN_HOSTS, INTERVAL),
            dashboard: Dashboard::default(),
            answers: Answers::default(),
            hub,
            started_at: SystemTime::now(),
            config,
        }
    }

    /// The settings that are in force now.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes these settings over from a new configuration. Without a key of the API the one before stays.
    pub(crate) fn update(&self, config: &Config) {
        let before = self.live();
        let mut live = Live::of(config, || before.api_key.clone());
        live.has_configured_key |= before.has_configured_key;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// A demo user, by id.
    pub(crate) fn user(&self, id: &UserId) -> Option<User> {
        self.live().users.iter().find(|user| user.id == *id).cloned()
    }

    /// The first demo user of a role.
    pub(crate) fn user_with_role(&self, role: &str) -> Option<User> {
        self.live().users.iter().find(|user| user.role == role).cloned()
    }
}

impl Live {
    fn of(config: &Config, default_key: impl FnOnce() -> String) -> Self {
        Self {
            api_key: config.api.key.as_deref().map_or_else(default_key, str::to_owned),
            has_configured_key: config.api.key.is_some(),
            users: config.auth.users.clone(),
            allowed_hosts: config.server.allowed_hosts.clone(),
        }
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
