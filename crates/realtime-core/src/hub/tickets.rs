//! Tickets: single-use logins for connections that cannot have a header.

use std::{sync::Arc, time::SystemTime};

use super::Hub;
use crate::{
    Principal,
    auth::{AuthError, Authenticator, ClientIdPolicy, Handshake, Ticket, TicketError, TicketKey},
    line_limit::LineLimit,
};

impl Hub {
    /// Makes a ticket for a login: a random text that stands for it once, within [`Ticket::TTL`] and until the login's end,
    /// on every node.
    ///
    /// A page cannot set headers of a WebSocket or an `EventSource`, and what is in a URL is in logs. A ticket may be
    /// there: it has been used when it is read.
    ///
    /// # Errors
    /// [`TicketError::Refused`] for a login that was kicked or revoked, [`TicketError::TooMany`] beyond 60 tickets in 30 s,
    /// and the errors of the [store](crate::HubBuilder::tickets).
    pub async fn issue_ticket(&self, login: &Principal) -> Result<Ticket, TicketError> {
        let left = login.expires_at.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        if self.is_refused(login) || left.is_some_and(|left| left.is_zero()) {
            return Err(TicketError::Refused);
        }
        if !self.0.ticket_rate.allows(&login.user, login.token) {
            return Err(TicketError::TooMany);
        }
        let ticket = Ticket::random(left.map_or(Ticket::TTL, |left| left.min(Ticket::TTL)));
        self.0
            .tickets
            .put(TicketKey::of(ticket.expose()), login.clone(), ticket.ttl())
            .await
            .inspect_err(report)?;
        Ok(ticket)
    }

    /// Authenticates a handshake: by its [ticket](Handshake::ticket), if it has one, or else by the authenticator.
    ///
    /// A ticket is the login that it was made for, with its token's hash and end. So a kick or a revocation of that token
    /// refuses it, and its session ends with the token. A login with a [credential](Principal::credential) is checked again, as
    /// a [renewal](Handshake::renewal) of itself.
    ///
    /// # Errors
    /// [`AuthError::Unauthorized`] for a ticket that is unknown, was used, or has ended; [`AuthError::Unavailable`] if that
    /// cannot be told; the authenticator's errors.
    pub async fn authenticate(
        &self,
        authenticator: &dyn Authenticator,
        handshake: &Handshake,
    ) -> Result<Principal, AuthError> {
        self.check_login(authenticator, handshake).await.inspect_err(|error| {
            let metrics = &self.0.registry.node.metrics;
            metrics.refused.add(1);
            metrics.refused_by.count_login(matches!(error, AuthError::Unavailable(_)));
            self.record_login(handshake, error);
        })
    }

    async fn check_login(
        &self,
        authenticator: &dyn Authenticator,
        handshake: &Handshake,
    ) -> Result<Principal, AuthError> {
        let Some(ticket) = handshake.ticket()? else { return authenticator.authenticate(handshake).await };
        let unusable = || AuthError::Unauthorized("the ticket is unknown, was used or has ended".to_owned());
        let login = self.0.tickets.take(TicketKey::of(ticket)).await;
        let login = login.map_err(|error| AuthError::Unavailable(error.to_string()))?;
        let login = login.ok_or_else(unusable)?;
        if login.expires_at.is_some_and(|end| end <= SystemTime::now()) {
            return Err(unusable());
        }
        // The client id was asked for when the ticket was made.
        handshake.check_client_id(login.client_id.as_deref(), ClientIdPolicy::Optional)?;
        // Such a login ends elsewhere, and may have since.
        if let Some(credential) = &login.credential {
            let token = credential.expose();
            let again = Handshake::renewal(handshake.transport(), token, Arc::new(login.clone()));
            if authenticator.authenticate(&again).await?.user != login.user {
                return Err(unusable());
            }
        }
        Ok(login)
    }
}

