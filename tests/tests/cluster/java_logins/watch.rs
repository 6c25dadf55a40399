//! A session ends soon after its login at the Java nodes has ended, and no other session does.

use std::{
    io::Read,
    net::TcpListener,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use realtime_core::{CloseReason, Principal, UserId, auth::Credential};
use realtime_redis::{SaTokenConfig, SaTokenStyle};
use realtime_tests::{Demo, EventStream, JAVA_SECRET, JavaLogins, Payload, Redis, Server, Socket, within};
use serde_json::json;
use tokio::time::sleep;

use super::{PERIOD, admits, config, look_ups, refusal, refusal_of, rounds, serve};

#[actix_web::test]
async fn an_installation_without_an_activity_check_has_no_such_keys_and_needs_none() {
    let java = JavaLogins::start().await;
    let dynamic_active_timeout = false;
    let (server, authenticator) =
        serve(config(&java.redis).dynamic_active_timeout(dynamic_active_timeout).renew(true));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let token = java.login(1);
    java.redis.cli(&["DEL", &java.last_active_key(&token)]);
    admits(&server, &format!("Authorization=Bearer%20{token}"), &[]).await;
    let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
    rounds(&java.redis, 2).await;
    server.sockets.send_message(1, "still here").unwrap();
    assert_eq!(socket.text().await, "still here");
    assert_eq!(java.redis.cli(&["EXISTS", &java.last_active_key(&token)]), "0", "nothing is written");
    // The kind of the login's end counts in this case too.
    java.kick_out(&token);
    assert_eq!(socket.close_code().await, 4409);
}

#[actix_web::test]
async fn a_limit_for_all_logins_is_honoured() {
    let java = JavaLogins::start().await;
    let active_timeout = Some(Duration::from_secs(1800));
    let millis = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    for dynamic_active_timeout in [false, true] {
        let (server, authenticator) = serve(
            config(&java.redis).active_timeout(active_timeout).dynamic_active_timeout(dynamic_active_timeout),
        );
        let _watch = authenticator.watch(server.hub.clone(), PERIOD);
        let token = java.login(1);
        // As Java writes it for a login without a limit of its own.
        java.set_last_active(&token, &(millis() - 1_700_000).to_string());
        let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
        java.set_last_active(&token, &(millis() - 1_802_000).to_string());
        assert_eq!(socket.close_code().await, 4401);
        assert_eq!(refusal_of(&server, &token).await, "token is frozen: it was inactive for too long");
    }
}

#[actix_web::test]
async fn a_refreshed_session_ends_with_its_new_login_and_not_with_the_former_one() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let (old, new) = (java.login(1), java.login(1));
    let mut socket = Socket::open(&server, &old, &["realtime.v1"], None).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    let refresh = async |socket: &mut Socket, token: &str| {
        socket.send(&json!({ "type": "refresh", "token": token }).to_string()).await;
        socket.json().await
    };
    let refused = refresh(&mut socket, &java.login(2)).await;
    assert_eq!(refused, json!({ "type": "refresh-refused", "reason": "the token is another user's" }));
    let refreshed = refresh(&mut socket, &new).await;
    assert_eq!(refreshed, json!({ "type": "refreshed", "expiresIn": null }));
    java.log_out(&old);
    rounds(&java.redis, 2).await;
    server.sockets.send_message(1, "still here").unwrap();
    assert_eq!(socket.message().await["data"], "still here");
    assert_eq!(refresh(&mut socket, &old).await["type"], "refresh-refused");
    java.log_out(&new);
    assert_eq!(socket.message().await["reason"], "revoked");
}

