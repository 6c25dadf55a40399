//! Tests of public keys: the choice of a key, and its rotation.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use futures_core::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKeyKind};
use serde_json::json;
use tokio::time::{advance, sleep};

use super::{
    test_keys::{
        ED25519, ED25519_PUBLIC, OTHER_RSA, OTHER_RSA_PUBLIC, P256, P256_PUBLIC, P384, P384_PUBLIC, RSA,
        RSA_PUBLIC, jwk, now, set, sign, sign_claims,
    },
    *,
};
use crate::{
    Transport, UserId,
    auth::token_hash::{P256_ORDER, P384_ORDER, difference},
};

const SECRET: &str = "a secret of at least 32 bytes ....";

fn key(pem: &str) -> JwtKey {
    JwtKey::from_pem(pem).unwrap()
}

fn refused(result: Result<Principal, AuthError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.status(), 401, "{error}");
    error.to_string()
}

fn handshake(token: &str) -> Handshake {
    let bearer = format!("Bearer {token}");
    Handshake::new(Transport::new("test"), "", [("authorization", bearer.as_bytes())], None)
}

#[test]
fn tokens_of_each_algorithm_are_verified_with_the_public_key() {
    for (algorithm, private, public) in [
        (Algorithm::RS256, RSA, RSA_PUBLIC),
        (Algorithm::RS384, RSA, RSA_PUBLIC),
        (Algorithm::RS512, RSA, RSA_PUBLIC),
        (Algorithm::PS256, RSA, RSA_PUBLIC),
        (Algorithm::PS384, RSA, RSA_PUBLIC),
        (Algorithm::PS512, RSA, RSA_PUBLIC),
        (Algorithm::ES256, P256, P256_PUBLIC),
        (Algorithm::ES384, P384, P384_PUBLIC),
        (Algorithm::EdDSA, ED25519, ED25519_PUBLIC),
    ] {
        let jwt = JwtAuthenticator::with_keys([key(public)]);
        let token = sign(algorithm, private, None);
        assert_eq!(jwt.verify(&token).unwrap().user, UserId::from(7), "{algorithm:?}");
        assert_eq!(jwt.verify(&token).unwrap().token, TokenHash::of(&token), "cached");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        assert!(refused(jwt.verify(&format!("{head}.{other}{}", &signature[1..]))).contains("signature"));
        refused(jwt.verify(&format!("{head}.")));
        assert!(matches!(jwt.sign(&Claims::new(7, now() + 60)), Err(SignError::NoSecret)));
    }
}

#[test]
fn both_signatures_of_an_ecdsa_token_are_one_login() {
    for (algorithm, private, public, order) in [
        (Algorithm::ES256, P256, P256_PUBLIC, &P256_ORDER[..]),
        (Algorithm::ES384, P384, P384_PUBLIC, &P384_ORDER),
    ] {
        // Of several, some have the larger signature.
        for _ in 0..8 {
            let token = sign(algorithm, private, None);
            let (message, signature) = token.rsplit_once('.').unwrap();
            let mut signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            let s = &mut signature[order.len()..];
            s.copy_from_slice(&difference(order, s));
            let other = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(&signature));
            assert_ne!(token, other);
            let logins = [&token, &other]
                .map(|token| JwtAuthenticator::with_keys([key(public)]).verify(token).unwrap().token);
            assert_eq!(logins, [TokenHash::of(&other), TokenHash::of(&token)]);
            assert_eq!(logins[0], logins[1], "{algorithm:?}");
        }
    }
}

#[test]
fn an_rsa_signature_is_not_accepted_with_the_modulus_added() {
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512] {
        let jwt = JwtAuthenticator::with_keys([key(RSA_PUBLIC)]);
        let DecodingKeyKind::RsaModulusExponent { n, .. } = jwt.fixed.keys()[0].decoding().kind() else {
            panic!("no RSA key")
        };
        // Not every signature has room for it.
        let (token, other) = (0..)
            .find_map(|user| {
                let token = sign_claims(algorithm, RSA, None, json!({ "sub": user }));
                let (message, signature) = token.rsplit_once('.').unwrap();
                let sum = sum(&BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap(), n)?;
                let other = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(&sum));
                Some((token, other))
            })
            .unwrap();
        assert!(refused(jwt.verify(&other)).contains("signature"), "{algorithm:?}");
        jwt.verify(&token).unwrap();
        assert!(refused(jwt.verify(&other)).contains("signature"), "{algorithm:?}, with a known header");
    }
}

/// The sum of two big-endian numbers of the same length, unless it is longer.
fn sum(one: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    let mut carry = 0;
    let mut sum = Vec::new();
    for (one, other) in one.iter().zip(other).rev() {
        let [high, low] = (u16::from(*one) + u16::from(*other) + carry).to_be_bytes();
        carry = high.into();
        sum.push(low);
    }
    sum.reverse();
    (carry == 0).then_some(sum)
}

