//! [`Throttles`]: the throttles of the demo, and their answers.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    time::Duration,
};

use realtime_core::wire::LineLimit;

use crate::{api_error::ApiError, client::Client, throttle::Throttle};

/// Failures that are allowed within a minute.
///
/// Those of an address are used up first: somebody who guesses from one address keeps nobody else from logging in.
const OF_ADDRESS: NonZeroU32 = NonZeroU32::new(10).expect("it is not 0");
const OF_NAME: NonZeroU32 = NonZeroU32::new(30).expect("it is not 0");

/// Limits of wrong passwords and of wrong API keys.
pub(crate) struct Throttles {
    logins: Throttle<Client>,
    /// By the hash of a name, so that long names cost no memory; whether a user has it shows in nothing.
    names: Throttle<u64>,
    hasher: RandomState,
    keys: Throttle<Client>,
    reports: LineLimit,
}

impl Default for Throttles {
    fn default() -> Self {
        Self {
            logins: Throttle::per_minute(OF_ADDRESS),
            names: Throttle::per_minute(OF_NAME),
            hasher: RandomState::new(),
            keys: Throttle::per_minute(OF_ADDRESS),
            reports: LineLimit::new(1, Duration::from_secs(10)),
        }
    }
}

impl Throttles {
    /// Checks that a login may be tried.
    pub(crate) fn check_login(&self, client: &Client, name: &str) -> Result<(), ApiError> {
        let waits = [self.logins.wait(client), self.names.wait(&self.hasher.hash_one(name))];
        waits.into_iter().flatten().max().map_or(Ok(()), |wait| {
            self.report(client, "logins");
            Err(ApiError::too_many("too many wrong passwords", wait))
        })
    }

    /// Counts a wrong password.
    pub(crate) fn wrong_password(&self, client: &Client, name: &str) {
        self.logins.failed(client);
        self.names.failed(&self.hasher.hash_one(name));
    }

    /// The answer to a wrong API key. The right key is always accepted: backends with an old key must not shut out
    /// others that share their address.
    pub(crate) fn wrong_key(&self, client: &Client) -> ApiError {
        let wait = self.keys.wait(client).or_else(|| self.keys.failed(client));
        wait.map_or_else(
            || ApiError::unauthorized("header X-API-Key: wrong key"),
            |wait| {
                self.report(client, "API keys");
                ApiError::too_many("too many wrong keys", wait)
            },
        )
    }

    fn report(&self, client: &Client, what: &str) {
        if let Some(unlogged) = self.reports.next() {
            tracing::warn!(?client, what, unlogged, "wrong logins or keys are throttled");
        }
    }
}