/// Logs the reason why tickets cannot be made, at most once a second.
fn report(error: &TicketError) {
    static LINES: LineLimit = LineLimit::per_second();
    if let TicketError::Unavailable(reason) = error
        && let Some(unlogged) = LINES.next()
    {
        tracing::warn!(reason, unlogged, "tickets cannot be made");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use tokio::time::advance;

    use super::*;
    use crate::{
        BoxFuture, Transport,
        auth::{Credential, TokenHash},
    };

    struct Nobody;

    impl Authenticator for Nobody {
        fn authenticate<'a>(&'a self, _: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
            Box::pin(async { Err(AuthError::Unauthorized("nobody".to_owned())) })
        }
    }

    fn with(ticket: &str) -> Handshake {
        let query = format!("ticket={ticket}");
        Handshake::new(Transport::new("test"), &query, [], None).with_tickets(true)
    }

    fn login() -> Principal {
        let mut login = Principal::new(7.into(), "token");
        login.client_id = Some(Arc::from("web"));
        login.issued_at = Some(SystemTime::now() - Duration::from_secs(60));
        login
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_its_login_once_and_within_its_time() {
        let hub = Hub::builder().start().unwrap();
        let mut with_end = login();
        with_end.expires_at = Some(SystemTime::now() + Duration::from_secs(10));
        for login in [login(), with_end] {
            let ticket = hub.issue_ticket(&login).await.unwrap();
            let ticket = with(ticket.expose());
            assert_eq!(hub.authenticate(&Nobody, &ticket).await.unwrap(), login);
            assert_eq!(hub.authenticate(&Nobody, &ticket).await.unwrap_err().status(), 401);
            let late = hub.issue_ticket(&login).await.unwrap();
            advance(login.expires_at.map_or(Ticket::TTL, |_| Duration::from_secs(10))).await;
            assert_eq!(hub.authenticate(&Nobody, &with(late.expose())).await.unwrap_err().status(), 401);
        }
        let zeros = "0".repeat(64);
        for (bad, problem) in [
            ("x", "the ticket is unknown"),
            (&zeros, "the ticket is unknown"),
            ("%FF", "ticket: not UTF-8"),
            ("x&ticket=y", "ticket: given more than once"),
        ] {
            let error = hub.authenticate(&Nobody, &with(bad)).await.unwrap_err();
            assert!(error.status() == 401 && error.to_string().starts_with(problem), "{error}");
        }
        let error = hub.authenticate(&Nobody, &with("")).await.unwrap_err();
        assert_eq!(error.to_string(), "nobody", "an empty one is none");
    }

    #[tokio::test]
    async fn a_kick_or_a_revocation_between_issue_and_use_refuses_the_ticket() {
        let hub = Hub::builder().start().unwrap();
        let end = Some(SystemTime::now() + Duration::from_secs(60));
        for revoke in 0..2 {
            let mut login = login();
            login.token = TokenHash::of(&revoke.to_string());
            let ticket = hub.issue_ticket(&login).await.unwrap();
            match revoke {
                0 => hub.revoke_token(login.token, end).await.unwrap(),
                _ => hub.revoke_user(&7.into(), SystemTime::now()).await.unwrap(),
            };
            let login = hub.authenticate(&Nobody, &with(ticket.expose())).await.unwrap();
            assert!(hub.is_refused(&login), "as its token");
            assert_eq!(hub.issue_ticket(&login).await, Err(TicketError::Refused));
        }
        let mut ended = Principal::new(8.into(), "other");
        ended.expires_at = Some(SystemTime::now());
        assert_eq!(hub.issue_ticket(&ended).await, Err(TicketError::Refused));
    }

    #[tokio::test]
    async fn each_user_without_a_token_has_tickets() {
        let hub = Hub::builder().start().unwrap();
        let (one, other) = (Principal::new(7.into(), ""), Principal::new(8.into(), ""));
        for _ in 0..60 {
            hub.issue_ticket(&one).await.unwrap();
        }
        assert_eq!(hub.issue_ticket(&one).await, Err(TicketError::TooMany));
        hub.issue_ticket(&other).await.unwrap();
    }

    /// Logins that end elsewhere.
    struct Elsewhere(Mutex<Result<(), AuthError>>);

    impl Authenticator for Elsewhere {
        fn authenticate<'a>(
            &'a self,
            handshake: &'a Handshake,
        ) -> BoxFuture<'a, Result<Principal, AuthError>> {
            Box::pin(async {
                assert_eq!(handshake.token(), Some("token"));
                self.0.lock().unwrap().clone()?;
                Ok(handshake.renews().unwrap().clone())
            })
        }
    }

    #[tokio::test]
    async fn a_login_that_is_checked_again_is_checked_when_its_ticket_is_used() {
        let hub = Hub::builder().start().unwrap();
        let store = Elsewhere(Mutex::new(Ok(())));
        let mut login = login();
        login.credential = Some(Credential::new("token"));
        let ticket = async || with(hub.issue_ticket(&login).await.unwrap().expose());
        assert_eq!(hub.authenticate(&store, &ticket().await).await, Ok(login.clone()));
        for error in [AuthError::Unauthorized("logged out".into()), AuthError::Unavailable("away".into())] {
            let ticket = ticket().await;
            *store.0.lock().unwrap() = Err(error.clone());
            assert_eq!(hub.authenticate(&store, &ticket).await, Err(error));
        }
    }

    #[tokio::test]
    async fn of_many_that_use_a_ticket_at_once_one_gets_in() {
        let hub = Hub::builder().start().unwrap();
        let ticket = with(hub.issue_ticket(&login()).await.unwrap().expose());
        let all = futures_util::future::join_all((0..50).map(|_| hub.authenticate(&Nobody, &ticket))).await;
        assert_eq!(all.iter().filter(|login| login.is_ok()).count(), 1);
        let other = hub.issue_ticket(&login()).await.unwrap();
        let query = format!("ticket={}&clientid=app", other.expose());
        let app = Handshake::new(Transport::new("test"), &query, [], None);
        assert_eq!(app.ticket(), Ok(None), "where tickets are off");
        assert!(hub.authenticate(&Nobody, &app.with_tickets(true)).await.is_err());
    }
}