#[test]
fn a_public_key_is_no_secret_and_no_token_chooses_how_a_key_is_used() {
    let jwt = JwtAuthenticator::with_keys([key(RSA_PUBLIC).id("a"), key(P256_PUBLIC)]);
    let pkcs1 = include_str!("../../../tests/keys/rsa.pkcs1.pub.pem");
    for text in [RSA_PUBLIC, RSA_PUBLIC.trim(), pkcs1, P256_PUBLIC, P256_PUBLIC.trim()] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            for kid in [None, Some("a"), Some("b")] {
                assert!(refused(jwt.verify(&sign(algorithm, text, kid))).contains("algorithm"));
            }
        }
    }
    // {"alg":"none"} . {"sub":1,"exp":9999999999} . nothing; and the same as `NONE`, `None`
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0", "eyJhbGciOiJOb25lIn0"] {
        refused(jwt.verify(&format!("{header}.eyJzdWIiOjEsImV4cCI6OTk5OTk5OTk5OX0.")));
    }
    // Beside a secret, each key keeps to its own.
    let both = JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap().keys([key(RSA_PUBLIC)]);
    both.verify(&sign(Algorithm::HS256, SECRET, None)).unwrap();
    both.verify(&sign(Algorithm::RS256, RSA, None)).unwrap();
    assert!(refused(both.verify(&sign(Algorithm::HS256, RSA_PUBLIC, None))).contains("signature"));
    assert!(refused(both.verify(&sign(Algorithm::HS512, SECRET, None))).contains("algorithm"));
    let only = JwtAuthenticator::with_keys([key(RSA_PUBLIC).only([PublicKeyAlgorithm::Rs256]).unwrap()]);
    assert!(refused(only.verify(&sign(Algorithm::RS512, RSA, None))).contains("algorithm"));
}

#[test]
fn a_kid_names_the_key_and_only_keys_without_one_take_other_tokens() {
    let jwt = JwtAuthenticator::with_keys([key(RSA_PUBLIC).id("a"), key(OTHER_RSA_PUBLIC).id("b")]);
    for (private, kid, accepted) in [
        (RSA, Some("a"), true),
        (OTHER_RSA, Some("b"), true),
        (RSA, Some("b"), false),
        (RSA, Some("c"), false),
        (RSA, Some(""), false),
        (RSA, None, true),
        (OTHER_RSA, None, true),
    ] {
        let token = sign(Algorithm::RS256, private, kid);
        assert_eq!(jwt.verify(&token).is_ok(), accepted, "{kid:?}");
    }
    let nameless = JwtAuthenticator::with_keys([key(RSA_PUBLIC).id("a"), key(OTHER_RSA_PUBLIC)]);
    nameless.verify(&sign(Algorithm::RS256, OTHER_RSA, Some("c"))).unwrap();
    refused(nameless.verify(&sign(Algorithm::RS256, OTHER_RSA, Some("a"))));
    refused(nameless.verify(&sign(Algorithm::RS256, RSA, Some("c"))));
    let many = JwtAuthenticator::with_keys(vec![key(P256_PUBLIC); MAX_CANDIDATES + 1]);
    assert!(refused(many.verify(&sign(Algorithm::ES256, P256, None))).contains("none of the keys"));
}

#[test]
fn tokens_of_another_issuer_or_audience_are_refused() {
    let jwt = JwtAuthenticator::with_keys([key(P256_PUBLIC)]).issuer("https://id").audience("push");
    let token =
        |iss, aud| sign_claims(Algorithm::ES256, P256, None, json!({ "sub": 7, "iss": iss, "aud": aud }));
    jwt.verify(&token(json!("https://id"), json!("push"))).unwrap();
    jwt.verify(&token(json!("https://id"), json!(["shop", "push"]))).unwrap();
    for (iss, aud, problem) in [
        (json!("https://id/"), json!("push"), "issuer"),
        (json!(["https://id"]), json!("push"), "issuer"),
        (json!(null), json!("push"), "issuer"),
        (json!("https://id"), json!("shop"), "audience"),
        (json!("https://id"), json!([]), "audience"),
        (json!("https://id"), json!(null), "audience"),
        (json!("https://id"), json!({ "push": 1 }), "audience"),
    ] {
        let token = token(iss, aud);
        assert!(refused(jwt.verify(&token)).contains(problem));
        assert!(refused(jwt.verify(&token)).contains(problem), "it is not cached either");
    }
}

