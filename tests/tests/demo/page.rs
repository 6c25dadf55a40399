//! The demo's page in a real browser, and what its users do there.

mod foreign_users;
mod logins;
mod scenes;
mod who_is_online;

use realtime_tests::{Browser, Demo};

const ALICE: i64 = 1;
const BOB: i64 = 2;

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
