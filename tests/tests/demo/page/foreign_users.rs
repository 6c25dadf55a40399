//! The page with users of a configuration: with ids beyond 2^53, a single one, or ones whose every text is hostile.

use realtime_tests::{Browser, Demo};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{connected, fill_in, say};

/// Hash of the password `demo`.
const HASH: &str =
    "$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A$89E53bDvRgg+u9ttc8nEq3X6IMzs8w+A9rY6f1HA54Q";

/// What each hostile text is: it runs where it is taken for HTML.
const MARKUP: &str =
    "<img src=x onerror=\"window.hit=1\"><svg/onload=window.hit=2><script>window.hit=3</script>";

/// The same as an id, which has no white space.
const ID: &str = "\"><svg/onload=window.hit=4>";

/// Starts a demo with users, each with id, user name, name and role.
async fn demo_of(users: &[(Value, &str, &str, &str)], more: Value) -> (Demo, TempDir) {
    let users = users.iter().map(|(id, username, name, role)| {
        json!({ "id": id, "username": username, "name": name, "role": role, "password": HASH })
    });
    let mut file = json!({
        "websocket": { "enabled": true },
        "sse": { "enabled": true },
        "auth": { "users": users.collect::<Vec<_>>(), "showUsers": true, "passwordHint": "" },
    });
    file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    (Demo::start_from(&["--config", path.to_str().unwrap()], &[]).await, folder)
}

