//! The suite for [`TicketStore`].

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::{check, until, within};
use crate::{
    Principal, Topic,
    auth::{TicketKey, TicketStore, TopicPattern},
};

const WHOLE: &str = "a ticket's login is the one that it was made for, on any node";
const ONCE: &str = "of all calls for a key, on all nodes, at most one gets the login";
const UNKNOWN: &str = "a key that was not put has no login";
const ENDS: &str = "no call gets a login after its time";
const ANSWERS: &str = "an answer comes within a bounded time";

/// Tests a store of tickets against [its contract](TicketStore). Each call of `node` gives another node's handle of the
/// same store.
///
/// # Panics
/// With the clause that is broken.
pub async fn tickets_conform<S: TicketStore>(node: impl Fn() -> S) {
    let (one, other) = (node(), node());
    let key = || TicketKey::of(&format!("{:032x}", rand::random::<u128>()));
    let put = async |key, login: &Principal, ttl| {
        let put = within(ANSWERS, "a put", one.put(key, login.clone(), ttl)).await;
        check(ANSWERS, put.is_ok(), || format!("{put:?}"));
    };
    let take = async |store: &S, key| {
        let taken = within(ANSWERS, "a take", store.take(key)).await;
        check(ANSWERS, taken.is_ok(), || format!("{taken:?}"));
        taken.ok().flatten()
    };
    let minute = Duration::from_secs(60);
    for login in [Principal::new(7.into(), "a token"), full()] {
        let key = key();
        put(key, &login, minute).await;
        let taken = take(&other, key).await;
        check(WHOLE, taken.as_ref() == Some(&login), || format!("{taken:?} instead of {login:?}"));
        for store in [&one, &other] {
            check(ONCE, take(store, key).await.is_none(), || "it was taken a second time".to_owned());
        }
    }
    check(UNKNOWN, take(&one, key()).await.is_none(), || "it has one".to_owned());
    let many = key();
    put(many, &full(), minute).await;
    let all = (0..20).map(|n| take(if n % 2 == 0 { &one } else { &other }, many));
    let taken = join_all(all).await.into_iter().flatten().count();
    check(ONCE, taken == 1, || format!("{taken} of 20 calls at once have got it"));
    let (short, witness) = (key(), key());
    put(short, &full(), Duration::from_millis(50)).await;
    put(witness, &full(), minute).await;
    let begin = tokio::time::Instant::now();
    until(ENDS, "the end of a ticket", async || begin.elapsed() > Duration::from_millis(200)).await;
    check(ENDS, take(&other, short).await.is_none(), || "it was taken after its time".to_owned());
    check(ENDS, take(&other, witness).await.is_some(), || "another one has ended with it".to_owned());
}

/// A login with everything that is sent to other nodes.
fn full() -> Principal {
    let mut login = Principal::new("shop-7".parse().expect("a user id"), "another token");
    login.client_id = Some("web".into());
    login.issued_at = Some(SystemTime::now());
    login.expires_at = SystemTime::now().checked_add(Duration::from_secs(3600));
    login.topics.extend(Topic::new("role:buyer"));
    login.grants.extend(TopicPattern::new("order:*"));
    login
}
