//! The page's list of users follows who comes and goes, on all nodes.

use realtime_tests::{Demo, Redis};
use serde_json::json;

use super::{ALICE, BOB, alice_and_bob, say, signed_in};

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
async fn the_list_follows_within_a_second_when_a_user_comes_or_goes() {
    let demo = Demo::start().await;
    let alice = signed_in(&demo, "alice").await;
    alice.sees("#online-total", "1 online").await;
    // Times at which the page showed each total, and the changes that it had received.
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
        alice
            .sees(&format!("#feed [data-message]:has([data-transport={transport}])"), "from the other node")
            .await;
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
