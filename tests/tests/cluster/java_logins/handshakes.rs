//! A login of a Java node (Sa-Token) is admitted under the rules of the Java nodes, and no other is.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use realtime_core::{
    Principal, Transport, UserId,
    auth::{ClientIdPolicy, Credential, Handshake},
};
use realtime_redis::{RedisConfig, SaTokenAuthenticator};
use realtime_tests::{
    EventStream, JAVA_SECRET, JavaLogins, Payload, Socket,
    conformance::{Logins, authenticator_conforms},
};
use serde_json::{Value, json};

use super::{admits, config, refusal, refusal_of, serve};

#[actix_web::test]
async fn a_login_of_a_java_node_opens_both_transports() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let snowflake = 1_925_000_000_000_000_001;
    for (payload, user) in [
        (Payload::of(1), UserId::from(1)),
        (Payload::of(snowflake), snowflake.into()),
        (Payload { user_id: json!("2"), ..Payload::of(2) }, 2.into()),
    ] {
        let token = java.keep(&payload);
        let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
        let mut stream = EventStream::open(&server, &token, None).await.unwrap();
        let sessions = server.hub.sessions(&user);
        let mut expected = Principal::new(user.clone(), &token);
        expected.client_id = Some("web".into());
        expected.credential = Some(Credential::new(&token));
        assert_eq!(sessions.len(), 2);
        assert!(sessions.iter().all(|session| *session.principal() == expected));
        server.sockets.send_message(user.clone(), "to a socket").unwrap();
        server.emitters.send_message(user, "to a stream").unwrap();
        assert_eq!((socket.text().await, stream.data().await), ("to a socket".into(), "to a stream".into()));
    }
}

#[actix_web::test]
async fn a_token_that_was_not_signed_by_a_java_node_is_refused() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let payload = Payload::of(1);
    let good = payload.sign();
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    assert_eq!(header, "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9", "the header that Java writes");
    // {"alg":"none"}, in two forms
    let none = format!("eyJhbGciOiJub25lIn0.{body}.");
    let none_signed = format!("eyJhbGciOiJub25lIn0.{body}.{signature}");
    for (token, problem) in [
        (payload.sign_with(Algorithm::HS256, "another secret"), "token signature is wrong"),
        (payload.sign_with(Algorithm::HS512, JAVA_SECRET), "token algorithm is not HS256"),
        (payload.sign_with(Algorithm::HS384, JAVA_SECRET), "token algorithm is not HS256"),
        (none, "token algorithm is not HS256"),
        (none_signed, "token algorithm is not HS256"),
        (format!("{header}.{body}"), "token is malformed"),
        ("abc".to_owned(), "token is malformed"),
        (String::new(), "Authorization is missing"),
    ] {
        // Redis knows them all, so it is the signature that counts.
        java.set_login(&token, "sys_user:1");
        java.set_last_active(&token, "1");
        assert_eq!(refusal_of(&server, &token).await, problem, "{token}");
    }
    for (payload, problem) in [
        (Payload { login_type: "app".into(), ..payload.clone() }, "token is of another login type"),
        (Payload { user_id: Value::Null, ..payload.clone() }, "token claims cannot be read"),
        (Payload { user_id: json!("a b"), ..payload }, "token claims cannot be read"),
    ] {
        assert_eq!(refusal_of(&server, &java.keep(&payload)).await, problem);
    }
}

#[actix_web::test]
async fn redis_decides_about_a_login() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let login = |change: &dyn Fn(&str)| {
        let token = java.login(1);
        change(&token);
        token
    };
    let mut messages = Vec::new();
    for (token, problem) in [
        (Payload::of(1).sign(), "token is unknown"),
        (login(&|token| java.log_out(token)), "token is unknown"),
        (login(&|token| java.kick_out(token)), "token was kicked out"),
        (login(&|token| java.replace(token)), "token was replaced"),
        (login(&|token| java.set_login(token, "-3")), "token has expired"),
        (login(&|token| java.set_login(token, "-6")), "token is frozen"),
        (login(&|token| java.set_login(token, "-2")), "token is marked as invalid (-2)"),
        (login(&|token| java.set_login(token, "sys_user:2")), "token is another login's"),
        (
            login(&|token| drop(java.redis.cli(&["DEL", &java.last_active_key(token)]))),
            "token is frozen: its",
        ),
        (login(&|token| java.freeze(token)), "token is frozen: it was inactive"),
        (login(&|token| java.set_last_active(token, "?")), "token's last activity cannot be read"),
    ] {
        let message = refusal_of(&server, &token).await;
        assert!(message.starts_with(problem), "{message} for {problem}");
        messages.push(message);
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 10, "each kind has words of its own");

    for unlimited in ["1,-1", "1"] {
        let token = login(&|token| java.set_last_active(token, unlimited));
        admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    }
}

#[actix_web::test]
async fn a_parameter_hides_the_header_and_both_need_the_prefix() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let token = java.login(1);
    let good: &[(&str, &str)] = &[("Authorization", &format!("Bearer {token}"))];
    admits(&server, "", good).await;
    admits(&server, "Authorization=", good).await;
    admits(&server, &format!("Authorization=Bearer+{token}"), &[("Authorization", "Bearer x")]).await;

    let no_prefix = "token has no Bearer prefix";
    for query in [token.clone(), format!("bearer%20{token}"), format!("Bearer{token}"), "null".into()] {
        assert_eq!(refusal(&server, &format!("Authorization={query}"), good).await, no_prefix, "{query}");
    }
    for header in [token.clone(), format!("bearer {token}"), format!("Basic {token}")] {
        assert_eq!(refusal(&server, "", &[("Authorization", &header)]).await, no_prefix, "{header}");
    }
    let two_spaces = format!("Bearer  {token}");
    assert_eq!(refusal(&server, "", &[("Authorization", &two_spaces)]).await, "token is malformed");
    assert_eq!(refusal(&server, "", &[]).await, "Authorization is missing");
}

