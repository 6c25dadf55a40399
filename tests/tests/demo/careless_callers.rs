//! Bodies as other languages write them: with nulls for what is absent (Jackson, fastjson), and with all escapes that JSON
//! has (PHP).

use realtime_tests::{Demo, ServerKind, Socket, sign, token};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn null_is_absent_and_never_everybody() {
    let demo = Demo::start().await;
    let (mut one, mut two) = (demo.socket(1).await, demo.socket(2).await);
    let optional = r#""transport":null,"event":null,"idempotencyKey":null,"exceptSession":null,"ttl":null,
        "collapseKey":null,"retain":null,"confirm":null"#;
    for (target, status) in [
        (r#""userIds":[1],"topics":null,"broadcast":null"#, 200),
        (r#""userIds":null,"topics":["user:1"],"broadcast":false"#, 200),
        (r#""userIds":null,"topics":null,"broadcast":null"#, 400),
        (r#""userIds":[null],"topics":null,"broadcast":null"#, 400),
        (r#""userIds":null,"topics":[],"broadcast":null"#, 400),
        (r#""userIds":null,"topics":null,"broadcast":true"#, 200),
    ] {
        let body = format!(r#"{{{target},"message":{},{optional}}}"#, json!(target));
        let (answer, problem) = demo.try_publish(&body).await;
        assert_eq!(answer, status, "{body}: {problem}");
        if status == 200 {
            assert_eq!(one.text().await, target);
        }
    }
    assert!(two.text().await.contains(r#""broadcast":true"#), "only what names everybody is for everybody");
    let (status, answer) =
        demo.api(Method::DELETE, "/api/online/2", Some(r#"{"message":"bye","event":null}"#)).await;
    assert_eq!((status, &answer["closed"]), (200, &json!(1)), "{answer}");
    assert_eq!(two.text().await, "bye");
    let claims = json!({ "userId": 3, "exp": 4_102_444_800_u64, "clientid": null, "topics": null, "grants": null,
        "nbf": null, "iat": null, "sub": null });
    Socket::open(&demo, &sign(&claims), &[], None).await.unwrap();
    for path in ["order", "ai"] {
        let url = demo.url(&format!("/demo/{path}?Authorization={}", token(1)));
        let body = r#"{"status":"paid","orderNo":null}"#;
        let body = if path == "ai" { r#"{"prompt":"hi","id":null}"# } else { body };
        let (status, answer) = demo.call(Method::POST, url, Some(body)).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_line_that_names_nobody_is_for_nobody() {
    let demo = Demo::start().await;
    let (mut one, mut two) = (demo.socket(1).await, demo.socket(2).await);
    for line in [
        r#"{"type":"chat","text":"private"}"#,
        r#"{"type":"chat","to":null,"text":"private"}"#,
        r#"{"type":"chat","to":null,"broadcast":null,"text":"private"}"#,
        r#"{"type":"chat","to":"","text":"private"}"#,
        r#"{"type":"chat","to":1.5,"text":"private"}"#,
    ] {
        one.send(line).await;
        let error = one.json().await;
        assert_eq!(error["type"], "error", "{line}: {error}");
    }
    one.send(r#"{"type":"chat","to":"2","broadcast":null,"text":"to one"}"#).await;
    one.send(r#"{"type":"chat","broadcast":true,"to":null,"text":"to all"}"#).await;
    for text in ["to one", "to all"] {
        let line: Value = two.json().await;
        assert_eq!(line["data"]["text"], text, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_within_the_limit_arrives_however_its_bytes_are_escaped() {
    const LIMIT: usize = 1 << 20;
    let most = LIMIT.to_string();
    let internal = ("REALTIME__SERVER__INTERNAL", "127.0.0.1:0");
    for settings in [
        &[("REALTIME__LIMITS__MAXMESSAGEBYTES", most.as_str())][..],
        &[("REALTIME__LIMITS__MAXMESSAGEBYTES", most.as_str()), internal],
    ] {
        let demo = Demo::start_with(settings).await;
        for (escaped, bytes) in [("\\u0001", 1), ("\\u4f60", 3), ("\\/", 1), ("\\ud83d\\ude00", 4)] {
            for (count, expected) in [(LIMIT / bytes, 200), (LIMIT / bytes + 1, 400)] {
                let body = format!(r#"{{"userIds":[5],"message":"{}"}}"#, escaped.repeat(count));
                let (status, answer) = demo.try_publish(&body).await;
                assert_eq!(status, expected, "{count} of {escaped}: {answer}");
            }
        }
        // The longest list of users beside it.
        let users: Vec<_> = (0..100_000).map(|user| format!("\"-90071992547{user:08}\"")).collect();
        let message = "\\u0001".repeat(LIMIT);
        let body = format!(r#"{{"userIds":[{}],"message":"{message}"}}"#, users.join(", "));
        let (status, answer) = demo.try_publish(&body).await;
        assert_eq!(status, 200, "{answer}");
        // Elsewhere a refusal during an upload may be lost.
        if settings.len() == 1 && ServerKind::of_run() == ServerKind::Realtime {
            let (status, answer) = demo.try_publish(&format!("{{{}", " ".repeat(10 << 20))).await;
            assert_eq!(status, 413, "{answer}");
        }
    }
}
