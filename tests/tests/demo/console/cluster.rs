//! The console of a node in a cluster, and behind a proxy.

use realtime_tests::{Demo, ProxyKind, Redis, ReverseProxy};
use reqwest::Method;

use super::{INTERNAL, demo, open, opened, show};

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_of_a_cluster_are_listed_and_one_that_was_killed_is_marked() {
    let redis = Redis::start().await;
    let node = async |name: &str| {
        let variables = [INTERNAL, ("REALTIME__REDIS__URL", &*redis.url()), ("REALTIME__SERVER__NODE", name)];
        Demo::start_with(&variables).await
    };
    let (here, there) = (node("push-a").await, node("push-b").await);
    let (_one, _two) = (here.socket(1).await, there.stream(2).await);
    here.until_sessions(2, 1).await;
    let browser = opened(&here).await;
    show(&browser, "#/nodes").await;
    browser.sees("#view .card-title", "2 nodes").await;
    for (name, state) in [("push-a", "up"), ("push-b", "up")] {
        let row = format!(
            "[...document.querySelectorAll('#view tr')].find((row) => row.textContent.includes('{name}'))"
        );
        let cell = |label: &str| format!("{row}?.querySelector('td[data-label={label}]').textContent");
        browser.until(&format!("{} === '{state}'", cell("State"))).await;
        browser.until(&format!("{} === '1'", cell("Sessions"))).await;
    }
    browser.sees(".name:has(.tag)", "push-a").await;
    drop(there);
    browser.sees("#view td[data-label=State]", "silent").await;
    browser.sees("#view td[data-label=State]", "gone").await;
    let (_, answer) = here.api(Method::GET, "/api/nodes", None).await;
    assert_eq!(answer["nodes"].as_array().unwrap().len(), 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_are_listed_again_after_an_answer_that_is_no_list() {
    let demo = demo().await;
    let browser = opened(&demo).await;
    show(&browser, "#/nodes").await;
    browser.sees("#view td[data-label=Sessions]", "0").await;
    // A proxy's page, and something that is JSON.
    let odd = "const ask = window.fetch;
        window.odd = [['<h1>Sign in</h1>', 'text/html'], ['{}', 'application/json']];
        window.fetch = (url, options) => {
            const answer = String(url).endsWith('/nodes') && window.odd.shift();
            if (!answer) return ask(url, options);
            return Promise.resolve(new Response(answer[0], { headers: { 'Content-Type': answer[1] } }));
        };";
    browser.run(odd, &[]).await;
    browser.until("window.odd.length === 0").await;
    let _socket = demo.socket(1).await;
    browser.sees("#view td[data-label=Sessions]", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_below_a_path_of_a_proxy() {
    let demo = demo().await;
    let below = (
        "location / {\n            return 404;",
        "location /ops/ {\n            proxy_pass http://realtime_internal/;",
    );
    let proxy = ReverseProxy::start(ProxyKind::Nginx, [demo.upstream(); 2], &[below]).await;
    let _socket = demo.socket(7).await;
    let browser = realtime_tests::Browser::start().await;
    // Without the slash, too.
    open(&browser, &proxy.internal_url("/ops/console")).await;
    show(&browser, "#/users").await;
    browser.sees("#view .row-link", "7").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
