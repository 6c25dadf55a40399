//! A WebSocket client that breaks RFC 6455 gets the close code of its fault, nothing that it sends later is handled, and
//! no other client notices.

use futures_util::future::join_all;
use realtime_tests::{Demo, RawClient, within};
use serde_json::json;

/// A frame with any header and a mask of zeros.
fn frame(first: u8, length: u8, more: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | length], more, &[0; 4], payload].concat()
}

/// A frame with a short payload.
fn short(first: u8, payload: &[u8]) -> Vec<u8> {
    RawClient::client_frame(first, payload)
}

/// A Close frame with a code.
fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    short(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// A raw or `realtime.v1` WebSocket as bytes, behind its handshake.
async fn open(demo: &Demo, user: i64, protocol: &str) -> RawClient {
    let mut client = RawClient::connect(demo).await;
    let line = format!("Host: x\r\nSec-WebSocket-Protocol: {protocol}\r\n");
    client.write(RawClient::websocket(user).replacen("Host: x\r\n", &line, 1)).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client
}

/// The code of the Close frame that comes in the end; every frame before it is kept.
async fn ended(client: &mut RawClient, name: &str) -> (u16, Vec<(u8, Vec<u8>)>) {
    let mut before = Vec::new();
    loop {
        let frame = within(&format!("a Close frame for {name}"), client.next_frame()).await;
        if frame.0 == 0x88 {
            let code = frame.1.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            return (code, before);
        }
        before.push(frame);
    }
}

/// The chat line that would reach everybody if it was handled.
fn chat() -> Vec<u8> {
    let line = json!({ "type": "chat", "to": null, "text": "it was handled" }).to_string();
    let v1 = json!({ "type": "message", "data": line }).to_string();
    [short(0x81, line.as_bytes()), frame(0x81, 126, &(v1.len() as u16).to_be_bytes(), v1.as_bytes())].concat()
}

/// Runs each fault on both protocols, beside an observer who must see none of it.
async fn each_fault_ends_with(cases: Vec<(String, Vec<u8>, u16)>) {
    let demo = Demo::start_with(&[("REALTIME__LIMITS__MAXCONNECTIONSPERUSER", "0")]).await;
    let mut observer = demo.socket(1).await;
    let clients = ["realtime.raw", "realtime.v1"].into_iter().flat_map(|protocol| {
        let demo = &demo;
        cases.iter().map(move |(name, bytes, code)| async move {
            let mut client = open(demo, 2, protocol).await;
            client.write([&bytes[..], &chat()].concat()).await;
            let (got, _) = ended(&mut client, name).await;
            // A Close frame is answered, and then the connection has ended. Behind one that was the fault, it has already.
            if matches!(got, 1002 | 1007 | 1009) && bytes[0] & 0x0F != 8 {
                client.write(close(1000, b"")).await;
            }
            let closed = client.end().await;
            (got != *code || !closed).then(|| format!("{protocol}: {name}: {got}, closed {closed}"))
        })
    });
    let faults: Vec<String> = join_all(clients).await.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{faults:#?}");
    demo.until_sessions(2, 0).await;
    demo.publish_to(1, "and nothing before").await;
    assert_eq!(observer.text().await, "and nothing before");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_the_standard_forbids_end_with_1002() {
    let mut cases = vec![
        ("an unmasked text".to_owned(), vec![0x81, 1, b'x']),
        ("an unmasked ping".to_owned(), vec![0x89, 0]),
        ("an unmasked Close frame".to_owned(), vec![0x88, 2, 0x03, 0xE8]),
        ("a continuation of nothing".to_owned(), short(0x80, b"x")),
        ("a text within a text".to_owned(), [short(0x01, b"a"), short(0x81, b"b")].concat()),
        ("bytes within a text".to_owned(), [short(0x01, b"a"), short(0x02, b"b")].concat()),
        ("a length of 2^63".to_owned(), frame(0x81, 127, &(1_u64 << 63).to_be_bytes(), b"x")),
        ("a length of 2^64 - 1".to_owned(), frame(0x82, 127, &u64::MAX.to_be_bytes(), b"x")),
        ("a continuation of 2^63 bytes".to_owned(), {
            [short(0x01, b"a"), frame(0x80, 127, &(1_u64 << 63).to_be_bytes(), b"x")].concat()
        }),
        ("half a close code".to_owned(), short(0x88, b"\x03")),
        ("a Close frame of 126 bytes".to_owned(), frame(0x88, 126, &[0, 126], &[b'x'; 126])),
    ];
    for bit in [0x40, 0x20, 0x10, 0x70] {
        cases.push((format!("reserved bits {bit:#x} of a text"), short(0x81 | bit, b"x")));
        cases.push((format!("reserved bits {bit:#x} of a ping"), short(0x89 | bit, b"")));
    }
    for opcode in (3..=7).chain(0xB..=0xF) {
        cases.push((format!("opcode {opcode:#x}"), short(0x80 | opcode, b"x")));
        cases.push((format!("opcode {opcode:#x} in fragments"), short(opcode, b"x")));
    }
    for opcode in [8, 9, 0xA] {
        cases.push((format!("control frame {opcode:#x} in fragments"), short(opcode, b"")));
        cases.push((
            format!("control frame {opcode:#x} of 126 bytes"),
            frame(0x80 | opcode, 126, &[0, 126], &[b'x'; 126]),
        ));
        cases.push((
            format!("control frame {opcode:#x} of 2^40 bytes"),
            frame(0x80 | opcode, 127, &(1_u64 << 40).to_be_bytes(), b"x"),
        ));
    }
    each_fault_ends_with(cases.into_iter().map(|(name, bytes)| (name, bytes, 1002)).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn close_codes_that_nobody_may_send_end_with_1002_and_the_others_with_themselves() {
    let forbidden = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32768, 65535];
    let cases = forbidden.map(|code| (format!("close code {code}"), close(code, b""), 1002)).into_iter();
    let allowed = [1000, 1001, 1003, 1008, 1011, 1014, 3000, 4999];
    let allowed = allowed.map(|code| (format!("close code {code}"), close(code, "adiós".as_bytes()), code));
    each_fault_ends_with(cases.chain(allowed).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_ends_with_1007_however_it_is_cut() {
    let mut cases = Vec::new();
    for (name, bytes) in [
        ("a byte that never occurs", &b"a\xFF"[..]),
        ("a continuation byte alone", b"\x80"),
        ("an overlong slash", b"\xC0\xAF"),
        ("an overlong NUL", b"\xE0\x80\x80"),
        ("half a surrogate pair", b"\xED\xA0\x80"),
        ("a surrogate pair", b"\xED\xA0\xBD\xED\xB8\x80"),
        ("a code point beyond the last", b"\xF4\x90\x80\x80"),
        ("five bytes", b"\xF8\x88\x80\x80\x80"),
        ("an emoji without its end", b"\xF0\x9F\x98"),
    ] {
        cases.push((name.to_owned(), short(0x81, bytes), 1007));
        for at in 1..bytes.len() {
            let halves = [short(0x01, &bytes[..at]), short(0x89, b"p"), short(0x80, &bytes[at..])].concat();
            cases.push((format!("{name}, cut at {at}"), halves, 1007));
        }
    }
    cases.push(("a close reason that is not text".to_owned(), close(1000, b"\xFF"), 1007));
    each_fault_ends_with(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_above_the_limit_end_with_1009_before_they_come() {
    let length = |bytes: u64| frame(0x81, 127, &bytes.to_be_bytes(), b"x");
    let cases = [
        (65_537_u64, "64 KiB and a byte"),
        (1 << 32, "2^32"),
        (1 << 40, "2^40"),
        ((1 << 63) - 1, "2^63 - 1"),
    ];
    let mut cases: Vec<_> =
        cases.into_iter().map(|(bytes, name)| (format!("a length of {name}"), length(bytes), 1009)).collect();
    let fragments = [
        frame(0x01, 126, &60_000_u16.to_be_bytes(), &[b'x'; 60_000]),
        frame(0x00, 126, &6000_u16.to_be_bytes(), b""),
    ];
    cases.push(("fragments that are too much together".to_owned(), fragments.concat(), 1009));
    each_fault_ends_with(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emoji_may_be_cut_anywhere() {
    let demo = Demo::start().await;
    let emoji = "😀".as_bytes();
    let mut client = open(&demo, 1, "realtime.raw").await;
    for at in 1..emoji.len() {
        client.write([short(0x01, &emoji[..at]), short(0x80, &emoji[at..])].concat()).await;
        loop {
            let (first, payload) = client.next_frame().await;
            // The server's own pings come between.
            if first == 0x81 {
                break assert_eq!(payload, emoji, "cut at {at}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_or_handled_behind_a_close_frame() {
    let demo = Demo::start().await;
    let mut observer = demo.socket(1).await;
    for protocol in ["realtime.raw", "realtime.v1"] {
        let mut client = open(&demo, 2, protocol).await;
        let garbage = [close(1000, b"bye"), chat(), short(0x89, b"ping"), vec![0xFF; 1000]].concat();
        client.write(garbage).await;
        assert_eq!(ended(&mut client, "a Close frame").await.0, 1000, "{protocol}");
        client.end().await;
        assert_eq!(client.bytes, b"", "{protocol}: bytes behind the Close frame");
    }
    demo.until_sessions(2, 0).await;
    demo.publish_to(1, "and nothing before").await;
    assert_eq!(observer.text().await, "and nothing before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_alone_and_half_a_frame_keep_nobody_from_being_served() {
    let demo = Demo::start().await;
    let before = demo.memory();
    let mut clients = Vec::new();
    for number in 0..200 {
        let mut client = open(&demo, 100 + number, "realtime.raw").await;
        // 64 KiB are announced, and a byte of them comes.
        client.write(frame(0x01, 127, &65_536_u64.to_be_bytes(), b"x")).await;
        clients.push(client);
    }
    let grown = demo.memory().saturating_sub(before);
    println!("{grown} KiB for 200 connections within a frame");
    assert!(grown < 16 << 10, "{grown} KiB: what was announced takes memory");
    let mut socket = demo.socket(1).await;
    demo.publish_to(1, "served").await;
    assert_eq!(socket.text().await, "served");
    drop(clients);
    demo.until_sessions(100, 0).await;
}