#[tokio::test]
async fn authenticators_with_the_same_keys_each_accept_their_own_issuer_and_audience() {
    let source = Set::default();
    source.put(of(&[("a", P256)]));
    let keys = RotatingKeys::builder(source).start();
    keys.settled().await;
    let fixed = JwtAuthenticator::with_keys([key(RSA_PUBLIC)]).rotating(keys);
    let token = |algorithm, pem, kid| {
        sign_claims(algorithm, pem, kid, json!({ "sub": 7, "iss": "https://id", "aud": "shop" }))
    };
    for token in [token(Algorithm::RS256, RSA, None), token(Algorithm::ES256, P256, Some("a"))] {
        for jwt in [fixed.clone(), fixed.clone().audience("shop"), fixed.clone().issuer("https://id")] {
            for _ in 0..2 {
                jwt.verify(&token).unwrap();
            }
        }
        assert!(refused(fixed.clone().audience("admin").verify(&token)).contains("audience"));
        assert!(refused(fixed.clone().issuer("https://other").verify(&token)).contains("issuer"));
    }
}

/// A set that tests change.
#[derive(Debug, Clone, Default)]
struct Set(Arc<SetState>);

#[derive(Debug, Default)]
struct SetState {
    json: Mutex<Option<String>>,
    reads: AtomicUsize,
    slow: Mutex<Duration>,
}

impl Set {
    fn put(&self, json: Option<String>) {
        *self.0.json.lock().unwrap() = json;
    }

    fn reads(&self) -> usize {
        self.0.reads.load(Ordering::Relaxed)
    }
}

impl JwkSource for Set {
    fn read(&self) -> BoxFuture<'_, Result<String, JwkSourceError>> {
        Box::pin(async {
            self.0.reads.fetch_add(1, Ordering::Relaxed);
            let slow = *self.0.slow.lock().unwrap();
            sleep(slow).await;
            let json = self.0.json.lock().unwrap().clone();
            json.ok_or_else(|| JwkSourceError("connection refused".to_owned()))
        })
    }
}

/// A set that panics when it is read for the first time.
#[derive(Debug)]
struct Panicking(Set);

