//! Sessions at the edges: before the bus is up, while it is away, when a client stalls, and after their end was decided.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{App, HttpServer};
use bytestring::ByteString;
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use realtime_core::{
    CloseReason, Envelope, Hub, Message, Position, Scope, Settings,
    auth::{JwtAlgorithm, JwtAuthenticator},
    bus::{Bus, BusError, BusEvent, Published},
    settings::{BusOutage, Heartbeat, OnDown},
};
use realtime_tests::{Embedded, EventStream, SECRET, Server, Socket, token, within};
use realtime_websocket::{SessionHandle, WebSocketConfig};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

/// A bus that says what the test has it say, and takes whatever is published.
#[derive(Clone)]
struct ScriptedBus(Arc<Script>);

struct Script {
    say: mpsc::UnboundedSender<BusEvent>,
    events: Mutex<Option<mpsc::UnboundedReceiver<BusEvent>>>,
}

impl ScriptedBus {
    fn new() -> Self {
        let (say, events) = mpsc::unbounded_channel();
        Self(Arc::new(Script { say, events: Mutex::new(Some(events)) }))
    }

    fn say(&self, event: BusEvent) {
        self.0.say.send(event).unwrap();
    }

    fn message(&self, offset: u64, user: i64, text: &str) {
        let envelope = Envelope::to_users([user], Scope::Both, Message::text(text.to_owned()));
        self.say(BusEvent::Message(Some(at(offset)), Arc::new(envelope.unwrap())));
    }
}

impl Bus for ScriptedBus {
    fn publish<'a>(&'a self, _: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async { Err(BusError::Unavailable("nothing is published here".into())) })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let events = self.0.events.lock().unwrap().take().expect("a hub subscribes once");
        Box::pin(futures_util::stream::unfold(events, |mut events| async move {
            let event = events.recv().await?;
            Some((event, events))
        }))
    }
}

fn at(offset: u64) -> Position {
    Position { epoch: 7, offset }
}

fn hub(bus: &ScriptedBus, settings: Settings) -> Hub {
    Hub::builder().bus(bus.clone()).settings(settings).start().unwrap()
}

fn quick_heartbeats() -> Settings {
    let heartbeat = Heartbeat { interval: Duration::from_millis(100), timeout: Duration::from_secs(20) };
    Settings { heartbeat, ..Settings::default() }
}

/// Waits until something holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_starting_node_sends_nobody_its_history_as_news() {
    let bus = ScriptedBus::new();
    let server = Embedded::start(hub(&bus, Settings::default()));
    let news = async {
        until("all of them", || server.hub.sessions(&1.into()).len() == 4).await;
        for offset in 1..=3 {
            bus.message(offset, 1, "old");
        }
        bus.say(BusEvent::Up(Some(at(3))));
        bus.message(4, 1, "new");
    };
    let (jwt, v1) = (token(1), ["realtime.v1"]);
    let (raw, fresh, back, stream, ()) = futures_util::join!(
        Socket::open(&server, &jwt, &[], None),
        Socket::open(&server, &jwt, &v1, None),
        Socket::open(&server, &jwt, &v1, Some("7.2")),
        EventStream::open(&server, &jwt, Some("7.1")),
        news
    );
    let (mut raw, mut fresh, mut back, mut stream) =
        (raw.unwrap(), fresh.unwrap(), back.unwrap(), stream.unwrap());
    assert_eq!(stream.last_id, "7.1");
    assert_eq!(raw.text().await, "new");
    let hello = fresh.json().await;
    assert_eq!((&hello["recovered"], &hello["cursor"]), (&Value::Null, &json!("7.3")));
    assert_eq!(fresh.json().await["data"], "new");
    let hello = back.json().await;
    assert_eq!((&hello["recovered"], &hello["cursor"]), (&json!(true), &json!("7.2")));
    for text in ["old", "new"] {
        assert_eq!(back.json().await["data"], text);
    }
    for text in ["old", "old", "new"] {
        assert_eq!(stream.data().await, text);
    }
    assert_eq!(stream.last_id, "7.4");
}

#[actix_web::test]
async fn a_node_whose_bus_does_not_come_up_sends_clients_elsewhere() {
    let bus = ScriptedBus::new();
    let server = Embedded::start(hub(&bus, Settings::default()));
    assert_eq!(Socket::open(&server, &token(1), &[], None).await.err(), Some(503));
    let url = format!("http://127.0.0.1:{}/resource/sse?Authorization={}", server.port(), token(1));
    let stream = within("an answer", reqwest::get(url)).await.unwrap().text().await.unwrap();
    assert!(stream.starts_with(":disconnected\nretry:"), "{stream}");
    assert_eq!(server.hub.sessions(&1.into()).len(), 0);
}