#[actix_web::test]
async fn the_client_id_is_the_tokens() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let query = format!("Authorization=Bearer%20{}", java.login(1));
    let (web, app): (&[_], &[_]) = (&[("clientid", "web")], &[("clientid", "app")]);
    let mismatch = "clientid does not match the token";
    admits(&server, &query, &[]).await;
    admits(&server, &query, web).await;
    admits(&server, &format!("{query}&clientid=web"), &[]).await;
    admits(&server, &format!("{query}&clientid=web"), app).await;
    assert_eq!(refusal(&server, &query, app).await, mismatch);
    assert_eq!(refusal(&server, &format!("{query}&clientid=app"), &[]).await, mismatch);

    let (strict, _) = serve(config(&java.redis).client_id(ClientIdPolicy::Required));
    admits(&strict, &query, web).await;
    assert_eq!(refusal(&strict, &query, &[]).await, "clientid is missing");
}

#[actix_web::test]
async fn keys_are_found_under_the_prefixes_of_the_java_nodes_and_nowhere_else() {
    let mut java = JavaLogins::start().await;
    let all = [("", true, "global:"), ("", false, ""), ("ry", true, "ry:global:"), ("ry", false, "ry:")];
    for (key_prefix, global_prefix, written) in all {
        let redis = RedisConfig::single(java.redis.url()).key_prefix(key_prefix);
        let (server, _) = serve(config(&java.redis).redis(redis).global_prefix(global_prefix));
        for (.., prefix) in all {
            java.prefix(prefix);
            let token = java.login(1);
            if prefix == written {
                admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
            } else {
                assert!(refusal_of(&server, &token).await.starts_with("token is unknown"));
            }
        }
    }
}

#[actix_web::test]
async fn a_token_with_a_header_that_changes_its_meaning_is_refused() {
    let java = JavaLogins::start().await;
    let (server, _) = serve(config(&java.redis));
    let payload = Payload::of(1);
    let key = jsonwebtoken::EncodingKey::from_secret(JAVA_SECRET.as_bytes());
    let header = |change: &dyn Fn(&mut jsonwebtoken::Header)| {
        let mut header = jsonwebtoken::Header::default();
        change(&mut header);
        header
    };
    for header in [
        header(&|header| header.crit = Some(vec!["exp".into()])),
        header(&|header| header.crit = Some(Vec::new())),
        header(&|header| header.extras.insert("b64", false)),
    ] {
        let token = jsonwebtoken::encode(&header, &payload, &key).unwrap();
        java.set_login(&token, &payload.login_id);
        java.set_last_active(&token, "1");
        assert_eq!(refusal_of(&server, &token).await, "token header requires an unsupported extension");
    }
}

#[actix_web::test]
async fn a_renewal_writes_what_java_would_and_keeps_the_time_to_live() {
    let java = JavaLogins::start().await;
    let millis = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let (reader, _) = serve(config(&java.redis));
    let (writer, _) = serve(config(&java.redis).renew(true));
    for limit in [",1800", ",-1", ""] {
        let token = java.login(1);
        let (key, query) = (java.last_active_key(&token), format!("Authorization=Bearer%20{token}"));
        let old = millis() - 60_000;
        java.set_last_active(&token, &format!("{old}{limit}"));
        java.redis.cli(&["EXPIRE", &key, "1000"]);

        admits(&reader, &query, &[]).await;
        assert_eq!(java.redis.cli(&["GET", &key]), format!("\"{old}{limit}\""), "nothing is written unasked");

        let before = millis();
        admits(&writer, &query, &[]).await;
        let value = java.redis.cli(&["GET", &key]);
        let renewed = value.strip_prefix('"').and_then(|rest| rest.strip_suffix(&format!("{limit}\"")));
        let renewed: u128 = renewed.unwrap_or_else(|| panic!("{value}")).parse().unwrap();
        assert!((before..=millis()).contains(&renewed), "{value}");
        let left: u64 = java.redis.cli(&["TTL", &key]).parse().unwrap();
        assert!((900..=1000).contains(&left), "{left} s to live");
    }
    let unlimited = java.login(1);
    java.redis.cli(&["PERSIST", &java.last_active_key(&unlimited)]);
    admits(&writer, &format!("Authorization=Bearer%20{unlimited}"), &[]).await;
    assert_eq!(java.redis.cli(&["TTL", &java.last_active_key(&unlimited)]), "-1");
}

#[actix_web::test]
async fn the_authenticator_of_java_logins_conforms() {
    let java = JavaLogins::start().await;
    let authenticator = SaTokenAuthenticator::new(config(&java.redis)).unwrap();
    let handshake =
        |query: &str| Handshake::new(Transport::new("sse"), query, [] as [(&str, &[u8]); 0], None);
    let login = |token: &str| handshake(&format!("clientid=web&Authorization=Bearer%20{token}"));
    let forged = Payload::of(1).sign_with(Algorithm::HS256, "another secret");
    let logins = Logins::new()
        .accepted(login(&java.login(1)), 1)
        .accepted(login(&java.login(1_925_000_000_000_000_001)), 1_925_000_000_000_000_001_i64)
        .refused(handshake(""))
        .refused(login("abc"))
        .refused(login(&forged))
        .refused(login(&Payload::of(1).sign()));
    authenticator_conforms(&authenticator, &logins).await;
}
