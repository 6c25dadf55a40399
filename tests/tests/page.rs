//! The demo's page in a real browser: what its users see of each other and of the server.

#![allow(clippy::unwrap_used, reason = "tests may")]

use realtime_tests::{Browser, Demo, Redis, Scheme, Screen, Server};
use reqwest::Method;
use serde_json::json;

const ALICE: i64 = 1;
const BOB: i64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_appears_under_the_transport_that_brought_it() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    for transport in ["websocket", "sse"] {
        let message = format!("hello over {transport}");
        demo.publish(json!({ "userIds": [ALICE], "transport": transport, "message": message })).await;
        alice.sees(&format!("#feed [data-message][data-transport={transport}]"), &message).await;
        assert_eq!(alice.count("#feed [data-message]", &message).await, 1);
    }
    demo.publish_to(ALICE, "hello over both").await;
    for transport in ["websocket", "sse"] {
        alice.sees(&format!("#feed [data-message][data-transport={transport}]"), "hello over both").await;
    }
    alice.screenshot("page-messages").await;
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_shown_as_text_and_never_as_markup() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    let markup = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    demo.publish_to(ALICE, markup).await;
    let notice = json!({ "type": "notice", "data": { "title": markup, "content": markup } });
    demo.publish_to(ALICE, &notice.to_string()).await;
    alice.sees("#feed [data-type=text]", markup).await;
    alice.sees(".toast-text", markup).await;
    assert_eq!(alice.count("#feed img, #feed script, #toasts img, #toasts script", "").await, 0);
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_of_one_browser_are_two_users_who_chat() {
    let demo = Demo::start().await;
    let browser = signed_in(&demo, "alice").await;
    let alice = browser.tab().await;
    let bob = browser.open_tab().await;
    sign_in(&browser, &demo, "bob").await;

    browser.turn_to(&alice).await;
    say(&browser, "Is the parcel on its way?").await;
    browser.sees("#chat-log [data-chat][data-own=true]", "Is the parcel on its way?").await;
    browser.turn_to(&bob).await;
    browser.sees("#chat-log [data-chat][data-own=false]", "Is the parcel on its way?").await;
    browser.sees("#chat-log [data-chat]", "Alice Chen to everyone").await;

    browser.choose("#chat-to", "1").await;
    say(&browser, "It left this morning.").await;
    browser.sees("#chat-log [data-chat][data-own=true]", "It left this morning.").await;
    browser.turn_to(&alice).await;
    browser.sees("#chat-log [data-chat][data-own=false]", "It left this morning.").await;
    browser.sees("#chat-log [data-chat]", "Bob Li to you").await;
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_the_right_one_still_works() {
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
    // A login that ends unseen shows at the page's next request.
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
async fn a_notice_reaches_everybody_on_both_transports() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.fill("#notice-title", "Planned maintenance").await;
    alice.fill("#notice-content", "We restart the service at 22:00.").await;
    alice.click("#notice-send").await;
    alice.sees("#notice-result", "Sent to everybody.").await;
    for user in [&alice, &bob] {
        user.sees(".toast:has([data-transport=websocket]):has([data-transport=sse])", "Planned maintenance")
            .await;
        for transport in ["websocket", "sse"] {
            let entry = format!("#feed [data-type=notice][data-transport={transport}]");
            user.sees(&entry, "We restart the service at 22:00.").await;
        }
        assert_eq!(user.complaints().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_reaches_its_buyer_over_sse_and_its_seller_over_websocket() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.click("#order-paid").await;
    for (user, transport) in [(&alice, "sse"), (&bob, "websocket")] {
        user.sees("#order-number", "SO-").await;
        user.sees("#order-steps [data-step=paid][data-reached=true]", "Paid").await;
        user.sees(&format!("#feed [data-type=order][data-transport={transport}]"), "is paid").await;
    }
    bob.click("#order-shipped").await;
    for user in [&alice, &bob] {
        user.sees("#order-steps [data-step=shipped][data-reached=true]", "Shipped").await;
        assert_eq!(user.count("#order-steps [data-step=delivered][data-reached=true]", "").await, 0);
        assert_eq!(user.count("#feed [data-type=order]", "").await, 2, "each status came once");
        assert_eq!(user.complaints().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_reaches_its_applicant_alone() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.choose("#approval-applicant", "2").await;
    alice.click("#approval-approve").await;
    bob.sees(".toast", "Travel request approved").await;
    bob.sees(".toast", "Decided by Alice Chen").await;
    bob.sees("#feed [data-type=approval][data-transport=sse]", "Travel request approved").await;
    alice.sees("#approval-result", "Sent to Bob Li.").await;
    demo.publish_to(ALICE, "the message after it").await;
    alice.sees("#feed [data-transport=sse]", "the message after it").await;
    assert_eq!(alice.count("#feed [data-type=approval]", "").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_moves_for_everybody_who_watches() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.click("#dashboard-start").await;
    for user in [&alice, &bob] {
        user.sees("#dashboard-live", "Live").await;
        user.until("document.querySelector('#dashboard-chart .chart-line').getAttribute('d')?.includes('L')")
            .await;
        user.until("!isNaN(parseInt(document.getElementById('tile-orders').textContent))").await;
        user.sees("#tile-online", "2").await;
        assert_eq!(user.complaints().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_comes_in_tokens_and_then_is_done() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    alice.fill("#ai-prompt", "Why is the sky blue?").await;
    alice.click("#ai-start").await;
    let answer = "document.getElementById('ai-answer')";
    alice.until(&format!("{answer}.ariaBusy === 'true' && {answer}.textContent")).await;
    alice.sees("#ai-answer", "You asked: “Why is the sky blue?”.").await;
    alice.sees("#ai-result", "Done").await;
    alice.sees("#ai-answer[aria-busy=false]", "nothing else has to change.").await;
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_who_is_online_and_who_has_left() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    for user in [&alice, &bob] {
        user.sees("#online-total", "2 online").await;
        for person in [ALICE, BOB] {
            for transport in ["websocket", "sse"] {
                let tag = format!("#online-list [data-user='{person}'] [data-transport={transport}]");
                user.sees(&tag, " 1").await;
            }
        }
    }
    bob.click("#sign-out").await;
    bob.sees("#login-form", "Sign in").await;
    alice.sees("#online-total", "1 online").await;
    assert_eq!(alice.count("#online-list [data-user]", "").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_follows_within_a_second_when_somebody_comes_or_goes() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    alice.sees("#online-total", "1 online").await;
    // When the page has shown which total, and what it was told before.
    let watch = "
        const total = document.getElementById('online-total');
        window.shown = {};
        new MutationObserver(() => shown[total.textContent] ??= Date.now()).observe(total, { childList: true });
        window.sinceOf = (state) => {
          const told = [...document.querySelectorAll('#feed [data-type=presence] .feed-raw')];
          const changes = told.flatMap((each) => JSON.parse(each.textContent).data.changes);
          return Date.parse(changes.find((each) => each.userId === 2 && each.state === state)?.since);
        };";
    alice.run(watch, &[]).await;
    let after = async |total: &str, state: &str| {
        let late = format!("shown['{total}'] - sinceOf('{state}')");
        alice.until(&format!("{late} > 0")).await;
        alice.run(&format!("return {late};"), &[]).await.as_f64().unwrap()
    };

    let bob = signed_in(&demo, "bob").await;
    let came = after("2 online", "online").await;
    assert!(came < 1_000.0, "shown {came} ms after he came");
    alice.run("delete shown['1 online'];", &[]).await;
    bob.click("#sign-out").await;
    let went = after("1 online", "offline").await;
    assert!((2_000.0..3_000.0).contains(&went), "shown {went} ms after he went, and he has two seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_two_nodes_on_one_redis_show_each_others_users_and_messages() {
    let redis = Redis::start().await;
    let node = async |name: &str| {
        Demo::start_with(&[("REALTIME__REDIS__URL", &*redis.url()), ("REALTIME__SERVER__NODE", name)]).await
    };
    let (node_a, node_b) = (node("node-a").await, node("node-b").await);
    let (alice, bob) = tokio::join!(signed_in(&node_a, "alice"), signed_in(&node_b, "bob"));
    for page in [&alice, &bob] {
        page.sees("#online-list [data-user]", "Alice Chen").await;
        page.sees("#online-list [data-user]", "Bob Li").await;
    }
    say(&alice, "Is the parcel on its way?").await;
    bob.sees("#chat-log [data-chat][data-own=false]", "Is the parcel on its way?").await;
    node_b.publish(json!({ "broadcast": true, "message": "from the other node" })).await;
    for transport in ["websocket", "sse"] {
        alice.sees(&format!("#feed [data-message][data-transport={transport}]"), "from the other node").await;
    }
    alice.screenshot("page-two-nodes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_just_left_is_still_in_the_list_and_marked() {
    let demo = Demo::start_with(&[("REALTIME__PRESENCE__GRACE", "1m")]).await;
    let (alice, bob) = alice_and_bob(&demo).await;
    bob.click("#sign-out").await;
    alice.sees(&format!("#online-list [data-user='{BOB}']"), "just left").await;
    alice.sees("#online-total", "2 online").await;
    alice.screenshot("page-just-left").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_leads_back_to_the_login_and_a_new_login_works() {
    let demo = Demo::start_with(&[("REALTIME__SSE__RETRY", "200ms")]).await;
    let alice = signed_in(&demo, "alice").await;
    let (status, answer) = demo.api(Method::DELETE, &format!("/api/online/{ALICE}"), None).await;
    assert_eq!((status, &answer["closed"]), (200, &json!(2)));
    alice.sees("#login-notice", "Your session has ended").await;
    assert_eq!(alice.count(".workspace", "").await, 0);
    demo.until_sessions(ALICE, 0).await;
    alice.screenshot("page-kicked").await;

    fill_in(&alice, "alice", "demo").await;
    connected(&alice).await;
    demo.publish_to(ALICE, "welcome back").await;
    for transport in ["websocket", "sse"] {
        alice.sees(&format!("#feed [data-transport={transport}]"), "welcome back").await;
    }
    assert_eq!(demo.sessions(ALICE).await, 2, "nothing of the kicked login came back");
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
        alice.sees(&format!("#feed [data-transport={transport}]"), "after the reload").await;
    }
    assert_eq!(alice.count("#feed [data-message]", "after the reload").await, 2);
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_comes_back_by_itself_when_its_server_does() {
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
        alice.sees(&format!("#feed [data-gap][data-transport={transport}]"), "may have been missed").await;
        alice.sees(&format!("#feed [data-message][data-transport={transport}]"), "after the restart").await;
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
        alice.sees(&format!("#feed [data-transport={on}]"), "one way is enough").await;
        alice.screenshot(&format!("page-without-{off}")).await;
        assert_eq!(alice.complaints().await, [""; 0], "without {off}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_fits_every_screen_in_light_and_dark() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.click("#dashboard-start").await;
    alice.click("#order-paid").await;
    say(&bob, "Good morning, Alice. The parcel leaves at noon.").await;
    say(&alice, "Thank you!").await;
    alice.click("#ai-start").await;
    bob.fill("#notice-title", "Planned maintenance").await;
    bob.fill("#notice-content", "We restart the service at 22:00.").await;
    bob.click("#notice-send").await;
    alice.sees("#ai-result", "Done").await;
    alice.sees("#online-total", "2 online").await;

    let visitor = Browser::start().await;
    visitor.open(&demo.url("/")).await;
    visitor.sees("#login-hint", "demo").await;
    for (screen, screen_name) in [(Screen::Desktop, "desktop"), (Screen::Phone, "phone")] {
        for (scheme, scheme_name) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
            for (browser, page) in [(&alice, "scenes"), (&visitor, "login")] {
                browser.show_on(screen).await;
                browser.prefer(scheme).await;
                browser.run("scrollTo(0, 0);", &[]).await;
                let width = browser.run("return document.documentElement.scrollWidth;", &[]).await;
                let width = width.as_u64().unwrap();
                assert!(width <= screen.size().0.into(), "{page} on {screen_name} is {width} pixels wide");
                let ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)";
                let dark = browser.run(&format!("return {ground}.every((part) => part < 128);"), &[]).await;
                assert_eq!(dark, scheme == Scheme::Dark, "{page} on {screen_name}");
                browser.screenshot(&format!("page-{page}-{screen_name}-{scheme_name}")).await;
                browser
                    .screenshot_whole(screen, &format!("page-{page}-{screen_name}-{scheme_name}-whole"))
                    .await;
            }
        }
    }
    assert_eq!(alice.complaints().await, [""; 0]);
    assert_eq!(visitor.complaints().await, [""; 0]);
}

/// Two people, each at a browser of their own.
async fn alice_and_bob(demo: &Demo) -> (Browser, Browser) {
    (signed_in(demo, "alice").await, signed_in(demo, "bob").await)
}

async fn signed_in(demo: &Demo, user: &str) -> Browser {
    let browser = Browser::start().await;
    sign_in(&browser, demo, user).await;
    browser
}

/// Signs in through the form, in the tab that the browser is turned to.
async fn sign_in(browser: &Browser, demo: &Demo, user: &str) {
    browser.open(&demo.url("/")).await;
    fill_in(browser, user, "demo").await;
    connected(browser).await;
}

async fn fill_in(browser: &Browser, user: &str, password: &str) {
    browser.choose("#login-user", user).await;
    browser.fill("#login-password", password).await;
    browser.click("#login-submit").await;
}

async fn connected(browser: &Browser) {
    for transport in ["websocket", "sse"] {
        browser.sees(&format!("#badge-{transport}[data-state=connected]"), "connected").await;
    }
}

async fn say(browser: &Browser, text: &str) {
    browser.fill("#chat-text", text).await;
    browser.click("#chat-send").await;
}