#[actix_web::test]
async fn no_id_runs_ahead_of_a_gap_that_is_still_to_come() {
    let bus = ScriptedBus::new();
    let server = Embedded::start(hub(&bus, Settings::default()));
    bus.message(5, 1, "x");
    bus.say(BusEvent::Up(Some(at(5))));
    until("the bus", || server.hub.ready().is_ok()).await;
    let mut stream = EventStream::open(&server, &token(1), Some("7.2")).await.unwrap();
    assert_eq!(stream.last_id, "7.2", "if it breaks now, the gap is told once more");
    assert_eq!(stream.next().await.unwrap().event, "gap");
    assert_eq!(stream.last_id, "7.4");
    let mut socket = Socket::open(&server, &token(1), &["realtime.v1"], Some("7.2")).await.unwrap();
    let hello = socket.json().await;
    assert_eq!((&hello["recovered"], &hello["cursor"]), (&json!(false), &json!("7.2")));
    assert_eq!(socket.json().await["cursor"], "7.4");
}

#[actix_web::test]
async fn a_node_that_is_cut_off_tells_its_clients_since_when() {
    let bus = ScriptedBus::new();
    let server = Embedded::start(hub(&bus, quick_heartbeats()));
    bus.say(BusEvent::Up(Some(at(0))));
    until("the bus", || server.hub.ready().is_ok()).await;
    let mut socket = Socket::open(&server, &token(1), &["realtime.v1"], None).await.unwrap();
    let mut stream = EventStream::open(&server, &token(1), None).await.unwrap();
    assert_eq!(socket.json().await["type"], "hello");
    bus.say(BusEvent::Down("the cable is out".into()));
    let event = stream.next().await.unwrap();
    let since = serde_json::from_str::<Value>(&event.data).unwrap()["downSince"].as_u64().unwrap();
    assert_eq!(event.event, "realtime.bus");
    let down = within("a heartbeat", async {
        loop {
            let ping = socket.json().await;
            if ping["busDownSince"].is_u64() {
                break ping["busDownSince"].as_u64().unwrap();
            }
        }
    })
    .await;
    assert_eq!(down, since);
    bus.say(BusEvent::Up(Some(at(0))));
    let back = within("the bus again", async {
        loop {
            let event = stream.next().await.unwrap();
            if event.data.contains("null") {
                break event.data;
            }
        }
    })
    .await;
    assert_eq!(back, r#"{"downSince":null}"#);
}

#[actix_web::test]
async fn a_node_that_is_cut_off_for_long_sends_its_clients_elsewhere_if_asked_to() {
    let bus = ScriptedBus::new();
    let outage = BusOutage { on_down: OnDown::Drain, down_after: Duration::from_millis(300) };
    let server = Embedded::start(hub(&bus, Settings { bus: outage, ..Settings::default() }));
    bus.say(BusEvent::Up(Some(at(0))));
    until("the bus", || server.hub.ready().is_ok()).await;
    let mut socket = Socket::open(&server, &token(1), &[], None).await.unwrap();
    bus.say(BusEvent::Down("the cable is out".into()));
    assert_eq!(socket.close_code().await, 1012);
    assert_eq!(Socket::open(&server, &token(1), &[], None).await.err(), Some(503));
    bus.say(BusEvent::Up(Some(at(0))));
    until("the bus", || server.hub.ready().is_ok()).await;
    within("a node that takes clients again", async {
        while Socket::open(&server, &token(1), &[], None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A bus whose second event is a panic.
struct PanickingBus;

impl Bus for PanickingBus {
    fn publish<'a>(&'a self, _: &'a Arc<Envelope>) -> BoxFuture<'a, Result<Published, BusError>> {
        Box::pin(async { Err(BusError::Unavailable("nothing is published here".into())) })
    }

    fn subscribe(&self) -> BoxStream<'static, BusEvent> {
        let events = futures_util::stream::iter(0..2).then(|n| async move {
            tokio::task::yield_now().await;
            assert_eq!(n, 0, "this bus is broken");
            BusEvent::Up(None)
        });
        Box::pin(events)
    }
}

#[actix_web::test]
async fn a_pump_that_panics_is_told_of() {
    let hub = Hub::builder().bus(PanickingBus).start().unwrap();
    let problem = within("the hub's failure", hub.failed()).await;
    assert_eq!(problem, "the task `pump` has panicked");
    assert_eq!(hub.ready(), Err(problem));
}

/// A connection that asked for a stream and reads nothing, with what it may buffer kept small.
async fn stalled_stream(server: &Embedded, user: i64) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut tcp = socket.connect(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let request = format!("GET /resource/sse?Authorization={} HTTP/1.1\r\nHost: a\r\n\r\n", token(user));
    tcp.write_all(request.as_bytes()).await.unwrap();
    tcp
}

#[actix_web::test]
async fn a_stream_that_is_broken_off_within_an_event_has_no_orderly_end() {
    let server = Embedded::start(Hub::builder().start().unwrap());
    let mut tcp = stalled_stream(&server, 1).await;
    until("the session", || server.emitters.exist_session(1)).await;
    for _ in 0..200 {
        server.emitters.publish_all("x".repeat(10_000)).await.unwrap();
    }
    // The socket is full when the outbox has been sent to the log.
    until("a full socket", || server.hub.metrics().catch_ups > 0).await;
    server.emitters.sessions(1)[0].close(CloseReason::SlowConsumer);
    let mut all = Vec::new();
    let end = within("the end", tcp.read_to_end(&mut all)).await;
    let text = String::from_utf8_lossy(&all);
    assert!(!text.contains(":disconnected"), "closing frames behind half an event make it a whole one");
    assert!(end.is_err() || !text.ends_with("0\r\n\r\n"), "an orderly end says that all has been sent");
}

#[actix_web::test]
async fn a_client_gives_no_orders_once_its_end_is_decided() {
    let handled = Arc::new(AtomicUsize::new(0));
    let hub = Hub::builder().start().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = HttpServer::new({
        let (hub, handled) = (hub.clone(), Arc::clone(&handled));
        move || {
            let handled = Arc::clone(&handled);
            let count = move |_: SessionHandle, _: ByteString| {
                handled.fetch_add(1, Ordering::SeqCst);
                async { None }
            };
            let config = WebSocketConfig::default().inbound(count);
            let jwt = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
            App::new().configure(realtime_websocket::routes(hub.clone(), jwt, config))
        }
    })
    .workers(1)
    .disable_signals()
    .listen(listener)
    .unwrap()
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    struct Port(u16);
    impl Server for Port {
        fn port(&self) -> u16 {
            self.0
        }
    }
    let mut socket = Socket::open(&Port(port), &token(1), &[], None).await.unwrap();
    socket.send("before").await;
    until("the first text", || handled.load(Ordering::SeqCst) == 1).await;
    // So much waits for the client that its end takes a while to reach it.
    for _ in 0..600 {
        hub.publish(Envelope::broadcast(Scope::Both, Message::text("x".repeat(10_000)))).await.unwrap();
    }
    until("a full socket", || hub.metrics().catch_ups > 0).await;
    hub.kick(&1.into()).await.unwrap();
    for _ in 0..20 {
        socket.send("after").await;
    }
    assert_eq!(socket.close_code().await, 4409);
    assert_eq!(handled.load(Ordering::SeqCst), 1);
    drop(handle.stop(false));
}

#[actix_web::test]
async fn what_was_published_before_an_end_comes_before_it() {
    let server = Embedded::start(Hub::builder().start().unwrap());
    for round in 0..12 {
        let mut socket = Socket::open(&server, &token(1), &[], None).await.unwrap();
        let why = Envelope::to_users([1], Scope::Both, Message::text(format!("why {round}"))).unwrap();
        server.hub.publish(why).await.unwrap();
        server.sockets.sessions(1).iter().for_each(|session| session.close(CloseReason::Policy));
        assert_eq!(socket.text().await, format!("why {round}"));
        assert_eq!(socket.close_code().await, 1008);
        until("its end", || !server.sockets.exist_session(1)).await;
    }
}

#[actix_web::test]
async fn a_large_upload_is_activity() {
    let heartbeat = Heartbeat { interval: Duration::from_millis(100), timeout: Duration::from_millis(300) };
    let mut settings = Settings { heartbeat, ..Settings::default() };
    settings.limits.max_inbound_bytes = 1 << 20;
    let server = Embedded::start(Hub::builder().settings(settings).start().unwrap());
    let mut tcp = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = format!(
        "GET /resource/websocket?Authorization={} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token(1)
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    until("the session", || server.sockets.exist_session(1)).await;
    // One frame of 40 kB, a kilobyte at a time: nothing can be answered in the middle of it.
    let mut frame = vec![0x81, 0xFF];
    frame.extend_from_slice(&40_000_u64.to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    tcp.write_all(&frame).await.unwrap();
    let began = Instant::now();
    for _ in 0..40 {
        tcp.write_all(&[b'a'; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "much longer than the time-out");
    assert_eq!(server.sockets.sessions(1).len(), 1);
    assert_eq!(server.sockets.sessions(1)[0].closing(), None);
}
