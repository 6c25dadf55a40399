//! What an operator does: enters the key, looks for users, kicks, publishes.

use realtime_tests::{Browser, Demo, Socket, sign, within};
use reqwest::{Method, StatusCode, Url, header};
use serde_json::{Value, json};

use super::{INTERNAL, demo, open, opened, show};

/// An id that runs where it is taken for HTML.
const HOSTILE: &str = "<img/src=x/onerror=\"window.hit=1\">";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_opens_nothing_and_the_right_one_lasts_as_long_as_the_tab() {
    let demo = demo().await;
    let browser = Browser::start().await;
    browser.open(&demo.api_url("/console/")).await;
    for wrong in ["another-key-of-16", "schlüssel"] {
        browser.fill("#gate-key", wrong).await;
        browser.click("#gate-submit").await;
        browser.sees("#gate-error", "The key is not accepted.").await;
        assert_eq!(browser.count("#shell:not([hidden])", "").await, 0);
    }
    open(&browser, &demo.api_url("/console/")).await;
    browser.sees("#title", "Overview").await;
    browser.reload().await;
    browser.sees("#health[data-state=ok]", "ready").await;
    let tab = browser.tab().await;
    browser.open_tab().await;
    browser.open(&demo.api_url("/console/")).await;
    browser.sees("#gate-form", "API key").await;
    browser.close_tab(&tab).await;
    browser.click("#lock").await;
    browser.sees("#gate-form", "API key").await;
    browser.reload().await;
    browser.sees("#gate-form", "API key").await;
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|line| line.contains("401")), "{complaints:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_draws_connections_and_deliveries_as_they_come() {
    let demo = demo().await;
    let browser = opened(&demo).await;
    let (_socket, _stream) = (demo.socket(1).await, demo.stream(2).await);
    browser.sees(".tile", "1 WebSocket · 1 SSE").await;
    browser.sees(".tile", "2 sessions in the cluster").await;
    demo.publish(json!({ "broadcast": true, "message": "hello" })).await;
    browser.sees(".counter[title=delivered]", "2").await;
    browser.until("document.querySelectorAll('.chart .stroke').length >= 4").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_names_no_view_shows_the_overview() {
    let demo = demo().await;
    let browser = opened(&demo).await;
    for address in ["#/nothing", "#/toString"] {
        show(&browser, "#/nodes").await;
        browser.run("location.hash = arguments[0];", &[address.into()]).await;
        browser.until("document.querySelector('#view[data-view=overview] .tile')").await;
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_found_and_kicked() {
    let demo = demo().await;
    let (mut socket, mut other) = (demo.socket(7).await, demo.socket(8).await);
    let browser = opened(&demo).await;
    // The key of the keyboard that leads to the search, from any view.
    browser
        .run("document.dispatchEvent(new KeyboardEvent('keydown', { key: '/', bubbles: true }));", &[])
        .await;
    browser.until("document.activeElement.id === 'user-search'").await;
    browser.sees("#view .card-title", "2 users online").await;
    browser.fill("#user-search", "7").await;
    browser.until("document.querySelectorAll('#view tbody tr').length === 1").await;
    browser.click("#view .row-link").await;
    browser.sees("#title", "User 7").await;
    browser.sees("#view td", "WebSocket").await;
    // Esc is a no.
    browser.click("[data-kick=all]").await;
    browser.sees("dialog", "Kick user 7?").await;
    browser.press("Escape").await;
    browser.until("!document.querySelector('dialog')").await;
    assert_eq!(demo.sessions(7).await, 1);
    browser.click("[data-kick=all]").await;
    browser.fill("dialog input", "bye").await;
    browser.click("dialog .button-danger").await;
    browser.sees(".toast", "1 session ended.").await;
    assert_eq!(socket.text().await, "bye");
    assert_eq!(socket.close_code().await, 4409);
    browser.sees("#view .empty", "No session.").await;

    show(&browser, "#/user/8").await;
    browser.click("#view [data-session]").await;
    browser.sees("dialog", "Kick this session?").await;
    browser.click("dialog .button-danger").await;
    assert_eq!(other.close_code().await, 4409);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_reaches_its_sockets_and_the_result_says_so() {
    let demo = demo().await;
    let (mut seven, mut eight) = (demo.socket(7).await, demo.socket(8).await);
    let browser = opened(&demo).await;
    show(&browser, "#/publish?user=7").await;
    browser.fill("#publish-message", "for seven").await;
    browser.click("#publish-submit").await;
    browser.sees("#publish-result", "position ").await;
    browser
        .until("document.querySelector('#publish-result td[data-label=Written]')?.textContent === '1'")
        .await;
    assert_eq!(seven.text().await, "for seven");
    browser.click("label:has(#target-all)").await;
    browser.fill("#publish-message", "for all").await;
    browser.click("#publish-submit").await;
    browser.sees("dialog", "Publish to everyone?").await;
    browser.click("dialog [type=submit]").await;
    assert_eq!(seven.text().await, "for all");
    assert_eq!(eight.text().await, "for all");
    // A mistake is told where it was made, with the server's words.
    browser.click("label:has(#target-topics)").await;
    browser.fill("#publish-to", "news").await;
    browser.fill("#publish-event", "open").await;
    browser.click("#publish-submit").await;
    browser.sees("#publish-error", "event name \"open\" is reserved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_and_what_happens_is_shown() {
    let demo = demo().await;
    let mut socket = demo.socket(7).await;
    demo.publish_to(7, "before").await;
    assert_eq!(socket.text().await, "before");
    let browser = opened(&demo).await;
    show(&browser, "#/user/7").await;
    browser.click("[data-action=explain]").await;
    browser.sees(".summary", "Online, 1 session.").await;
    browser.sees("[data-answer=explain] td[data-label=Sessions] .pill", "written").await;

    show(&browser, "#/trace?user=7").await;
    browser.click("#trace-submit").await;
    browser.sees("#trace-events [data-kind=nodes]", "").await;
    demo.publish(json!({ "userIds": [7], "message": "now", "event": "order" })).await;
    assert_eq!(socket.text().await, "now");
    browser.sees("#trace-events [data-kind=written]", "order").await;
    let (status, _) = demo.api(Method::DELETE, "/api/online/7", None).await;
    assert_eq!(status, 200);
    browser.sees("#trace-events [data-kind=close]", "kicked").await;
    browser.screenshot("console-trace-of-a-kick").await;
    browser.click("#trace-submit").await;
    browser.sees("#view .pill", "stopped").await;

    show(&browser, "#/explain?user=7").await;
    browser.sees(".summary", "Offline.").await;
    browser.sees("[data-answer=explain] td[data-label=Reason]", "kicked").await;
    browser.screenshot("console-explain-of-a-kick").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_errors_are_shown_as_text() {
    let demo = demo().await;
    let claims = json!({ "userId": HOSTILE, "clientid": HOSTILE, "exp": 4_000_000_000_u64 });
    let login = [("clientid", HOSTILE), ("Authorization", &sign(&claims))];
    let url = Url::parse_with_params("http://x/resource/websocket", login).unwrap();
    let path = format!("{}?{}", url.path(), url.query().unwrap());
    let _socket = Socket::open_at(&demo, &path, &[]).await.unwrap();
    let browser = opened(&demo).await;
    show(&browser, "#/users").await;
    browser.sees("#view .row-link", HOSTILE).await;
    browser.click("#view .row-link").await;
    browser.sees("#title", HOSTILE).await;
    browser.sees("#view td[data-label=Client]", HOSTILE).await;
    browser.click("[data-kick=all]").await;
    browser.sees("dialog", HOSTILE).await;
    browser.press("Escape").await;
    show(&browser, "#/publish").await;
    browser.fill("#publish-to", &format!("{HOSTILE}{}", "x".repeat(200))).await;
    browser.fill("#publish-message", "x").await;
    browser.click("#publish-submit").await;
    browser.sees("#publish-error", "user id").await;
    assert_eq!(browser.count("#view img, dialog img, #title img", "").await, 0);
    assert_eq!(browser.run("return window.hit ?? null;", &[]).await, Value::Null);
    // If it were taken for HTML, the policy of the page would forbid that.
    let html =
        "try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch (error) { return error.name; }";
    assert_eq!(browser.run(html, &[]).await, "TypeError");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_changed_and_a_server_that_is_gone_are_told() {
    let mut demo = demo().await;
    let browser = opened(&demo).await;
    demo.terminate();
    within("the demo to end", demo.child().wait()).await.unwrap();
    browser.sees("#outage", "The server cannot be reached. Trying again…").await;
    browser.sees("#health[data-state=bad]", "no answer").await;

    let demo = self::demo().await;
    browser.open(&demo.api_url("/console/")).await;
    browser.run("sessionStorage.setItem('realtime.console.key', 'the-key-of-before');", &[]).await;
    browser.reload().await;
    browser.sees("#gate-notice", "The key is not accepted.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_presence_the_console_says_what_it_cannot_know() {
    let demo = Demo::start_with(&[INTERNAL, ("REALTIME__PRESENCE__MODE", "off")]).await;
    let browser = opened(&demo).await;
    browser.sees(".tile", "presence is off").await;
    show(&browser, "#/users").await;
    browser.sees("#view .empty", "Nobody knows who is online.").await;
    browser.sees("#view .empty", "presence is unavailable").await;
    show(&browser, "#/nodes").await;
    browser.sees("#view .note", "Only the node that answers is listed").await;
    browser.sees("#view td[data-label=Node]", "this one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_need_no_key_and_what_it_asks_for_does() {
    let demo = demo().await;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let page = http.get(demo.api_url("/console/")).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let html = page.text().await.unwrap();
    let is_code = |word: &str| word.starts_with("style=") || (word.starts_with("on") && word.contains('='));
    assert_eq!(html.split_whitespace().find(|word| is_code(word)), None);
    let moved = http.get(demo.api_url("/console")).send().await.unwrap();
    assert_eq!((moved.status().as_u16(), &moved.headers()["location"]), (308, &"console/".parse().unwrap()));
    for (path, status) in [("/console/app.js", 200), ("/console/nothing.js", 404), ("/console/..%2fapi", 404)]
    {
        assert_eq!(http.get(demo.api_url(path)).send().await.unwrap().status().as_u16(), status, "{path}");
    }
    for path in ["/api/stats", "/api/nodes"] {
        assert_eq!(http.get(demo.api_url(path)).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(demo.api(Method::GET, path, None).await.0, 200, "{path}");
    }
    for path in ["/console/", "/console/app.js", "/api/stats", "/api/nodes"] {
        assert_eq!(demo.get(path).await.0, 404, "{path} at the public address");
    }
}