impl JwkSource for Panicking {
    fn read(&self) -> BoxFuture<'_, Result<String, JwkSourceError>> {
        assert!(self.0.0.reads.fetch_add(1, Ordering::Relaxed) > 0, "a source that panics");
        self.0.read()
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_read_again() {
    let source = Set::default();
    source.put(of(&[("a", P256)]));
    let keys = RotatingKeys::builder(Panicking(source)).start();
    let jwt = JwtAuthenticator::with_keys([]).rotating(keys.clone());
    let asked = tokio::time::Instant::now();
    assert_eq!(jwt.authenticate(&token("a")).await.unwrap_err().status(), 503, "it could not be read");
    assert!(asked.elapsed() < Duration::from_secs(1), "nobody waits for it");
    sleep(MINUTE).await;
    jwt.authenticate(&token("a")).await.unwrap();
    jwt.authenticate(&token("b")).await.unwrap_err();
}

fn of(keys: &[(&str, &str)]) -> Option<String> {
    let key = |(kid, pem): &(&str, &str)| jwk(Algorithm::ES256, pem, &json!({ "kid": kid }));
    Some(set(&keys.iter().map(key).collect::<Vec<_>>()))
}

fn token(kid: &str) -> Handshake {
    handshake(&sign(Algorithm::ES256, P256, Some(kid)))
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn tokens_without_a_kid_are_compared_with_each_new_set_whichever_key_was_right_before() {
    let source = Set::default();
    source.put(Some(set(&[])));
    let keys = RotatingKeys::builder(source.clone()).interval(MINUTE).start();
    let jwt = JwtAuthenticator::with_keys([key(RSA_PUBLIC)]).rotating(keys.clone());
    let (fixed, rotating) = (sign(Algorithm::RS256, RSA, None), sign(Algorithm::RS256, OTHER_RSA, None));
    keys.settled().await;
    jwt.verify(&fixed).unwrap();
    assert!(refused(jwt.verify(&rotating)).contains("signature"));
    source.put(Some(set(&[jwk(Algorithm::RS256, OTHER_RSA, &json!({}))])));
    sleep(MINUTE + Duration::from_secs(1)).await;
    jwt.verify(&rotating).unwrap();
    jwt.verify(&fixed).unwrap();
    source.put(Some(set(&[])));
    sleep(MINUTE + Duration::from_secs(1)).await;
    assert!(refused(jwt.verify(&rotating)).contains("signature"));
}

#[tokio::test(start_paused = true)]
async fn tokens_without_a_kid_wait_for_the_first_set() {
    let source = Set::default();
    let keys = RotatingKeys::builder(source.clone()).interval(60 * MINUTE).start();
    let jwt = JwtAuthenticator::with_keys([key(RSA_PUBLIC)]).rotating(keys.clone());
    let (fixed, rotating) =
        (handshake(&sign(Algorithm::RS256, RSA, None)), handshake(&sign(Algorithm::ES256, P256, None)));
    jwt.authenticate(&fixed).await.unwrap();
    assert_eq!(source.reads(), 0, "the fixed key is right");
    assert_eq!(jwt.authenticate(&rotating).await.unwrap_err().status(), 503, "there is no set");
    let stranger = handshake(&sign(Algorithm::RS256, OTHER_RSA, None));
    assert_eq!(jwt.authenticate(&stranger).await.unwrap_err().status(), 503, "the set may have its key");
    *source.0.slow.lock().unwrap() = Duration::from_secs(2);
    source.put(of(&[("a", P256)]));
    advance(keys.cooldown()).await;
    jwt.authenticate(&rotating).await.unwrap();
    assert_eq!(jwt.authenticate(&stranger).await.unwrap_err().status(), 401);
    source.put(None);
    sleep(61 * MINUTE).await;
    jwt.authenticate(&rotating).await.unwrap();
    assert_eq!(
        jwt.authenticate(&stranger).await.unwrap_err().status(),
        401,
        "the keys of the last time hold"
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_admits_no_further_login_and_a_new_one_does_at_once() {
    let source = Set::default();
    source.put(of(&[("a", P256)]));
    let keys = RotatingKeys::builder(source.clone()).interval(MINUTE).start();
    let jwt = JwtAuthenticator::with_keys([]).rotating(keys.clone());
    let (a, b) = (token("a"), token("b"));
    // The first handshake waits for the set.
    jwt.authenticate(&a).await.unwrap();
    assert_eq!(keys.ids(), ["a"]);
    assert_eq!(source.reads(), 1);
    source.put(of(&[("b", P256)]));
    jwt.authenticate(&a).await.unwrap();
    advance(Duration::from_secs(11)).await;
    jwt.authenticate(&b).await.unwrap();
    assert_eq!((source.reads(), keys.ids()), (2, vec!["b".to_owned()]));
    assert_eq!(jwt.authenticate(&a).await.unwrap_err().status(), 401, "it was cached");
    // Without a question, the interval finds it.
    source.put(of(&[]));
    jwt.authenticate(&b).await.unwrap();
    sleep(MINUTE + Duration::from_secs(1)).await;
    assert_eq!(jwt.authenticate(&b).await.unwrap_err().status(), 401);
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_cause_few_reads_and_one_for_many_handshakes() {
    let source = Set::default();
    source.put(of(&[("a", P256)]));
    let keys = RotatingKeys::builder(source.clone()).interval(60 * MINUTE).start();
    let jwt = JwtAuthenticator::with_keys([]).rotating(keys.clone());
    keys.settled().await;
    for n in 0..50 {
        assert_eq!(jwt.authenticate(&token(&format!("made up {n}"))).await.unwrap_err().status(), 401);
    }
    assert_eq!(source.reads(), 1, "the set has just been read");
    advance(keys.cooldown()).await;
    *source.0.slow.lock().unwrap() = Duration::from_secs(2);
    let all: Vec<_> = (0..50).map(|n| token(&n.to_string())).collect();
    let asked = futures_util::future::join_all(all.iter().map(|one| jwt.authenticate(one))).await;
    assert!(asked.iter().all(|answer| answer.as_ref().unwrap_err().status() == 401));
    assert_eq!(source.reads(), 2);
    // No permit is left that would have it read again.
    sleep(10 * keys.cooldown()).await;
    assert_eq!(source.reads(), 2);
    jwt.authenticate(&token("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_while_their_source_is_down_and_unknown_ones_may_come_back() {
    let source = Set::default();
    let keys = RotatingKeys::builder(source.clone()).interval(MINUTE).start();
    let jwt = JwtAuthenticator::with_keys([]).rotating(keys.clone());
    assert_eq!(jwt.authenticate(&token("a")).await.unwrap_err().status(), 503, "not known yet");
    source.put(of(&[("a", P256)]));
    sleep(Duration::from_secs(20)).await;
    jwt.authenticate(&token("a")).await.unwrap();
    for broken in [None, Some("<html>".to_owned()), Some("{}".to_owned())] {
        source.put(broken);
        let before = source.reads();
        sleep(3 * MINUTE).await;
        assert!(source.reads() > before);
        jwt.authenticate(&token("a")).await.unwrap();
        assert_eq!(jwt.authenticate(&token("b")).await.unwrap_err().status(), 503);
    }
    // A source that does not answer is one that is down.
    *source.0.slow.lock().unwrap() = 60 * MINUTE;
    sleep(3 * MINUTE).await;
    jwt.authenticate(&token("a")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_reading() {
    let source = Set::default();
    let keys = RotatingKeys::builder(source.clone()).interval(MINUTE).start();
    keys.settled().await;
    drop(keys);
    let reads = source.reads();
    sleep(10 * MINUTE).await;
    assert_eq!(source.reads(), reads);
}
