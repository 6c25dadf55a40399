//! RuoYi's page snippets work unchanged in a real browser.

use std::time::Duration;

use realtime_tests::{Browser, Demo, Server, token};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

const ALICE: i64 = 1;

const WEBSOCKET: &str = "
const ws = new WebSocket('ws://' + location.host + '/resource/websocket?clientid=web&Authorization=' + token);
ws.onopen = () => {
  console.log('connected');
  ws.send(JSON.stringify({ type: 'ping' }));
};
ws.onmessage = (event) => {
  console.log('received:', event.data);
};
";

const EVENT_SOURCE: &str = "
const source = new EventSource('/resource/sse?Authorization=' + token);
source.addEventListener('message', (event) => {
  console.log('received:', event.data);
});
";

/// The page's ways to close its stream.
const FAREWELLS: [&str; 2] = [
    "fetch('/resource/sse/close?Authorization=' + token);",
    "navigator.sendBeacon('/resource/sse/close?Authorization=' + token);",
];

/// Streams younger than this are not closed by such a request.
const SPARE: Duration = Duration::from_secs(2);

/// An address of the demo without a content security policy.
const BARE: &str = "/health/live";

const NO_WAIT: (&str, &str) = ("REALTIME__SSE__RETRY", "200ms");

#[tokio::test(flavor = "multi_thread")]
async fn the_websocket_snippet_gets_its_ping_back_and_what_is_published() {
    let demo = Demo::start().await;
    let browser = browser_at(&demo.url("/")).await;
    run(&browser, WEBSOCKET, "ws", &token(ALICE)).await;
    heard(&browser, r#"message {"type":"ping"}"#).await;
    demo.publish_to(ALICE, "hello").await;
    heard(&browser, "message hello").await;
    assert_eq!(log(&browser).await, ["open 1", r#"message {"type":"ping"}"#, "message hello"]);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_source_snippet_gets_what_is_published() {
    let demo = Demo::start().await;
    let browser = browser_at(&demo.url("/")).await;
    run(&browser, EVENT_SOURCE, "source", &token(ALICE)).await;
    heard(&browser, "open 1").await;
    demo.publish_to(ALICE, "hello").await;
    demo.publish_to(ALICE, "in two\nlines").await;
    heard(&browser, "message in two\nlines").await;
    assert_eq!(log(&browser).await, ["open 1", "message hello", "message in two\nlines"]);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_and_its_address_are_one_host() {
    let demo = Demo::start().await;
    let browser = Browser::start().await;
    for (page, server) in [("127.0.0.1", "localhost"), ("localhost", "127.0.0.1")] {
        browser.open(&format!("http://{page}:{}{BARE}", demo.port())).await;
        run(&browser, &websocket_to(server, &demo), "ws", &token(ALICE)).await;
        heard(&browser, r#"message {"type":"ping"}"#).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_gets_a_websocket_only_if_it_is_named() {
    let other = Demo::start().await;
    let browser = browser_at(&other.url(BARE)).await;

    let demo = Demo::start().await;
    run(&browser, &websocket_to("127.0.0.1", &demo), "ws", &token(ALICE)).await;
    heard(&browser, "close 1006").await;
    assert_eq!(log(&browser).await, ["error 3", "close 1006"]);
    assert_eq!(demo.sessions(ALICE).await, 0);

    let origins = format!("https://app.example.com,{}", other.url(""));
    let demo = Demo::start_with(&[("REALTIME__WEBSOCKET__ALLOWEDORIGINS", &origins)]).await;
    run(&browser, &websocket_to("127.0.0.1", &demo), "ws", &token(ALICE)).await;
    heard(&browser, r#"message {"type":"ping"}"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_no_event_stream() {
    let (other, demo) = (Demo::start().await, Demo::start().await);
    let browser = browser_at(&other.url(BARE)).await;
    let snippet = EVENT_SOURCE.replace("'/resource", &format!("'{}/resource", demo.url("")));
    run(&browser, &snippet, "source", &token(ALICE)).await;
    heard(&browser, "error 2").await;
    assert_eq!(log(&browser).await, ["error 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_ends_both_for_good() {
    for status in ["401", "200"] {
        let demo = Demo::start_with(&[("REALTIME__AUTH__ERRORSTATUS", status)]).await;
        let browser = browser_at(&demo.url(BARE)).await;
        run(&browser, WEBSOCKET, "ws", "no-token").await;
        heard(&browser, "close 1006").await;
        run(&browser, EVENT_SOURCE, "source", "no-token").await;
        heard(&browser, "error 2").await;
        assert_eq!(log(&browser).await, ["error 2"], "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farewell_without_a_token_ends_nothing() {
    let demo = Demo::start().await;
    let browser = browser_at(&demo.url(BARE)).await;
    run(&browser, EVENT_SOURCE, "source", &token(ALICE)).await;
    heard(&browser, "open 1").await;
    tokio::time::sleep(SPARE).await;
    for farewell in ["fetch('/resource/sse/close');", "navigator.sendBeacon('/resource/sse/close');"] {
        say_goodbye(&browser, farewell, "").await;
    }
    demo.publish_to(ALICE, "still here").await;
    heard(&browser, "message still here").await;
    assert_eq!(log(&browser).await, ["open 1", "message still here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farewell_ends_the_tokens_old_streams_and_who_is_still_there_comes_back() {
    let demo = Demo::start_with(&[NO_WAIT]).await;
    let browser = browser_at(&demo.url(BARE)).await;
    for farewell in FAREWELLS {
        browser.reload().await;
        let token = token(ALICE);
        run(&browser, EVENT_SOURCE, "source", &token).await;
        heard(&browser, "open 1").await;
        say_goodbye(&browser, farewell, &token).await;
        demo.publish_to(ALICE, "spared").await;
        heard(&browser, "message spared").await;
        assert_eq!(log(&browser).await, ["open 1", "message spared"], "{farewell}");

        tokio::time::sleep(SPARE).await;
        say_goodbye(&browser, farewell, &token).await;
        demo.publish_to(ALICE, "meanwhile").await;
        heard(&browser, "message meanwhile").await;
        let log = log(&browser).await;
        assert_eq!(log, ["open 1", "message spared", "error 0", "open 1", "message meanwhile"], "{farewell}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_reconnects_and_misses_nothing() {
    let demo = Demo::start_with(&[NO_WAIT]).await;
    let way = Way::to(&demo).await;
    let browser = browser_at(&format!("http://127.0.0.1:{}{BARE}", way.port)).await;
    run(&browser, EVENT_SOURCE, "source", &token(ALICE)).await;
    heard(&browser, "open 1").await;
    demo.publish_to(ALICE, "before").await;
    heard(&browser, "message before").await;
    for round in 1..=2 {
        way.block();
        demo.until_sessions(ALICE, 0).await;
        demo.publish_to(ALICE, &format!("meanwhile {round}")).await;
        heard(&browser, "error 0").await;
        way.free();
        heard(&browser, &format!("message meanwhile {round}")).await;
    }
    let mut log = log(&browser).await;
    log.retain(|line| line.starts_with("message"));
    assert_eq!(log, ["message before", "message meanwhile 1", "message meanwhile 2"]);
    let ids = browser.run("return ids;", &[]).await;
    assert!(ids.as_array().unwrap().is_sorted_by_key(|id| offset(id.as_str().unwrap())), "{ids}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_kicked_does_not_come_back() {
    let demo = Demo::start_with(&[NO_WAIT]).await;
    let browser = browser_at(&demo.url(BARE)).await;
    let (token, path) = (token(ALICE), format!("/api/online/{ALICE}"));

    run(&browser, EVENT_SOURCE, "source", &token).await;
    heard(&browser, "open 1").await;
    assert_eq!(demo.api(Method::DELETE, &path, None).await, (200, json!({ "closed": 1 })));
    heard(&browser, "error 2").await;
    assert_eq!(log(&browser).await, ["open 1", "error 0", "error 2"]);
    run(&browser, WEBSOCKET, "ws", &token).await;
    heard(&browser, "close 1006").await;

    let token = realtime_tests::token(ALICE);
    run(&browser, WEBSOCKET, "ws", &token).await;
    heard(&browser, r#"message {"type":"ping"}"#).await;
    assert_eq!(demo.api(Method::DELETE, &path, None).await, (200, json!({ "closed": 1 })));
    heard(&browser, "close 4409").await;
    assert_eq!(demo.sessions(ALICE).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_of_one_login_both_receive_and_the_new_one_outlives_the_old() {
    let demo = Demo::start().await;
    let browser = browser_at(&demo.url(BARE)).await;
    let token = token(ALICE);
    let old = browser.tab().await;
    run(&browser, WEBSOCKET, "ws", &token).await;
    let new = browser.open_tab().await;
    browser.open(&demo.url(BARE)).await;
    run(&browser, EVENT_SOURCE, "source", &token).await;
    heard(&browser, "open 1").await;
    browser.turn_to(&old).await;
    heard(&browser, "open 1").await;
    run(&browser, EVENT_SOURCE, "source", &token).await;
    heard(&browser, "open 1").await;
    browser.turn_to(&new).await;
    run(&browser, WEBSOCKET, "ws", &token).await;
    heard(&browser, "open 1").await;

    demo.publish_to(ALICE, "to all four").await;
    for tab in [&old, &new] {
        browser.turn_to(tab).await;
        browser.until("everything.filter((line) => line === 'message to all four').length === 2").await;
    }
    browser.turn_to(&old).await;
    browser.close_tab(&new).await;
    demo.until_sessions(ALICE, 2).await;
    demo.publish_to(ALICE, "to those left").await;
    browser.until("everything.filter((line) => line === 'message to those left').length === 2").await;
    assert_eq!(
        browser.run("return everything.filter((line) => /error|close/.test(line));", &[]).await,
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_not_hurt_by_the_farewell_of_the_page_before() {
    let demo = Demo::start().await;
    let browser = browser_at(&demo.url(BARE)).await;
    let token = token(ALICE);
    for round in 1..=3 {
        run(&browser, EVENT_SOURCE, "source", &token).await;
        heard(&browser, "open 1").await;
        demo.until_sessions(ALICE, 1).await;
        let message = format!("message {round}");
        demo.publish_to(ALICE, &message).await;
        heard(&browser, &format!("message {message}")).await;
        assert_eq!(log(&browser).await, ["open 1", &format!("message {message}")]);
        let beacon = FAREWELLS[1];
        let script =
            format!("const token = arguments[0]; addEventListener('pagehide', () => {{ {beacon} }});");
        browser.run(&script, &[json!(token)]).await;
        browser.reload().await;
    }
}

async fn browser_at(url: &str) -> Browser {
    let browser = Browser::start().await;
    browser.open(url).await;
    browser
}

fn websocket_to(host: &str, demo: &Demo) -> String {
    WEBSOCKET.replace("'ws://' + location.host + '", &format!("'ws://{host}:{}", demo.port()))
}

/// Runs a snippet that calls its connection `name`, and records its events in `log`, its event ids in
/// `ids`, and the events of all connections of the page in `everything`.
async fn run(browser: &Browser, snippet: &str, name: &str, token: &str) {
    let script = format!(
        "const token = arguments[0];
        {snippet}
        const log = window.log = [], ids = window.ids = [], everything = window.everything ??= [];
        for (const type of ['open', 'message', 'gap', 'error', 'close']) {{
          {name}.addEventListener(type, (event) => {{
            const line = `${{type}} ${{event.data ?? event.code ?? {name}.readyState}}`;
            log.push(line);
            everything.push(line);
            if (event.lastEventId) ids.push(event.lastEventId);
          }});
        }}"
    );
    browser.run(&script, &[json!(token)]).await;
}

/// Waits for a line in the log of the last snippet.
async fn heard(browser: &Browser, line: &str) {
    browser.until(&format!("log.includes({})", json!(line))).await;
}

async fn log(browser: &Browser) -> Vec<String> {
    let log = browser.run("return log;", &[]).await;
    log.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Closes the stream from the page and waits until the server has answered with 200.
async fn say_goodbye(browser: &Browser, farewell: &str, token: &str) {
    // Chromium lists a response that must not be stored once its body is read, which a farewell has no reason to do.
    const READ: &str = "performance.clearResourceTimings();
        window.read ??= (window.unread = window.fetch, window.fetch = (...all) => unread(...all).then(async (answer) => {
            await answer.clone().text();
            return answer;
        }));";
    browser.run(READ, &[]).await;
    browser.run(&format!("const token = arguments[0];\n{farewell}"), &[json!(token)]).await;
    browser
        .until(
            "performance.getEntriesByType('resource')
                .some((each) => each.name.includes('/close') && each.responseStatus === 200)",
        )
        .await;
}

/// The offset in a position, `<epoch>.<offset>`.
fn offset(id: &str) -> u64 {
    id.split_once('.').unwrap().1.parse().unwrap()
}

/// A proxy to a server, which can be blocked.
struct Way {
    port: u16,
    free: watch::Sender<bool>,
}

impl Way {
    async fn to(demo: &Demo) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, server) = (listener.local_addr().unwrap().port(), demo.port());
        let (free, is_free) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut is_free = is_free.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    tokio::select! {
                        biased;
                        _ = is_free.wait_for(|free| !free) => {}
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                    }
                });
            }
        });
        Self { port, free }
    }

    /// Breaks all connections and lets none through.
    fn block(&self) {
        self.free.send_replace(false);
    }

    fn free(&self) {
        self.free.send_replace(true);
    }
}
