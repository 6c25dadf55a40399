//! Clients get a notice when the bus is not up yet or is cut off, and no cursor runs ahead of a gap.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::test::TestRequest;
use futures_util::{
    StreamExt,
    future::{BoxFuture, Either, select},
    stream::BoxStream,
};
use realtime_core::{
    Envelope, Hub, Message, Position, Principal, Scope, Settings,
    bus::{Bus, BusError, BusEvent, Published},
    settings::OnDown,
};
use realtime_sse::SseEmitters;
use realtime_tests::{Embedded, EventStream, Server, Socket, token, until, within};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

/// A bus that emits the events that the test chooses.
#[derive(Clone)]
struct ScriptedBus(Arc<Script>);

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
        self.say(BusEvent::message(Some(at(offset)), Arc::new(envelope.unwrap()), Duration::ZERO));
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

struct Script {
    say: mpsc::UnboundedSender<BusEvent>,
    events: Mutex<Option<mpsc::UnboundedReceiver<BusEvent>>>,
}

fn at(offset: u64) -> Position {
    Position { epoch: 7, offset }
}

fn hub(bus: &ScriptedBus, settings: Settings) -> Hub {
    Hub::builder().bus(bus.clone()).settings(settings).start().unwrap()
}

fn quick_heartbeats() -> Settings {
    let mut settings = Settings::default();
    settings.heartbeat.interval = Duration::from_millis(100);
    settings.heartbeat.timeout = Duration::from_secs(20);
    settings
}

#[actix_web::test]
async fn a_starting_node_sends_no_client_its_history_as_new() {
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
    assert_eq!(fresh.message().await["data"], "new");
    let hello = back.json().await;
    assert_eq!((&hello["recovered"], &hello["cursor"]), (&json!(true), &json!("7.2")));
    for text in ["old", "new"] {
        assert_eq!(back.message().await["data"], text);
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
async fn a_stream_of_an_applications_own_handler_waits_for_a_starting_node_too() {
    let bus = ScriptedBus::new();
    let emitters = SseEmitters::new(hub(&bus, Settings::default()));
    let request = TestRequest::default().to_http_request();
    let opened = pin!(emitters.open_request(&request, Principal::new(1.into(), "own")));
    let opened = match select(opened, pin!(sleep(Duration::from_millis(200)))).await {
        Either::Left((opened, _)) => panic!("{:?} before the bus is up", opened.map(drop)),
        Either::Right(((), opened)) => opened,
    };
    bus.say(BusEvent::Up(Some(at(3))));
    within("the stream", opened).await.unwrap();
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
    let mut settings = Settings::default();
    settings.bus.on_down = OnDown::Drain;
    settings.bus.down_after = Duration::from_millis(300);
    let server = Embedded::start(hub(&bus, settings));
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
            sleep(Duration::from_millis(20)).await;
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
async fn a_pump_that_panics_is_reported() {
    let hub = Hub::builder().bus(PanickingBus).start().unwrap();
    let problem = within("the hub's failure", hub.failed()).await;
    assert_eq!(problem, "the task `pump` has panicked");
    assert_eq!(hub.ready(), Err(problem));
}
