//! The unchanged calls of plus-ui, RuoYi-Vue-Plus' front end, stay connected in a browser behind its dev proxy.

use realtime_tests::{Browser, Demo, DevServer, JAVA_SECRET, JavaLogins, token};
use serde_json::{Value, json};

const ALICE: i64 = 1;

const PING: &str = r#"{"type":"ping"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_dev_proxy_a_websocket_needs_its_pages_origin_to_be_named() {
    let dev = DevServer::start().await;
    let demo = Demo::start().await;
    dev.pass_to(&demo);
    let browser = Browser::start().await;
    open(&browser, &dev, 13, &token(ALICE)).await;
    browser.until("journal.streams.opened === 1").await;
    browser.until("journal.sockets.failed === 1").await;
    let sockets = browser.run("return journal.sockets;", &[]).await;
    assert_eq!((&sockets["dialed"], &sockets["connected"]), (&json!(4), &json!(0)), "three more attempts");
    assert_eq!(demo.sessions(ALICE).await, 1, "event streams through the proxy need nothing");

    let demo = Demo::start_with(&[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", &dev.origin())]).await;
    dev.pass_to(&demo);
    open(&browser, &dev, 13, &token(ALICE)).await;
    connected(&browser).await;
    assert_eq!(demo.sessions(ALICE).await, 2);
}

/// VueUse 13.1 is that of plus-ui's releases of 2025.
#[tokio::test(flavor = "multi_thread")]
async fn plus_ui_stays_connected_and_shows_what_is_published_and_nothing_else() {
    let dev = DevServer::start().await;
    let demo = Demo::start_with(&[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", &dev.origin())]).await;
    dev.pass_to(&demo);
    let browser = Browser::start().await;
    open(&browser, &dev, 13, &token(ALICE)).await;
    connected(&browser).await;

    let mut expected = Vec::new();
    for beats in 0..=3 {
        heartbeats(&browser, beats).await;
        for transport in ["websocket", "sse"] {
            let message = format!("after {beats} heartbeats over {transport}");
            demo.publish(json!({ "userIds": [ALICE], "transport": transport, "message": message })).await;
            toasts(&browser, {
                expected.push(message);
                &expected
            })
            .await;
        }
    }
    nothing_was_interrupted(&browser).await;
    assert_eq!(demo.sessions(ALICE).await, 2);
    assert_eq!(browser.complaints().await, [""; 0]);

    sign_out(&browser).await;
    // Then plus-ui goes to its login page.
    browser.open("about:blank").await;
    demo.until_sessions(ALICE, 0).await;
}

/// VueUse 14.2 is that of plus-ui 5.6.1, and this is how it is deployed: beside Java nodes that make the logins.
#[tokio::test(flavor = "multi_thread")]
async fn plus_ui_stays_connected_with_a_login_of_a_java_node() {
    let (java, dev) = (JavaLogins::start().await, DevServer::start().await);
    let (url, origin) = (java.redis.url(), dev.origin());
    let demo = Demo::start_with(&[
        ("REALTIME__AUTH__MODE", "sa-token"),
        ("REALTIME__AUTH__SATOKEN__SECRET", JAVA_SECRET),
        ("REALTIME__AUTH__SATOKEN__RECHECK", "1s"),
        ("REALTIME__AUTH__ERRORSTATUS", "200"),
        ("REALTIME__REDIS__URL", &url),
        ("REALTIME__REDIS__MODE", "pubsub"),
        ("REALTIME__WEBSOCKET__ALLOWEDORIGINS", &origin),
    ])
    .await;
    demo.until_ready().await;
    dev.pass_to(&demo);
    let login = java.login(ALICE);
    let browser = Browser::start().await;
    open(&browser, &dev, 14, &login).await;
    connected(&browser).await;

    let mut expected = Vec::new();
    for beats in 0..=3 {
        heartbeats(&browser, beats).await;
        for (channel, dto, users) in [
            ("global:websocket", "websocket.dto.WebSocketMessageDto", "sessionKeys"),
            ("global:sse", "sse.dto.SseMessageDto", "userIds"),
        ] {
            let message = format!("after {beats} heartbeats on {channel}");
            let fields = format!(r#"{{"message":"{message}","{users}":["java.util.ArrayList",[{ALICE}]]}}"#);
            java.redis.cli(&["publish", channel, &format!(r#"["org.dromara.common.{dto}",{fields}]"#)]);
            toasts(&browser, {
                expected.push(message);
                &expected
            })
            .await;
        }
    }
    nothing_was_interrupted(&browser).await;
    assert_eq!(browser.complaints().await, [""; 0]);

    sign_out(&browser).await;
    // `/auth/logout` belongs to the Java nodes. A page that stays open is refused as well, and stops reconnecting.
    java.log_out(&login);
    browser.until("journal.sockets.failed === 1").await;
    browser.until("journal.streams.errors.includes(EventSource.CLOSED)").await;
    demo.until_sessions(ALICE, 0).await;
    toasts(&browser, &expected).await;
}

/// Opens the page with a release of VueUse and a login.
async fn open(browser: &Browser, dev: &DevServer, vueuse: u32, token: &str) {
    browser.open(&format!("{}/?vueuse={vueuse}&token={token}", dev.origin())).await;
    browser.until("window.journal").await;
}

async fn connected(browser: &Browser) {
    browser.until("journal.sockets.connected === 1 && journal.streams.opened === 1").await;
}

/// Waits until `count` heartbeats, ten seconds apart, were sent and answered.
async fn heartbeats(browser: &Browser, count: usize) {
    let answered = format!("journal.sockets.received.filter((each) => each === {}).length", json!(PING));
    for count in 1..=count {
        browser.until(&format!("{answered} >= {count}")).await;
    }
}

/// Waits until the page has shown that many toasts; they are these.
async fn toasts(browser: &Browser, expected: &[String]) {
    browser.until(&format!("journal.toasts.length >= {}", expected.len())).await;
    assert_eq!(browser.run("return journal.toasts;", &[]).await, json!(expected));
}

/// One connection of each kind was all that the page has needed, and only heartbeats came back to it.
async fn nothing_was_interrupted(browser: &Browser) {
    // The last heartbeat's answer is too late after two seconds.
    browser.run("return new Promise((done) => setTimeout(done, 2500));", &[]).await;
    let journal = browser.run("return journal;", &[]).await;
    let Value::Object(sockets) = &journal["sockets"] else { panic!("{journal}") };
    assert_eq!(
        (&sockets["dialed"], &sockets["connected"], &sockets["disconnected"]),
        (&json!(1), &json!(1), &json!(0)),
        "{journal}"
    );
    assert_eq!(
        journal["streams"],
        json!({ "dialed": 1, "opened": 1, "errors": [], "failed": 0 }),
        "{journal}"
    );
    let sent = sockets["sent"].as_array().unwrap();
    assert!(sent.len() >= 3 && sent.iter().all(|text| text == PING), "{journal}");
    let answers = sockets["received"].as_array().unwrap().iter().filter(|text| *text == PING);
    assert_eq!(answers.count(), sent.len(), "{journal}");
}

/// The request of plus-ui to the push server when its user signs out: the server ends the stream.
async fn sign_out(browser: &Browser) {
    let answer = browser.run("return closeStream();", &[]).await;
    assert_eq!(answer, json!({ "code": 200, "msg": "操作成功", "data": null }));
    browser.until("journal.streams.errors[0] === EventSource.CONNECTING").await;
}
