//! The limits of a hub, which change while it runs.

use std::sync::Arc;

use super::Hub;
use crate::{
    Settings,
    settings::{Limits, SettingsError},
};

impl Hub {
    /// The limits that are in force.
    pub fn limits(&self) -> Limits {
        Limits::clone(&self.0.registry.node.limits.load())
    }

    /// Replaces the limits. Sessions that are open stay, however many they are: the new limits hold for what comes next,
    /// connections as well as messages. Connections that began without a limit per address are not counted for one.
    ///
    /// # Errors
    /// [`SettingsError`] if they contradict each other or the other settings; those before stay in force then.
    pub fn set_limits(&self, limits: Limits) -> Result<(), SettingsError> {
        let node = &self.0.registry.node;
        let settings = Settings { limits, ..node.settings.clone() };
        settings.check()?;
        node.admissions.set(&settings.limits);
        node.limits.store(Arc::new(settings.limits));
        Ok(())
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        CloseReason, Envelope, Principal, Scope, Transport,
        auth::TokenHash,
        error::{ConnectError, PublishError},
        settings::OnExceeded,
        testkit::{TestSession, ready},
    };

    async fn connect(hub: &Hub, user: i64) -> Result<TestSession, ConnectError> {
        let principal = Principal::new(user.into(), "a token");
        TestSession::open(hub, principal, Transport::new("sse"), None).await
    }

    #[tokio::test]
    async fn new_limits_hold_for_what_comes_next_and_sessions_stay() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(connect(&hub, 1).await.unwrap());
        }
        let mut limits = hub.limits();
        (limits.max_connections_per_user, limits.max_message_bytes) = (2, 4);
        hub.set_limits(limits.clone()).unwrap();
        assert_eq!(hub.limits(), limits);
        assert!(matches!(connect(&hub, 1).await, Err(ConnectError::TooManyOfUser(_, 2))));
        assert!(matches!(hub.publish_all("12345").await, Err(PublishError::TooLarge(_))));
        hub.publish_all("1234").await.unwrap();
        for session in &mut kept {
            assert_eq!(session.text().await, "1234");
        }
        limits.max_connections_per_user = 4;
        hub.set_limits(limits).unwrap();
        kept.push(connect(&hub, 1).await.unwrap());
    }

    #[tokio::test]
    async fn a_message_that_would_not_fit_into_the_window_is_refused() {
        let mut settings = Settings::default();
        settings.history.max_bytes = 512 << 10;
        let hub = Hub::builder().settings(settings).start().unwrap();
        ready(&hub).await;
        let mut session = connect(&hub, 1).await.unwrap();
        let to = |users: i64| Envelope::to_users(1..=users, Scope::Both, "x".into()).unwrap();
        let error = hub.publish(to(20_000)).await.unwrap_err();
        assert_eq!(error.status(), 413);
        assert!(error.to_string().contains("(a quarter of history.maxBytes)"), "{error}");
        hub.publish(to(2_000)).await.unwrap();
        assert_eq!(session.text().await, "x");
        // What is sent on this node alone is never in the window.
        hub.send_local(to(20_000)).unwrap();
        assert_eq!(session.text().await, "x");
    }

    #[tokio::test]
    async fn sessions_without_a_token_are_none_of_one_token() {
        for on_exceeded in [OnExceeded::Refuse, OnExceeded::EndOldest] {
            let hub = Hub::builder().start().unwrap();
            ready(&hub).await;
            let mut limits = hub.limits();
            (limits.max_connections_per_token, limits.on_exceeded) = (1, on_exceeded);
            hub.set_limits(limits).unwrap();
            let open = async |token: &str| {
                let principal = Principal::new(1.into(), token);
                TestSession::open(&hub, principal, Transport::new("sse"), None).await
            };
            let sessions = [open("").await, open("").await, open("").await, open("a token").await];
            for session in &sessions {
                assert_eq!(session.as_ref().unwrap().handle().closing(), None);
            }
            assert_eq!(open("a token").await.is_err(), on_exceeded == OnExceeded::Refuse);
        }
    }

    #[tokio::test]
    async fn sessions_without_a_token_are_not_disconnected_by_one() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        let transport = Transport::new("sse");
        let open = async |token: &str| {
            TestSession::open(&hub, Principal::new(1.into(), token), transport, None).await.unwrap()
        };
        let [first, second, other] = [open("").await, open("").await, open("a token").await];
        let disconnect = |token| hub.disconnect(&1.into(), TokenHash::of(token), transport, Duration::ZERO);
        assert_eq!(disconnect(""), 0);
        assert_eq!((first.handle().closing(), second.handle().closing()), (None, None));
        assert_eq!(disconnect("a token"), 1);
        assert_eq!(other.handle().closing(), Some(CloseReason::Disconnected));
    }

    #[tokio::test]
    async fn limits_that_contradict_the_settings_change_nothing() {
        let hub = Hub::builder().start().unwrap();
        let before = hub.limits();
        let mut limits = before.clone();
        limits.max_message_bytes = hub.settings().history.max_bytes;
        limits.max_connections = 7;
        assert_eq!(hub.set_limits(limits).unwrap_err().key, "history.maxBytes");
        assert_eq!(hub.limits(), before);
    }

    #[tokio::test]
    async fn rates_and_places_of_addresses_change_as_well() {
        let hub = Hub::builder().start().unwrap();
        ready(&hub).await;
        let address = Some("192.0.2.1".parse().unwrap());
        for _ in 0..100 {
            hub.admit(address).unwrap();
        }
        let mut limits = hub.limits();
        limits.max_connections_per_address = 1;
        limits.max_handshake_rate_per_address = 1;
        hub.set_limits(limits.clone()).unwrap();
        let held = hub.admit(address).unwrap();
        assert!(matches!(hub.admit(address), Err(ConnectError::TooManyOfAddress(1))));
        // The same rate again gives nobody a new start.
        let mut attempts = 0..1000;
        let is_too_fast = attempts.any(|_| {
            hub.set_limits(limits.clone()).unwrap();
            matches!(hub.admit(address), Err(ConnectError::TooFastOfAddress { .. }))
        });
        assert!(is_too_fast);
        limits.max_connections_per_address = 0;
        limits.max_handshake_rate_per_address = 0;
        hub.set_limits(limits).unwrap();
        drop(held);
        hub.admit(address).unwrap();
    }
}
