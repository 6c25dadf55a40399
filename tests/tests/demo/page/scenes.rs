//! The page shows each message under the transport that delivered it, as text, and to its recipients only.

use realtime_tests::{Browser, Demo, Scheme, Screen, token};
use reqwest::Method;
use serde_json::json;

use super::{ALICE, alice_and_bob, fill_in, say, sign_in, signed_in};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_appears_under_the_transport_that_brought_it() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    for transport in ["websocket", "sse"] {
        let message = format!("hello over {transport}");
        demo.publish(json!({ "userIds": [ALICE], "transport": transport, "message": message })).await;
        alice.sees(&format!("#feed [data-message]:has([data-transport={transport}])"), &message).await;
        assert_eq!(alice.count("#feed [data-message]", &message).await, 1);
    }
    demo.publish_to(ALICE, "hello over both").await;
    let both = "#feed [data-message]:has([data-transport=websocket]):has([data-transport=sse])";
    alice.sees(both, "hello over both").await;
    assert_eq!(alice.count("#feed [data-message]", "hello over both").await, 1, "one line for both");
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
async fn a_notice_reaches_all_users_on_both_transports() {
    let demo = Demo::start().await;
    let (alice, bob) = alice_and_bob(&demo).await;
    alice.fill("#notice-title", "Planned maintenance").await;
    alice.fill("#notice-content", "We restart the service at 22:00.").await;
    alice.click("#notice-send").await;
    alice.sees("#notice-result", "Sent to everybody.").await;
    for user in [&alice, &bob] {
        user.sees(".toast:has([data-transport=websocket]):has([data-transport=sse])", "Planned maintenance")
            .await;
        let entry = "#feed [data-type=notice]:has([data-transport=websocket]):has([data-transport=sse])";
        user.sees(entry, "We restart the service at 22:00.").await;
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
        user.sees(&format!("#feed [data-type=order]:has([data-transport={transport}])"), "is paid").await;
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
    bob.sees("#feed [data-type=approval]:has([data-transport=sse])", "Travel request approved").await;
    alice.sees("#approval-result", "Sent to Bob Li.").await;
    demo.publish_to(ALICE, "the message after it").await;
    alice.sees("#feed [data-message]:has([data-transport=sse])", "the message after it").await;
    assert_eq!(alice.count("#feed [data-type=approval]", "").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_moves_for_all_who_watch() {
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
async fn an_answer_goes_on_over_reloads_and_can_be_stopped() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    alice.click("#ai-start").await;
    for words in ["You asked", "reaches you is real", "which all of your sessions follow"] {
        alice.sees("#ai-answer", words).await;
        alice.reload().await;
    }
    alice.sees("#ai-result", "Done").await;
    let shown = alice.run("return document.getElementById('ai-answer').textContent;", &[]).await;
    let url = demo.url(&format!(
        "/demo/ai/{}?Authorization={}",
        alice.run("return sessionStorage.getItem('realtime.answer.1');", &[]).await.as_str().unwrap(),
        token(ALICE)
    ));
    let (status, answer) = demo.call(Method::GET, url, None).await;
    assert_eq!((status, &answer["text"], &answer["state"]), (200, &shown, &json!("done")));

    alice.click("#ai-start").await;
    alice.sees("#ai-answer", "You asked").await;
    alice.click("#ai-stop").await;
    alice.sees("#ai-result", "Stopped.").await;
    assert_eq!(alice.count("#ai-answer", "has to change").await, 0);
    assert_eq!(alice.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_from_china_reads_chinese() {
    let demo = Demo::start().await;
    let visitor = Browser::start().await;
    visitor.speak("zh-CN").await;
    visitor.open(&demo.url("/")).await;
    visitor.sees("#login-submit", "登录").await;
    fill_in(&visitor, "alice", "demo").await;
    visitor.sees("#badge-sse[data-state=connected]", "已连接").await;
    visitor.click("#order-paid").await;
    visitor.sees("#feed [data-type=order]", "已付款").await;
    visitor.screenshot("page-scenes-chinese").await;
    let english =
        "[...document.querySelectorAll('.workspace h2, .workspace .card-text, .workspace .field-label')]
        .map((each) => each.textContent).filter((text) => !/\\p{Script=Han}/u.test(text))";
    assert_eq!(visitor.run(&format!("return {english};"), &[]).await, json!([]));
    assert_eq!(visitor.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_that_are_none_break_nothing() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    for data in [json!(null), json!({}), json!({ "orders": "x", "revenue": {}, "online": [], "cpu": "<b>" })]
    {
        let message = json!({ "type": "dashboard", "data": data }).to_string();
        demo.publish_to(ALICE, &message).await;
    }
    for kind in ["order", "presence", "chat", "approval", "constructor"] {
        demo.publish_to(ALICE, &json!({ "type": kind, "data": 7 }).to_string()).await;
    }
    demo.publish_to(ALICE, "still here").await;
    alice
        .sees("#feed [data-message]:has([data-transport=websocket]):has([data-transport=sse])", "still here")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_does_not_flood_the_feed_until_it_is_asked_for() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    alice.click("#dashboard-start").await;
    let filter = "#feed-filters .chip[aria-pressed=false]";
    alice.sees(filter, "dashboard").await;
    demo.publish_to(ALICE, "a message").await;
    alice.sees("#feed [data-message]", "a message").await;
    let shown = "[...document.querySelectorAll('#feed [data-type=dashboard]')].filter((each) => each.checkVisibility()).length";
    alice.until("document.querySelectorAll('#feed [data-type=dashboard]').length > 1").await;
    assert_eq!(alice.run(&format!("return {shown};"), &[]).await, 0);
    alice.click(filter).await;
    alice.until(&format!("{shown} > 1")).await;
    alice.sees("#feed-filters .chip[aria-pressed=true]", "dashboard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pressed_shows_that_it_is_done() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    for button in ["#approval-approve", "#order-paid"] {
        alice.click(button).await;
        alice.until(&format!("document.querySelector('{button}[data-done]')")).await;
    }
    alice.until("!document.querySelector('[data-done], [data-busy]')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_answer_and_chat_at_once_and_everything_is_within_reach_of_a_thumb() {
    let demo = Demo::start().await;
    let visitor = Browser::start().await;
    visitor.show_on(Screen::Phone).await;
    visitor.open(&demo.url("/")).await;
    visitor.sees("#login-hint", "demo").await;
    let small = "const controls = 'button, a, input, select, textarea, summary';
        return [...document.querySelectorAll(controls)].filter((each) => each.checkVisibility())
            .map((each) => [each.id || each.textContent, each.getBoundingClientRect()])
            .filter(([, { width, height }]) => width < 44 || height < 44).map(([name]) => name);";
    assert_eq!(visitor.run(small, &[]).await, json!([]));
    sign_in(&visitor, &demo, "alice").await;
    say(&visitor, "hello").await;
    visitor.sees("#feed [data-type=chat]", "hello").await;
    visitor.click("#ai-start").await;
    visitor.sees("#ai-result", "Done").await;
    assert_eq!(visitor.run(small, &[]).await, json!([]));
    visitor.run("scrollTo(0, 0);", &[]).await;
    let place = "const [selector] = arguments;
        const { top, bottom, left, right } = document.querySelector(selector).getBoundingClientRect();
        return { top, bottom, left, right };";
    let (width, height) = Screen::Phone.size();
    for control in ["#ai-answer", "#ai-start", "#chat-log", "#chat-send"] {
        let place = visitor.run(place, &[json!(control)]).await;
        assert!(
            place["top"].as_f64() >= Some(0.0) && place["bottom"].as_f64() <= Some(height.into()),
            "{control}: {place}"
        );
    }
    // One row, in the screen, with nothing on top of another.
    let mut end = 0.0;
    for part in [".brand img", "#badge-websocket", "#badge-sse", "#current-user", "#sign-out"] {
        let place = visitor.run(place, &[json!(part)]).await;
        let at = |side: &str| place[side].as_f64().unwrap();
        assert!(at("left") >= end && at("right") <= width.into() && at("bottom") <= 60.0, "{part}: {place}");
        end = at("right");
    }
    let cut = "return [...document.querySelectorAll('.topbar *, .card-head *, .card-text, .button, .chip')]
        .filter((each) => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== 'inline')
        .map((each) => each.id || each.textContent);";
    assert_eq!(visitor.run(cut, &[]).await, json!([]));
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
