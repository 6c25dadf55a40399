//! A client that sends frames or bytes without end is stopped, what an honest one sends is never too much, and half a
//! character costs nobody the connection.

use std::sync::{Arc, Mutex};

use realtime_core::{CloseReason, Hub, Settings};
use realtime_tests::{Demo, Embedded, RawClient, until, within};
use serde_json::Value;

/// A server, and the reasons for which its sessions ended.
fn start(settings: Settings) -> (Embedded, Arc<Mutex<Vec<CloseReason>>>) {
    let ends = Arc::<Mutex<Vec<CloseReason>>>::default();
    let seen = Arc::clone(&ends);
    let hub = Hub::builder().settings(settings).on_close(move |_, reason| seen.lock().unwrap().push(reason));
    (Embedded::start(hub.start().unwrap()), ends)
}

async fn open(server: &Embedded) -> RawClient {
    let mut client = RawClient::open(server, 1, "").await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        len @ 0..126 => vec![0x80 | len as u8],
        len => [&[0x80 | 126][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
    };
    [&[first][..], &length, &[0; 4], payload].concat()
}

/// Reads on until the Close frame, and returns its code and reason.
async fn close(client: &mut RawClient) -> (u16, String) {
    within("the Close frame", async {
        loop {
            if let (0x88, payload) = client.next_frame().await {
                let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
                return (u16::from_be_bytes([payload[0], payload[1]]), reason);
            }
        }
    })
    .await
}

#[actix_web::test]
async fn frames_and_bytes_without_end_are_stopped_and_counted() {
    let mut settings = Settings::default();
    settings.limits.max_inbound_frame_rate = 100;
    settings.limits.max_inbound_byte_rate = 500;
    settings.limits.max_inbound_bytes = 500;
    // Four times what may come at once, so that a slow machine does not let it through.
    let empty_fragments = [frame(0x01, b""), frame(0x00, b"").repeat(4000)].concat();
    let bytes = [frame(0x01, b""), frame(0x00, &[b'x'; 200]), frame(0x00, &[b'x'; 200])].concat();
    let messages = frame(0x81, &[b'x'; 490]).repeat(40);
    let pings = frame(0x89, b"").repeat(2000);
    let (server, ends) = start(settings);
    for (name, sent) in [("empty fragments", empty_fragments), ("messages", messages), ("pings", pings)] {
        let mut client = open(&server).await;
        client.write(sent).await;
        assert_eq!(close(&mut client).await, (4429, "rate-limited".to_owned()), "{name}");
        client.write(frame(0x88, &4429_u16.to_be_bytes())).await;
        assert!(client.end().await, "{name}");
    }
    until("the ends", || *ends.lock().unwrap() == [CloseReason::RateLimited; 3]).await;
    // An incomplete message is not one.
    let mut client = open(&server).await;
    client.write(bytes).await;
    client.write(frame(0x89, b"?")).await;
    within("the pong", async { while client.next_frame().await != (0x8A, b"?".to_vec()) {} }).await;
}

#[actix_web::test]
async fn an_honest_client_is_never_stopped_by_the_defaults() {
    let (server, ends) = start(Settings::default());
    let mut client = open(&server).await;
    // A message of 64 KiB in fragments of 4 KiB and a ping, as many as may come at once.
    let mut message = frame(0x01, &[b'x'; 4096]);
    message.extend(frame(0x00, &[b'x'; 4096]).repeat(14));
    message.extend(frame(0x89, b"alive"));
    message.extend(frame(0x80, &[b'x'; 4096]));
    for _ in 0..250 {
        client.write(&message).await;
        within("the echo", async { while client.next_frame().await.1.len() < 64 << 10 {} }).await;
    }
    assert_eq!(*ends.lock().unwrap(), []);
}

#[actix_web::test]
async fn a_client_that_closes_behind_its_fault_gets_the_end_before_one_that_does_not() {
    let (server, _) = start(Settings::default());
    let fault = frame(0x83, b"reserved");
    let mut closing = open(&server).await;
    let mut silent = open(&server).await;
    let behind = [frame(0x81, &[0x88; 5000]), frame(0x00, b""), frame(0x89, b"")].concat();
    closing.write([&fault[..], &behind, &frame(0x88, &1002_u16.to_be_bytes())].concat()).await;
    silent.write([&fault[..], &behind].concat()).await;
    tokio::select! {
        biased;
        orderly = closing.end() => assert!(orderly),
        _ = silent.end() => panic!("the client's Close was not looked for"),
    }
    assert_eq!(close(&mut closing).await, (1002, "protocol".to_owned()));
    assert!(silent.end().await, "what came is read, so that the Close frame arrives");
    assert_eq!(close(&mut silent).await, (1002, "protocol".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_character_is_a_replacement_character_and_the_connection_stays() {
    let demo = Demo::start().await;
    let mut v1 = demo.socket_v1(1).await;
    let mut raw = demo.socket(2).await;
    v1.message().await;
    v1.send(r#"{"type":"message","data":"a\ud83d"}"#).await;
    assert_eq!(v1.message().await["data"], "a\u{FFFD}");
    // A chat line, over both.
    v1.send(r#"{"type":"message","data":"{\"type\":\"chat\",\"to\":2,\"text\":\"b\\ud83d\"}"}"#).await;
    let line: Value = serde_json::from_str(&raw.text().await).unwrap();
    assert_eq!(line["data"]["text"], "b\u{FFFD}");
    raw.send(r#"{"type":"chat","to":1,"text":"\ude00c\ud83d\ude00"}"#).await;
    let line: Value = serde_json::from_str(&raw.text().await).unwrap();
    assert_eq!(line["data"]["text"], "\u{FFFD}c\u{1F600}");
    // What is no JSON to the server is echoed as it is.
    raw.send(r"\ud83d").await;
    assert_eq!(raw.text().await, r"\ud83d");
    let (status, answer) = demo.try_publish(r#"{"userIds":[2],"message":"d\ud83d"}"#).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(raw.text().await, "d\u{FFFD}");
}