async fn signed_in(demo: &Demo, user: &str) -> Browser {
    let browser = Browser::start().await;
    browser.open(&demo.url("/")).await;
    browser.sees("#login-user", "").await;
    // A user's name may be no selector.
    let index = "const users = document.getElementById('login-user');
        users.selectedIndex = [...users.options].findIndex((each) => each.value === arguments[0]);
        return users.selectedIndex;";
    browser.until("document.querySelector('#login-user option')").await;
    assert_ne!(browser.run(index, &[json!(user)]).await, -1);
    browser.fill("#login-password", "demo").await;
    browser.click("#login-submit").await;
    connected(&browser).await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_beyond_2_to_the_53_are_two_users_to_the_page() {
    let users = [
        (json!(9_007_199_254_740_992_i64), "lin", "Lin", "buyer"),
        (json!(9_007_199_254_740_993_i64), "wei", "Wei", "seller"),
        (json!("9007199254740994"), "su", "Su", "manager"),
    ];
    let (demo, _folder) = demo_of(&users, json!({})).await;
    let (lin, wei) = (signed_in(&demo, "lin").await, signed_in(&demo, "wei").await);
    let su = signed_in(&demo, "su").await;
    lin.sees("#online-list [data-user='9007199254740992']", "Lin (you)").await;
    lin.sees("#online-list [data-user='9007199254740993']", "Wei").await;
    lin.sees("#feed [data-type=presence]", "Wei is online").await;

    su.choose("#chat-to", "9007199254740993").await;
    say(&su, "for Wei alone").await;
    wei.sees("#chat-log [data-chat][data-own=false]", "for Wei alone").await;
    wei.sees("#chat-log [data-chat]", "Su to you").await;
    say(&lin, "for all").await;
    for user in [&lin, &wei, &su] {
        user.sees("#chat-log [data-chat]", "for all").await;
    }
    assert_eq!(lin.count("#chat-log [data-chat]", "for Wei alone").await, 0);

    su.choose("#approval-applicant", "9007199254740993").await;
    su.click("#approval-approve").await;
    wei.sees(".toast", "Travel request").await;
    assert_eq!(lin.count(".toast", "").await, 0);

    su.click("[data-kick='9007199254740993']").await;
    wei.sees("#login-notice", "an administrator ended it").await;
    lin.sees("#online-total", "2 online").await;
    demo.until_sessions(9_007_199_254_740_992, 2).await;
    for user in [lin, su] {
        assert_eq!(user.complaints().await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_one_user_without_a_hint_works() {
    let (demo, _folder) = demo_of(&[(json!(1), "solo", "Solo", "buyer")], json!({})).await;
    let solo = Browser::start().await;
    solo.open(&demo.url("/")).await;
    solo.sees("#login-user", "Solo").await;
    let shown = solo
        .run("return document.body.innerText + document.getElementById('login-password').placeholder;", &[]);
    let shown = shown.await;
    assert!(!shown.as_str().unwrap().contains("null"), "{shown}");
    fill_in(&solo, "solo", "demo").await;
    connected(&solo).await;
    solo.click("#approval-approve").await;
    solo.sees(".toast", "Travel request").await;
    say(&solo, "to myself").await;
    solo.sees("#chat-log [data-chat]", "to myself").await;
    solo.click("#order-paid").await;
    solo.sees("#order-result", "auth.users has nobody of the role `seller`").await;
    solo.click("#dashboard-start").await;
    solo.sees("#dashboard-live", "Live").await;
    assert_eq!(solo.complaints().await.len(), 1, "the browser reports the status 400 of the order");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_the_page_takes_a_text_for_markup() {
    let users = [
        (json!(ID), MARKUP, MARKUP, "buyer"),
        (json!(format!("{ID}2")), "seller", MARKUP, "seller"),
        (json!(3), "other", "Other", MARKUP),
    ];
    let (demo, _folder) = demo_of(&users, json!({})).await;
    let (me, seller) = (signed_in(&demo, MARKUP).await, signed_in(&demo, "seller").await);
    // Names, ids and roles: header, title, list, selections.
    me.sees("#current-user", MARKUP).await;
    me.sees("#online-list .person-name", &format!("{MARKUP} (you)")).await;
    me.sees("#feed [data-type=presence]", &format!("{MARKUP} is online")).await;
    assert_eq!(me.count("#chat-to option, #approval-applicant option", MARKUP).await, 3);

    // What the page itself sends: chat, notice, approval, order, prompt.
    me.fill("#chat-text", MARKUP).await;
    me.click("#chat-send").await;
    me.sees("#chat-log .chat-bubble", MARKUP).await;
    seller.sees("#chat-log .chat-bubble", MARKUP).await;
    seller.sees("#chat-log .chat-head", MARKUP).await;
    me.fill("#notice-title", &MARKUP[..80]).await;
    me.fill("#notice-content", MARKUP).await;
    me.click("#notice-send").await;
    seller.sees(".toast-title", &MARKUP[..80]).await;
    seller.sees(".toast-text", MARKUP).await;
    seller.fill("#approval-title", &MARKUP[..80]).await;
    seller.run("document.getElementById('approval-applicant').selectedIndex = 0;", &[]).await;
    seller.click("#approval-approve").await;
    seller.sees("#approval-result", MARKUP).await;
    me.sees(".toast-title", &MARKUP[..80]).await;
    me.fill("#ai-prompt", MARKUP).await;
    me.click("#ai-start").await;
    me.sees("#ai-answer", MARKUP).await;

    // What anybody may publish: each type and field, as text and as what it should not be.
    let odd = [json!(MARKUP), json!(null), json!(7), json!({ "toString": 1 }), json!([MARKUP])];
    for value in &odd {
        for kind in [
            "order",
            "notice",
            "approval",
            "dashboard",
            "presence",
            "chat",
            "error",
            "text",
            MARKUP,
            "constructor",
        ] {
            let person = json!({ "id": value, "name": value });
            let data = json!({
                "orderNo": value, "status": value, "buyer": value, "seller": value, "title": value, "content": value,
                "from": person, "by": person, "to": value, "text": value, "result": value, "orders": value,
                "revenue": value, "online": value, "cpu": value,
                "changes": [{ "userId": value, "state": value, "since": value }],
            });
            for data in [data, value.clone()] {
                let message = json!({ "type": kind, "data": data, "time": value }).to_string();
                demo.publish(json!({ "userIds": [ID], "message": message })).await;
            }
        }
    }
    demo.publish(json!({ "userIds": [ID], "message": MARKUP, "event": "x<script>alert(1)</script>" })).await;
    let order = json!({ "type": "order", "data": { "orderNo": MARKUP, "status": "paid" } });
    demo.publish(json!({ "userIds": [ID], "message": order.to_string() })).await;
    demo.publish(json!({ "userIds": [ID], "message": "the last one" })).await;
    me.sees("#feed [data-message]:has([data-transport=sse]):has([data-transport=websocket])", "the last one")
        .await;
    me.sees("#feed-filters .chip", MARKUP).await;
    me.sees("#order-number", MARKUP).await;

    // What a server may say: reasons of an end and of a gap, names of nodes, errors.
    let words = "const [text] = arguments;
        return Promise.all([import('/assets/badge.js'), import('/assets/feed.js'), import('/assets/ui.js'), import('/assets/login.js')])
          .then(([{ Badge }, { Feed }, { perform, byId }, { showLogin }]) => {
            new Badge('sse', text, () => {}).show('closed', text);
            new Feed(() => text, 'none').addGap('sse', text);
            byId('node').textContent = text;
            showLogin(text);
            return perform(byId('chat-result'), () => Promise.reject(new Error(text)));
          }).then(() => document.body.innerText);";
    let shown = me.run(words, &[json!(MARKUP)]).await;
    assert!(shown.as_str().unwrap().matches(MARKUP).count() > 10, "{shown}");
    me.reload().await;
    connected(&me).await;
    me.sees("#feed [data-message]", "the last one").await;

    for user in [&me, &seller] {
        let found = "return { hit: window.hit ?? 0, nodes: document.querySelectorAll(
            'img:not([src^=assets]), svg:not([id]), body script, iframe, [onerror], [onload]').length };";
        assert_eq!(user.run(found, &[]).await, json!({ "hit": 0, "nodes": 0 }));
        assert_eq!(user.complaints().await, [""; 0]);
    }
}
