//! Ids of users beyond 2^53, such as RuoYi's snowflakes, reach browsers with all digits, and are taken as number and as
//! text. Browsers round a JSON number to the next that a double has.

use realtime_tests::{Demo, EventStream, Socket, sign, token};
use reqwest::Method;
use serde_json::{Value, json};

/// Neighbours: a double has the first only.
const IDS: [i64; 2] = [9_007_199_254_740_992, 9_007_199_254_740_993];

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_its_events_write_them_as_text_and_take_both() {
    let demo = Demo::start().await;
    let claims = json!({ "userId": 7, "exp": 4_102_444_800_u64, "topics": ["presence"] });
    let mut watcher = EventStream::open(&demo, &sign(&claims), None).await.unwrap();
    let (mut first, mut second) = (demo.socket(IDS[0]).await, demo.socket(IDS[1]).await);
    let mut told = Vec::new();
    while told.len() < 2 {
        let event: Value = serde_json::from_str(&watcher.next().await.unwrap().data).unwrap();
        let changes = event["data"]["changes"].as_array().unwrap();
        told.extend(changes.iter().map(|change| change["userId"].clone()).filter(|user| *user != 7));
    }
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["9007199254740992", "9007199254740993"]);

    demo.publish(json!({ "userIds": [IDS[1]], "message": "by number" })).await;
    demo.publish(json!({ "userIds": [IDS[1].to_string()], "message": "by text" })).await;
    demo.publish(json!({ "userIds": [IDS[0]], "message": "to the neighbour" })).await;
    assert_eq!((second.text().await, second.text().await), ("by number".into(), "by text".into()));
    assert_eq!(first.text().await, "to the neighbour");

    let (_, page) = demo.api(Method::GET, "/api/online", None).await;
    let users = page["items"].as_array().unwrap().iter().map(|item| &item["userId"]);
    assert_eq!(
        users.collect::<Vec<_>>(),
        [&json!(7), &json!("9007199254740992"), &json!("9007199254740993")]
    );
    let (_, user) = demo.api(Method::GET, "/api/online/9007199254740993", None).await;
    assert_eq!(
        (&user["userId"], user["sessions"].as_array().unwrap().len()),
        (&json!("9007199254740993"), 1)
    );
    // A token may have it as text as well.
    let claims = json!({ "userId": "9007199254740993", "exp": 4_102_444_800_u64 });
    let _third = Socket::open(&demo, &sign(&claims), &[], None).await.unwrap();
    let online =
        reqwest::get(demo.url(&format!("/demo/online?Authorization={}", token(IDS[0])))).await.unwrap();
    let online: Value = online.json().await.unwrap();
    let last = &online["data"]["items"][2];
    assert_eq!((&last["userId"], &last["name"]), (&json!("9007199254740993"), &json!("9007199254740993")));
    assert_eq!(last["sessions"], 2);
    let (_, kicked) = demo.api(Method::DELETE, "/api/online/9007199254740993", None).await;
    assert_eq!(kicked, json!({ "closed": 2 }));
    demo.until_sessions(IDS[0], 1).await;
}
