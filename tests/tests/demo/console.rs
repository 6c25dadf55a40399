//! The console in a real browser: what operators see and do there.

mod cluster;
mod operators;
mod screens;

use realtime_tests::{API_KEY, Browser, Demo};

const INTERNAL: (&str, &str) = ("REALTIME__SERVER__INTERNAL", "127.0.0.1:0");

/// A demo with a console.
async fn demo() -> Demo {
    Demo::start_with(&[INTERNAL]).await
}

/// A browser in which the console of a demo is open.
async fn opened(demo: &Demo) -> Browser {
    let browser = Browser::start().await;
    open(&browser, &demo.api_url("/console/")).await;
    browser
}

/// Opens the console at an address with the key.
async fn open(browser: &Browser, url: &str) {
    browser.open(url).await;
    browser.fill("#gate-key", API_KEY).await;
    browser.click("#gate-submit").await;
    browser.sees("#health[data-state=ok]", "ready").await;
}

/// Shows a view.
async fn show(browser: &Browser, view: &str) {
    browser.run("location.hash = arguments[0];", &[view.into()]).await;
    let name = view.trim_start_matches("#/").split(['/', '?']).next().unwrap();
    browser.until(&format!("document.querySelector('#view[data-view={name}]')")).await;
}