#[actix_web::test]
async fn the_user_of_an_opaque_token_is_in_redis() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(
        SaTokenConfig::new(java.redis.url(), "").style(SaTokenStyle::Opaque).dynamic_active_timeout(false),
    );
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    for (n, token) in [
        "5a8e5cf0-3b0e-4b5c-9f3a-0c2f4c8f5d11",
        "5a8e5cf03b0e4b5c9f3a0c2f4c8f5d11",
        &"aZ09".repeat(32),
        "gr_SwoIN0MC1ewxHX_vfCW3BothWDZMMtx__",
    ]
    .into_iter()
    .enumerate()
    {
        let user = UserId::from(10_001 + i64::try_from(n).unwrap());
        assert!(refusal_of(&server, token).await.starts_with("token is unknown"));
        java.set_login(token, &user.to_string());
        let query = format!("clientid=any&Authorization=Bearer%20{token}");
        admits(&server, &query, &[]).await;
        let mut socket = Socket::open(&server, token, &[], None).await.unwrap();
        rounds(&java.redis, 1).await;
        server.sockets.send_message(user, "yours").unwrap();
        assert_eq!(socket.text().await, "yours");
        // The same token with another user is not the login that was admitted.
        java.set_login(token, "sys_user:9");
        assert_eq!(socket.close_code().await, 4401);
        java.kick_out(token);
        assert_eq!(refusal_of(&server, token).await, "token was kicked out");
    }
    java.set_login("text", "sys_user:9");
    let mut socket = Socket::open(&server, "text", &[], None).await.unwrap();
    server.sockets.send_message("sys_user:9".parse::<UserId>().unwrap(), "whole id").unwrap();
    assert_eq!(socket.text().await, "whole id");
    for (token, login, problem) in [
        ("a%20b".to_owned(), "1", "token is malformed"),
        ("x".repeat(513), "1", "token is malformed"),
        ("spaced".to_owned(), "a b", "token is another login's"),
    ] {
        java.set_login(&token, login);
        assert_eq!(refusal(&server, &format!("Authorization=Bearer%20{token}"), &[]).await, problem);
    }
}

