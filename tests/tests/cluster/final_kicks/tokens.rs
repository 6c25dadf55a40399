//! After a kick no node admits the tokens of the sessions that it ended; other logins are not affected.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use realtime_core::{CloseReason, Hub, Principal};
use realtime_sse::SseEmitters;
use realtime_tests::Redis;

use super::{is_kicked, node, open};

#[actix_web::test]
async fn a_kick_refuses_the_tokens_of_closing_sessions_too() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let leaving = open(&a, 1, "t").unwrap();
    leaving.handle().close(CloseReason::NoPong);
    assert_eq!(b.kick(&1.into()).await.unwrap().closed, 0);
    for hub in [&a, &b] {
        open(hub, 1, "t").expect_err("the client was told to come back, and then kicked");
    }
    let alone = Hub::builder().start().unwrap();
    let leaving = open(&alone, 1, "t").unwrap();
    leaving.handle().close(CloseReason::NoPong);
    assert_eq!(alone.kick(&1.into()).await.unwrap().closed, 0);
    open(&alone, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn a_connection_to_another_node_during_a_kick_ends() {
    const ROUNDS: usize = 30;
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let mut kept = 0;
    for round in 0..ROUNDS {
        let token = format!("token {round}");
        let first = open(&a, 1, &token).unwrap();
        let handle = first.handle();
        let dial = async {
            while handle.closing().is_none() {
                tokio::task::yield_now().await;
            }
            drop(first);
            open(&b, 1, &token)
        };
        let user = 1.into();
        let (outcome, second) = tokio::join!(a.kick(&user), dial);
        assert_eq!(outcome.unwrap().unconfirmed, [] as [&str; 0]);
        // Once the kick is confirmed, no further waiting is needed.
        kept += usize::from(second.is_ok_and(|second| !is_kicked(&second)));
        open(&b, 1, &token).unwrap_err();
    }
    assert_eq!(kept, 0, "of {ROUNDS}");
}

#[actix_web::test]
async fn without_a_token_of_its_own_only_the_kicked_users_sessions_end() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    for token in ["", "the same for all"] {
        let (one, two) = (open(&a, 1, token).unwrap(), open(&b, 2, token).unwrap());
        assert_eq!(a.kick(&1.into()).await.unwrap().closed, 1);
        assert!(is_kicked(&one) && !is_kicked(&two));
        for hub in [&a, &b] {
            open(hub, 3, token).expect("who was not kicked is let in");
            // Without a token nothing is refused.
            assert_eq!(open(hub, 1, token).is_ok(), token.is_empty(), "{token:?}");
        }
    }
}

#[actix_web::test]
async fn every_session_of_a_kicked_sessions_token_ends() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (tab, other_tab) = (open(&a, 1, "t").unwrap(), open(&a, 1, "t").unwrap());
    let (elsewhere, other_login) = (open(&b, 1, "t").unwrap(), open(&b, 1, "another").unwrap());
    let id = tab.handle().id();
    let outcome = b.kick_session(&1.into(), id).await.unwrap();
    assert_eq!((outcome.closed, outcome.unconfirmed), (3, vec![]));
    assert!([&tab, &other_tab, &elsewhere].into_iter().all(is_kicked));
    assert!(!is_kicked(&other_login));
    for hub in [&a, &b] {
        open(hub, 1, "t").unwrap_err();
    }
}

#[actix_web::test]
async fn a_login_of_the_revocations_second_is_taken_on_every_node() {
    let redis = Redis::start().await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let revoked = at(second) + Duration::from_millis(700);
    a.revoke_user(&1.into(), revoked).await.unwrap();
    let alone = Hub::builder().start().unwrap();
    alone.revoke_user(&1.into(), revoked).await.unwrap();
    for hub in [&a, &b, &alone] {
        let open = |issued_at| {
            let mut principal = Principal::new(1.into(), "t");
            principal.issued_at = Some(issued_at);
            SseEmitters::new(hub.clone()).open(principal, None)
        };
        open(at(second)).expect("signed right after the revocation, in whole seconds");
        open(at(second - 1)).expect_err("signed before");
    }
}

#[actix_web::test]
async fn receipts_do_not_stay() {
    let redis = Redis::start().await;
    let a = Arc::new(node(&redis, "a").await);
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    let keys = redis.cli(&["keys", "{rt/control}:receipts:*"]);
    assert!(!keys.is_empty());
    for key in keys.lines() {
        assert_ne!(redis.cli(&["ttl", key]), "-1", "{key}");
    }
}
