//! A login on the page survives reloads and restarts of the server, and ends with a kick.

use realtime_tests::{Browser, Demo, DevServer, Server, token};
use reqwest::Method;
use serde_json::json;

use super::{ALICE, BOB, alice_and_bob, connected, fill_in, say, signed_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported_and_the_right_one_still_works() {
    let demo = Demo::start().await;
    let alice = Browser::start().await;
    alice.open(&demo.url("/")).await;
    fill_in(&alice, "alice", "password").await;
    alice.sees("#login-error", "wrong user name or password").await;
    alice.screenshot("page-wrong-password").await;
    fill_in(&alice, "alice", "demo").await;
    connected(&alice).await;
    assert_eq!(alice.complaints().await.len(), 1, "the browser reports the status 401 of the first login");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_understands_logins_that_are_refused_under_status_200() {
    let demo = Demo::start_with(&[("REALTIME__AUTH__ERRORSTATUS", "200")]).await;
    let alice = Browser::start().await;
    alice.open(&demo.url("/")).await;
    fill_in(&alice, "alice", "password").await;
    alice.sees("#login-error", "wrong user name or password").await;
    fill_in(&alice, "alice", "demo").await;
    connected(&alice).await;
    // A login that ends unnoticed shows at the page's next request.
    alice
        .run(
            "sessionStorage.setItem('realtime.session', '{\"token\":\"no-token\",\"username\":\"alice\"}');",
            &[],
        )
        .await;
    alice.reload().await;
    alice.sees("#login-notice", "Your session has ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_told_the_users_asks_for_the_name() {
    let demo = Demo::start_with(&[("REALTIME__AUTH__SHOWUSERS", "false")]).await;
    let alice = Browser::start().await;
    alice.open(&demo.url("/")).await;
    alice.fill("#login-name", "alice").await;
    alice.fill("#login-password", "demo").await;
    alice.click("#login-submit").await;
    connected(&alice).await;
    alice.sees("#chat-to", "Bob Li").await;
    alice.reload().await;
    connected(&alice).await;
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_leads_back_to_the_login_and_a_new_login_works() {
    let demo = Demo::start_with(&[("REALTIME__SSE__RETRY", "200ms")]).await;
    let alice = signed_in(&demo, "alice").await;
    let (status, answer) = demo.api(Method::DELETE, &format!("/api/online/{ALICE}"), None).await;
    assert_eq!((status, &answer["closed"]), (200, &json!(2)));
    alice.sees("#login-notice", "Your session has ended: an administrator ended it.").await;
    assert_eq!(alice.count(".workspace", "").await, 0);
    demo.until_sessions(ALICE, 0).await;
    alice.screenshot("page-kicked").await;

    fill_in(&alice, "alice", "demo").await;
    connected(&alice).await;
    demo.publish_to(ALICE, "welcome back").await;
    for transport in ["websocket", "sse"] {
        alice.sees(&format!("#feed [data-message]:has([data-transport={transport}])"), "welcome back").await;
    }
    assert_eq!(demo.sessions(ALICE).await, 2, "nothing of the kicked login came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_from_the_list_ends_the_other_users_page() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.click(&format!("[data-kick='{BOB}']")).await;
    bob.sees("#login-notice", "Your session has ended: an administrator ended it.").await;
    alice.sees("#online-total", "1 online").await;
    demo.until_sessions(BOB, 0).await;

    let kick = json!({ "userId": ALICE }).to_string();
    let url = demo.url(&format!("/demo/kick?Authorization={}", token(77)));
    let (status, answer) = demo.call(Method::POST, url, Some(&kick)).await;
    assert_eq!((status, &answer["msg"]), (403, &json!("only users of auth.users may kick")));
    assert_eq!(demo.sessions(ALICE).await, 2);
    for (path, body) in [
        ("order", json!({ "status": "paid" })),
        ("notice", json!({ "title": "x", "content": "x" })),
        ("approval", json!({ "applicant": ALICE, "title": "x", "result": "approved" })),
        ("dashboard", json!({})),
    ] {
        let url = demo.url(&format!("/demo/{path}?Authorization={}", token(77)));
        let (status, answer) = demo.call(Method::POST, url, Some(&body.to_string())).await;
        assert_eq!(
            (status, &answer["msg"]),
            (403, &json!("only users of auth.users may publish here")),
            "{path}"
        );
    }
    let mut other = demo.socket(77).await;
    other.send(r#"{"type":"chat","broadcast":true,"text":"x"}"#).await;
    assert_eq!(other.json().await["data"], "only users of auth.users may chat");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_login_and_leaves_no_connection_behind() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    alice.reload().await;
    connected(&alice).await;
    alice.sees("#current-user", "Alice Chen").await;
    let own = format!("#online-list [data-user='{ALICE}'] [data-transport]");
    let shown =
        alice.until(&format!("document.querySelectorAll(\"{own}\").length === 2 && performance.now()")).await;
    assert!(
        shown.as_f64().unwrap() < 4_500.0,
        "her sessions show before the list is asked for as a routine: {shown}"
    );
    demo.until_sessions(ALICE, 2).await;
    demo.publish_to(ALICE, "after the reload").await;
    for transport in ["websocket", "sse"] {
        alice
            .sees(&format!("#feed [data-message]:has([data-transport={transport}])"), "after the reload")
            .await;
    }
    assert_eq!(alice.count("#feed [data-message]", "after the reload").await, 1);
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_in_the_middle_of_a_burst_loses_and_doubles_nothing() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    for number in 0..60 {
        demo.publish_to(ALICE, &format!("message {number}.")).await;
        if number % 20 == 10 {
            alice.reload().await;
        }
    }
    connected(&alice).await;
    for number in 0..60 {
        let message = format!("message {number}.");
        let both = "#feed [data-message]:has([data-transport=websocket]):has([data-transport=sse])";
        alice.sees(both, &message).await;
        assert_eq!(alice.count("#feed [data-message]", &message).await, 1);
    }
    assert_eq!(alice.count("#feed [data-gap]", "").await, 0);
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_behind_a_path_of_its_own() {
    let dev = DevServer::start().await;
    let demo = Demo::start_with(&[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", &dev.origin())]).await;
    dev.pass_to(&demo);
    let alice = Browser::start().await;
    alice.open(&format!("{}/dev-api/", dev.origin())).await;
    fill_in(&alice, "alice", "demo").await;
    connected(&alice).await;
    demo.publish_to(ALICE, "through the proxy").await;
    alice.sees("#feed [data-message]", "through the proxy").await;
    alice.sees("#online-list", "Alice Chen").await;
    say(&alice, "hello").await;
    alice.sees("#chat-log [data-chat]", "hello").await;
    alice.click("#order-paid").await;
    alice.sees("#order-number", "SO-").await;
    alice.click("#ai-start").await;
    alice.click("#ai-stop").await;
    alice.sees("#ai-result", "Stopped.").await;
    let outside =
        "const asked = performance.getEntriesByType('resource').map((each) => new URL(each.name).pathname);
        return [asked.length > 30, asked.filter((path) => !path.startsWith('/dev-api/'))];";
    assert_eq!(alice.run(outside, &[]).await, json!([true, []]));
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_that_the_server_restarts_and_that_it_is_back() {
    let drain = ("REALTIME__DRAIN__WINDOW", "100ms");
    let mut demo = Demo::start_with(&[drain, ("REALTIME__SSE__RETRY", "200ms")]).await;
    let alice = signed_in(&demo, "alice").await;
    let port = demo.port().to_string();
    demo.terminate();
    alice
        .sees("#outage[data-state=away]", "The server is restarting. Reconnecting: WebSocket and SSE.")
        .await;
    demo.child().wait().await.unwrap();
    alice.screenshot("page-restarting").await;
    let _demo = Demo::start_with(&[("REALTIME__SERVER__PORT", &port)]).await;
    alice.sees("#outage[data-state=back]", "Connected again. The server was restarted.").await;
    alice.until("document.getElementById('outage').hidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_place_another_login_takes_says_so() {
    let demo = Demo::start_with(&[
        ("REALTIME__LIMITS__MAXCONNECTIONSPERUSER", "2"),
        ("REALTIME__LIMITS__ONEXCEEDED", "endOldest"),
    ])
    .await;
    let first = signed_in(&demo, "alice").await;
    let second = signed_in(&demo, "alice").await;
    first.sees("#login-notice", "Your session has ended: you signed in anew somewhere else.").await;
    connected(&second).await;
    assert_eq!(second.count(".workspace", "").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_event_streams_alone_says_that_it_was_kicked() {
    let demo =
        Demo::start_with(&[("REALTIME__WEBSOCKET__ENABLED", "false"), ("REALTIME__SSE__RETRY", "200ms")])
            .await;
    let alice = Browser::start().await;
    alice.open(&demo.url("/")).await;
    fill_in(&alice, "alice", "demo").await;
    alice.sees("#badge-sse[data-state=connected]", "connected").await;
    demo.api(Method::DELETE, &format!("/api/online/{ALICE}"), None).await;
    alice.sees("#login-notice", "Your session has ended: an administrator ended it.").await;
    // The next one to sign in is mostly the last one.
    assert_eq!(alice.run("return document.getElementById('login-user').value;", &[]).await, "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reconnects_when_its_server_is_back() {
    let demo = Demo::start_with(&[("REALTIME__SSE__RETRY", "200ms")]).await;
    let alice = signed_in(&demo, "alice").await;
    let port = demo.port().to_string();
    drop(demo);
    for transport in ["websocket", "sse"] {
        alice.sees(&format!("#badge-{transport}[data-state=reconnecting]"), "reconnecting").await;
    }
    let demo = Demo::start_with(&[("REALTIME__SERVER__PORT", &port)]).await;
    connected(&alice).await;
    demo.publish_to(ALICE, "after the restart").await;
    for transport in ["websocket", "sse"] {
        alice
            .sees(&format!("#feed [data-gap]:has([data-transport={transport}])"), "may have been missed")
            .await;
        alice
            .sees(&format!("#feed [data-message]:has([data-transport={transport}])"), "after the restart")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_is_off_shows_as_disabled_while_the_other_works() {
    for (off, variable, on) in
        [("websocket", "REALTIME__WEBSOCKET__ENABLED", "sse"), ("sse", "REALTIME__SSE__ENABLED", "websocket")]
    {
        let demo = Demo::start_with(&[(variable, "false")]).await;
        let alice = Browser::start().await;
        alice.open(&demo.url("/")).await;
        fill_in(&alice, "alice", "demo").await;
        alice.sees(&format!("#badge-{off}[data-state=disabled]"), "disabled").await;
        alice.sees(&format!("#badge-{on}[data-state=connected]"), "connected").await;
        demo.publish_to(ALICE, "one way is enough").await;
        alice.sees(&format!("#feed [data-message]:has([data-transport={on}])"), "one way is enough").await;
        alice.screenshot(&format!("page-without-{off}")).await;
        assert_eq!(alice.complaints().await, [""; 0], "without {off}");
    }
}