#[actix_web::test]
async fn the_watch_ends_the_sessions_of_ended_logins_and_of_no_others() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let stays = java.login(1);
    let mut socket = Socket::open(&server, &stays, &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &stays, None).await.unwrap();
    let own = format!("http://127.0.0.1:{}/own", server.port());
    let _other_kind = reqwest::get(own).await.unwrap();

    let gone = |token: &str| drop(java.redis.cli(&["DEL", &java.last_active_key(token)]));
    type Change<'a> = &'a dyn Fn(&str);
    let changes: [(Change<'_>, u16, CloseReason); 6] = [
        (&|token| java.log_out(token), 4401, CloseReason::Revoked),
        (&|token| java.set_login(token, "sys_user:2"), 4401, CloseReason::Revoked),
        (&|token| java.freeze(token), 4401, CloseReason::TokenExpired),
        (&gone, 4401, CloseReason::TokenExpired),
        (&|token| java.kick_out(token), 4409, CloseReason::Kicked),
        (&|token| java.replace(token), 4409, CloseReason::Kicked),
    ];
    for (change, code, reason) in changes {
        // The same user as the one who stays: it is the login that ends.
        let token = java.login(1);
        let mut sockets = Vec::new();
        for _ in 0..2 {
            sockets.push(Socket::open(&server, &token, &[], None).await.unwrap());
        }
        let mut ending = EventStream::open(&server, &token, None).await.unwrap();
        let mut sessions = server.hub.sessions(&1.into());
        sessions.retain(|session| session.principal().credential == Some(Credential::new(&token)));
        assert_eq!(sessions.len(), 3);
        rounds(&java.redis, 1).await;
        assert!(sessions.iter().all(|session| session.closing().is_none()));

        change(&token);
        let start = Instant::now();
        for mut socket in sockets {
            assert_eq!(socket.close_code().await, code, "{reason:?}");
        }
        assert_eq!(ending.next().await, None);
        assert!(start.elapsed() < PERIOD + Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(sessions.iter().all(|session| session.closing() == Some(reason)), "{reason:?}");
        refusal_of(&server, &token).await;
    }

    rounds(&java.redis, 1).await;
    server.sockets.send_message(1, "still here").unwrap();
    server.emitters.send_message(1, "still here").unwrap();
    assert_eq!((socket.text().await, stream.data().await), ("still here".into(), "still here".into()));
    assert_eq!(server.hub.sessions(&77.into()).len(), 1, "what another login let in is left alone");
}

#[actix_web::test]
async fn the_watch_looks_up_more_logins_than_fit_into_one_question() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let payloads: Vec<_> = (1..=1200).map(Payload::of).collect();
    for some in payloads.chunks(100) {
        let mut values = vec!["MSET".to_owned()];
        for payload in some {
            let token = payload.sign();
            values.extend([java.login_key(&token), format!("\"{}\"", payload.login_id)]);
            values.extend([java.last_active_key(&token), "\"1\"".to_owned()]);
        }
        java.redis.cli(&values.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let streams = payloads.iter().map(|payload| {
        let (token, user) = (payload.sign(), payload.user_id.as_i64().unwrap());
        let mut principal = Principal::new(user.into(), &token);
        principal.credential = Some(Credential::new(&token));
        server.emitters.open(principal, None).unwrap()
    });
    let _streams: Vec<_> = streams.collect();
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    rounds(&java.redis, 3).await;
    let open = || server.hub.all_sessions().iter().filter(|session| session.closing().is_none()).count();
    assert_eq!(open(), 1200);

    let session = |user: i64| server.hub.sessions(&user.into()).remove(0);
    let (leaves, stays) = (session(101), session(102));
    for payload in payloads.iter().step_by(100) {
        java.log_out(&payload.sign());
    }
    within("the logged out to go", async {
        while open() > 1188 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    rounds(&java.redis, 3).await;
    assert_eq!(open(), 1188);
    assert_eq!((leaves.closing(), stays.closing()), (Some(CloseReason::Revoked), None));
}

#[actix_web::test]
async fn while_redis_is_unavailable_the_watch_ends_no_session() {
    let mut java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let _watch = authenticator.watch(server.hub.clone(), PERIOD);
    let mut socket = Socket::open(&server, &java.login(1), &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &java.login(2), None).await.unwrap();
    rounds(&java.redis, 1).await;

    java.redis.kill();
    // A listener in Redis' place closes every connection. No client logs in, so it is the watch that connects.
    let port = java.redis.url().trim_end_matches('/').rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let mute = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let calls = tokio::task::spawn_blocking(move || {
        for _ in 0..4 {
            let (mut call, _) = mute.accept().unwrap();
            call.read_exact(&mut [0; 1]).ok();
        }
    });
    within("four rounds without an answer", calls).await.unwrap();
    server.sockets.send_message(1, "still here").unwrap();
    server.emitters.send_message(2, "still here").unwrap();
    assert_eq!((socket.text().await, stream.data().await), ("still here".into(), "still here".into()));

    // It comes back empty, which is an answer.
    java.redis.restart().await;
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(stream.next().await, None);
}

#[actix_web::test]
async fn a_watch_that_is_dropped_looks_no_more() {
    let java = JavaLogins::start().await;
    let (server, authenticator) = serve(config(&java.redis));
    let watch = authenticator.watch(server.hub.clone(), PERIOD);
    let token = java.login(1);
    let mut socket = Socket::open(&server, &token, &[], None).await.unwrap();
    rounds(&java.redis, 1).await;
    drop(watch);
    java.log_out(&token);
    let seen = look_ups(&java.redis);
    // Nothing happens, and that takes a while to see.
    sleep(3 * PERIOD).await;
    assert_eq!(look_ups(&java.redis), seen);
    socket.send("still here").await;
    assert_eq!(socket.text().await, "STILL HERE");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_takes_the_logins_of_java_nodes_and_lets_them_go() {
    let java = JavaLogins::start().await;
    // The bus may be elsewhere: what is published goes here, logins are looked up there.
    let bus = Redis::start().await;
    let (logins, url) = (java.redis.url(), bus.url());
    let settings = [
        ("REALTIME__AUTH__SATOKEN__REDIS__URL", logins.as_str()),
        ("REALTIME__AUTH__MODE", "sa-token"),
        ("REALTIME__AUTH__SATOKEN__SECRET", JAVA_SECRET),
        ("REALTIME__AUTH__SATOKEN__RECHECK", "1s"),
        ("REALTIME__REDIS__URL", url.as_str()),
        ("REALTIME__REDIS__MODE", "pubsub"),
    ];
    let demo = Demo::start_with(&settings).await;
    demo.until_ready().await;
    let (stays, leaves) = (java.login(1), java.login(2));
    let mut stream = EventStream::open(&demo, &stays, None).await.unwrap();
    let mut socket = Socket::open(&demo, &leaves, &[], None).await.unwrap();
    // Messages of a Java node reach them, in RuoYi's bytes only.
    let broadcast = r#"["org.dromara.common.sse.dto.SseMessageDto",{"message":"from Java"}]"#;
    bus.cli(&["publish", "global:sse", broadcast]);
    assert_eq!(stream.data().await, "from Java");
    let list = r#"{"message":"hi","sessionKeys":["java.util.ArrayList",[2,9]]}"#;
    let dto = format!(r#"["org.dromara.common.websocket.dto.WebSocketMessageDto",{list}]"#);
    bus.cli(&["publish", "global:websocket", &dto]);
    assert_eq!(socket.text().await, "hi");
    java.log_out(&leaves);
    assert_eq!(socket.close_code().await, 4401);
    assert_eq!(demo.sessions(1).await, 1);
    let login = reqwest::Client::new()
        .post(demo.url("/auth/login"))
        .json(&json!({ "username": "alice", "password": "demo", "clientId": "web" }));
    let answer = login.send().await.unwrap();
    assert_eq!(answer.status(), 409, "logins are the Java nodes' business");
}
