//! The console on screens of either kind, in both colour schemes and languages.

use realtime_tests::{Browser, Scheme, Screen};
use serde_json::json;

use super::{demo, open, opened, show};

/// The views, by the addresses at which most is to be seen.
const VIEWS: [&str; 7] =
    ["#/overview", "#/nodes", "#/users", "#/user/7", "#/publish", "#/explain?user=7", "#/trace?user=7"];

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_nothing_is_cut_off_and_a_finger_meets_every_control() {
    let demo = demo().await;
    let _sessions = (demo.socket(7).await, demo.stream(7).await, demo.socket(8).await);
    let browser = opened(&demo).await;
    browser.show_on(Screen::Phone).await;
    for view in VIEWS {
        show(&browser, view).await;
        browser
            .until(
                "document.querySelector('#view').childElementCount && !document.querySelector('[aria-busy]')",
            )
            .await;
        let wide = "return document.documentElement.scrollWidth - innerWidth;";
        assert_eq!(browser.run(wide, &[]).await, 0, "{view} scrolls to the side");
        let small = "
            const controls = document.querySelectorAll('a:not(.skip, .row-link), button, select, textarea, label:has(input)');
            const seen = [...controls].filter((each) => each.checkVisibility());
            return seen.filter((each) => {
              const { width, height } = each.getBoundingClientRect();
              return width < 44 || height < 44;
            }).map((each) => each.outerHTML);";
        assert_eq!(browser.run(small, &[]).await, json!([]), "{view}");
        for (scheme, name) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
            browser.prefer(scheme).await;
            let view = view.trim_start_matches("#/").split(['?', '/']).next().unwrap();
            browser.screenshot(&format!("console-phone-{view}-{name}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyboard_reaches_everything_and_shows_where_it_is() {
    let demo = demo().await;
    let _socket = demo.socket(7).await;
    let browser = opened(&demo).await;
    show(&browser, "#/user/7").await;
    browser.sees("#view td", "WebSocket").await;
    browser.run("document.activeElement.blur();", &[]).await;
    let mut reached = Vec::new();
    for _ in 0..20 {
        browser.press("Tab").await;
        let focused = "
            const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
            return [document.activeElement.textContent.trim(), outlineStyle !== 'none' && outlineWidth !== '0px'];";
        let focused = browser.run(focused, &[]).await;
        if browser.run("return document.activeElement === document.body;", &[]).await == true {
            // Behind the last control and before the first one the browser's own would come.
            continue;
        }
        assert_eq!(focused[1], true, "the focus on {} is not to be seen", focused[0]);
        reached.push(focused[0].as_str().unwrap().to_owned());
    }
    let expected =
        ["Skip to the content", "Overview", "Nodes", "Users", "Publish", "Explain", "Trace", "Sign out"];
    let from = reached.iter().position(|text| text == expected[0]).expect("the skip link comes first");
    assert_eq!(reached[from..from + expected.len()], expected);
    assert!(reached.iter().filter(|text| *text == "Kick").count() >= 2, "{reached:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_the_language_of_the_browser() {
    let demo = demo().await;
    let browser = Browser::start().await;
    browser.speak("zh-CN").await;
    browser.open(&demo.api_url("/console/")).await;
    browser.sees("#gate-submit", "进入控制台").await;
    browser.fill("#gate-key", realtime_tests::API_KEY).await;
    browser.click("#gate-submit").await;
    browser.sees("#health", "就绪").await;
    for (view, title) in VIEWS.into_iter().zip(["概览", "节点", "用户", "用户 7", "发布", "诊断", "追踪"])
    {
        show(&browser, view).await;
        browser.sees("#title", title).await;
        browser.until("!document.querySelector('[aria-busy]')").await;
        let english = browser.run("return document.querySelector('#view').innerText;", &[]).await;
        for word in ["Sessions", "Node", "User", "Message", "This ", "online"] {
            assert!(!english.as_str().unwrap().contains(word), "{view} has {word:?} in {english}");
        }
    }
    assert_eq!(browser.run("return document.documentElement.lang;", &[]).await, "zh-CN");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_desktop_in_either_scheme() {
    let demo = demo().await;
    let browser = Browser::start().await;
    browser.open(&demo.api_url("/console/")).await;
    browser.sees("#gate-submit", "Open").await;
    browser.screenshot("console-gate").await;
    open(&browser, &demo.api_url("/console/")).await;
    let _sessions = (demo.socket(7).await, demo.stream(7).await, demo.socket(8).await);
    for view in VIEWS {
        show(&browser, view).await;
        browser.until("!document.querySelector('[aria-busy]')").await;
        assert_eq!(
            browser.run("return document.documentElement.scrollWidth <= innerWidth;", &[]).await,
            true,
            "{view}"
        );
        for (scheme, name) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
            browser.prefer(scheme).await;
            let view = view.trim_start_matches("#/").split(['?', '/']).next().unwrap();
            browser.screenshot(&format!("console-{view}-{name}")).await;
        }
    }
}
