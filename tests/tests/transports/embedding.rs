//! An application opens both transports from its own handlers, grants topics, and shares one bus among several hubs.

use std::{sync::Arc, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, ResponseError, error, web};
use realtime_core::{
    ByteString, CloseReason, Envelope, Hub, MemoryBus, Message, Principal, Scope, SessionHandle, Settings,
    Topic,
    bus::Bus,
    error::{ConnectError, SendError},
    facade::FacadeError,
    ruoyi::{SseMessageDto, WebSocketMessageDto},
};
use realtime_sse::{SseEmitters, SseStream};
use realtime_tests::{Embedded, EventStream, Server, ServerKind, Socket, start_server, token, until, within};
use realtime_websocket::WebSockets;

fn hub() -> Hub {
    Hub::builder().start().unwrap()
}

#[actix_web::test]
async fn the_seeds_verbs_reach_their_own_transport() {
    let server = Embedded::start(hub());
    let (sockets, emitters) = (&server.sockets, &server.emitters);
    let mut one = Socket::open(&server, &token(1), &[], None).await.unwrap();
    let mut two = Socket::open(&server, &token(2), &[], None).await.unwrap();
    let mut stream = EventStream::open(&server, &token(1), None).await.unwrap();

    sockets.send_message(1, "local").unwrap();
    sockets.send_message_all("local to all").unwrap();
    emitters.send_message(1, "local").unwrap();
    emitters.send_message_all("local to all").unwrap();
    for text in ["local", "local to all"] {
        assert_eq!(one.text().await, text);
        assert_eq!(stream.data().await, text);
    }
    assert_eq!(two.text().await, "local to all");

    let dto = WebSocketMessageDto { session_keys: vec![1.into(), 2.into()], message: "published".into() };
    sockets.publish_message(dto).await.unwrap();
    let position = sockets.publish_all("published to all").await.unwrap().position;
    emitters.publish_message(SseMessageDto { user_ids: vec![1.into()], message: "s".into() }).await.unwrap();
    emitters.publish_all("s to all").await.unwrap();
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.text().await, "published");
        assert_eq!(socket.text().await, "published to all");
    }
    assert_eq!(stream.data().await, "s");
    assert_eq!(stream.data().await, "s to all");
    assert!(position.is_some());

    assert!(sockets.is_enabled() && sockets.exist_session(1) && !sockets.exist_session(3));
    assert!(emitters.exist_session(1) && !emitters.exist_session(2));
    assert_eq!(sockets.sessions_all(), [1.into(), 2.into()]);
    assert_eq!(emitters.sessions_all(), [1.into()]);
    let sessions = sockets.sessions(2);
    assert_eq!((sessions.len(), sessions[0].client_id().as_deref()), (1, Some("web")));
    sessions[0].send_local("to this one").unwrap();
    assert_eq!(two.text().await, "to this one");
    sessions[0].close(CloseReason::Policy);
    assert_eq!(two.close_code().await, 1008);
    assert!(sessions[0].send_local("too late").is_err());

    let empty = WebSocketMessageDto { session_keys: vec![], message: "x".into() };
    assert!(matches!(sockets.publish_message(empty).await, Err(FacadeError::EmptyTargets(_))));
}

#[actix_web::test]
async fn a_module_that_is_off_answers_disabled_and_not_silence() {
    let (sockets, emitters) = (WebSockets::disabled(), SseEmitters::disabled());
    assert!(!sockets.is_enabled() && !emitters.is_enabled());
    assert_eq!(sockets.send_message(1, "x").unwrap_err().to_string(), "websocket is disabled");
    assert_eq!(emitters.publish_all("x").await.unwrap_err().to_string(), "sse is disabled");
    assert!(matches!(sockets.send_message_all("x"), Err(FacadeError::Disabled(_))));
    let dto = SseMessageDto { user_ids: vec![1.into()], message: "x".into() };
    assert!(matches!(emitters.publish_message(dto).await, Err(FacadeError::Disabled(_))));
    let refused = emitters.connect(1, "t").unwrap_err();
    assert_eq!(ResponseError::status_code(&refused), 404, "like a route that does not exist");
    assert!(!sockets.exist_session(1) && sockets.sessions_all().is_empty() && sockets.sessions(1).is_empty());
}

#[actix_web::test]
async fn an_own_endpoint_opens_streams_and_disconnect_ends_them() {
    let server = Embedded::start(hub());
    let own = format!("http://127.0.0.1:{}/own", server.port());
    let mut response = reqwest::get(own).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = String::new();
    let mut until = async |end: &str| {
        within(end, async {
            while !body.ends_with(end) {
                match response.chunk().await.unwrap() {
                    Some(chunk) => body.push_str(std::str::from_utf8(&chunk).unwrap()),
                    None => panic!("the stream ended: {body}"),
                }
            }
        })
        .await;
    };
    until("\n\n").await;
    assert_eq!(server.emitters.disconnect(77, "a login of another kind"), 0, "a young stream is spared");
    assert_eq!(server.emitters.disconnect(77, "another"), 0);
    server.emitters.publish_all("hi").await.unwrap();
    until("data:hi\n\n").await;
    // Streams younger than two seconds are not closed, so this has to wait.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(server.emitters.disconnect(77, "a login of another kind"), 1);
    until(":disconnected\n\n").await;
}

/// Handlers of an application's own, with logins of its own: a visitor's id in a cookie, a room in the path.
fn rooms(services: &mut web::ServiceConfig) {
    fn visitor(request: &HttpRequest, room: &str) -> actix_web::Result<Principal> {
        let cookie = request.headers().get("cookie").and_then(|cookie| cookie.to_str().ok());
        let id = cookie.and_then(|cookie| cookie.strip_prefix("visitor="));
        let id = id.ok_or_else(|| error::ErrorUnauthorized("who are you?"))?;
        let mut principal = Principal::new(id.parse().map_err(error::ErrorUnauthorized)?, "");
        principal.topics.push(Topic::new(&format!("room:{room}")).map_err(error::ErrorNotFound)?);
        Ok(principal)
    }
    async fn socket(
        request: HttpRequest,
        payload: web::Payload,
        room: web::Path<String>,
        sockets: web::Data<WebSockets>,
        query: web::Query<Vec<(String, String)>>,
    ) -> actix_web::Result<HttpResponse> {
        let cursor = query.iter().find(|(name, _)| name == "cursor").map(|(_, cursor)| cursor.as_str());
        Ok(sockets.upgrade(&request, payload, visitor(&request, &room)?, cursor).await?)
    }
    async fn stream(
        request: HttpRequest,
        room: web::Path<String>,
        emitters: web::Data<SseEmitters>,
    ) -> actix_web::Result<SseStream> {
        Ok(emitters.open_for(&request, visitor(&request, &room)?, None)?)
    }
    services
        .route("/rooms/{room}/socket", web::get().to(socket))
        .route("/rooms/{room}/stream", web::get().to(stream));
}

#[actix_web::test]
async fn handlers_of_an_applications_own_open_both_transports() {
    let mut settings = Settings::default();
    settings.limits.max_connections_per_user = 2;
    let hub = Hub::builder().settings(settings).start().unwrap();
    let sockets =
        WebSockets::new(hub.clone()).inbound(|session: SessionHandle, text: ByteString| async move {
            Some(format!("{} said {text}", session.user()).into())
        });
    let (data, emitters) = (web::Data::new(sockets), web::Data::new(SseEmitters::new(hub.clone())));
    let app = move || App::new().app_data(data.clone()).app_data(emitters.clone()).configure(rooms);
    let server = start_server!(ServerKind::of_run(), app.clone(), workers(1));
    let cookie = [("Cookie", "visitor=7")];
    let path = "/rooms/42/socket";
    assert_eq!(Socket::open_at(&server, path, &[]).await.err(), Some(401));
    let v1 = [("Cookie", "visitor=7"), ("Sec-WebSocket-Protocol", "realtime.v1")];
    let mut v1_socket = Socket::open_at(&server, path, &v1).await.unwrap();
    let hello = v1_socket.json().await;
    let mut raw = Socket::open_at(&server, path, &cookie).await.unwrap();
    raw.send("hi").await;
    assert_eq!(raw.text().await, "7 said hi");
    let envelope = |room| {
        let topic = Topic::new(&format!("room:{room}")).unwrap();
        Envelope::to_topics([topic], Scope::Both, Message::text(format!("to {room}"))).unwrap()
    };
    for room in [41, 42] {
        hub.publish(envelope(room)).await.unwrap();
    }
    assert_eq!(raw.text().await, "to 42");
    assert_eq!(v1_socket.message().await["data"], "to 42");

    // Refusals are those of the crates' own routes.
    assert_eq!(Socket::open_at(&server, path, &cookie).await.err(), Some(429));
    let get = async |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", server.port());
        let response = reqwest::Client::new().get(url).header("Cookie", "visitor=7").send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get(path).await.0, 426);
    assert_eq!(get("/rooms/42/stream").await.0, 429);
    drop((v1_socket, raw));
    until("both to end", || hub.all_sessions().is_empty()).await;
    let cursor = hello["cursor"].as_str().unwrap();
    let mut back = Socket::open_at(&server, &format!("{path}?cursor={cursor}"), &v1).await.unwrap();
    assert_eq!(back.json().await["recovered"], true);
    assert_eq!(back.message().await["data"], "to 42");
    tokio::join!(hub.drain(), async { assert_eq!(back.close_code().await, 1012) });
    assert_eq!(Socket::open_at(&server, path, &cookie).await.err(), Some(503));
    let (status, stream) = get("/rooms/42/stream").await;
    assert_eq!(status, 200);
    assert!(stream.starts_with(":disconnected\nretry:"), "{stream}");
}

#[actix_web::test]
async fn the_server_handles_texts_and_grants_topics() {
    let server = Embedded::start(hub());
    let mut socket = Socket::open(&server, &token(1), &[], None).await.unwrap();
    let order = Topic::new("order:42").unwrap();
    let publish = async |text: &'static str| {
        let envelope = Envelope::to_topics([order.clone()], Scope::Both, Message::text(text)).unwrap();
        server.hub.publish(envelope).await.unwrap();
    };
    publish("before").await;
    // This later message has arrived, so the first one was handled before the grant.
    server.sockets.publish_all("to all").await.unwrap();
    assert_eq!(socket.text().await, "to all");
    socket.send("join order:42").await;
    assert_eq!(socket.text().await, "JOIN ORDER:42");
    publish("granted").await;
    assert_eq!(socket.text().await, "granted");
    server.sockets.sessions(1)[0].unsubscribe(&order);
    publish("after").await;
    socket.send("bye").await;
    assert_eq!(socket.text().await, "BYE");
}

#[actix_web::test]
async fn hubs_on_one_bus_are_one_cluster() {
    let bus = MemoryBus::new();
    let node = || Embedded::start(Hub::builder().bus(bus.clone()).start().unwrap());
    let (a, b) = (node(), node());
    let mut on_a = Socket::open(&a, &token(1), &["realtime.v1"], None).await.unwrap();
    let mut on_b = Socket::open(&b, &token(1), &["realtime.v1"], None).await.unwrap();
    assert_eq!((&on_a.json().await["type"], &on_b.json().await["type"]), (&"hello".into(), &"hello".into()));
    a.sockets.publish_to(&[1.into()], "from a").await.unwrap();
    b.sockets.publish_to(&[1.into()], "from b").await.unwrap();
    let mut cursor = String::new();
    for text in ["from a", "from b"] {
        let (first, second) = (on_a.json().await, on_b.json().await);
        assert_eq!(first, second, "one order and one position on all nodes");
        assert_eq!(first["data"], text);
        cursor = first["id"].as_str().unwrap().to_owned();
    }
    drop(on_a);
    a.sockets.publish_all("missed").await.unwrap();
    let mut moved = Socket::open(&b, &token(1), &["realtime.v1"], Some(&cursor)).await.unwrap();
    assert_eq!(moved.json().await["recovered"], true);
    assert_eq!(moved.message().await["data"], "missed");
    b.sockets.send_message_all("only on b").unwrap();
    assert_eq!(moved.message().await["data"], "only on b");
}

#[actix_web::test]
async fn a_hub_refuses_what_it_cannot_do() {
    let mut settings = Settings::default();
    settings.limits.max_message_bytes = 10;
    let hub = Hub::builder().settings(settings).start().unwrap();
    let long = Envelope::broadcast(Scope::Both, Message::text("x".repeat(11)));
    assert!(hub.publish(long.clone()).await.is_err());
    assert!(matches!(hub.send_local(long), Err(SendError::TooLarge(_))));

    let _shard = hub.shard();
    let mut results = (0..2000).map(|_| hub.send_local(Envelope::broadcast(Scope::Both, Message::text("x"))));
    assert!(results.any(|result| result == Err(SendError::Overloaded)), "nothing waits without a bound");

    assert_eq!(within("a drain of nothing", hub.drain()).await, 0);
    let refused = SseEmitters::new(hub.clone()).connect(1, "t").unwrap_err();
    assert_eq!(refused.to_string(), ConnectError::Draining.to_string());
    assert!(hub.ready().is_err());
}

#[actix_web::test]
async fn the_process_wide_hub_is_installed_once() {
    assert!(realtime_core::hub().is_none());
    realtime_core::install(hub()).unwrap();
    assert!(realtime_core::install(hub()).is_err());
    let hub = realtime_core::hub().unwrap();
    hub.publish(Envelope::broadcast(Scope::Both, Message::text("x"))).await.unwrap();
}

#[actix_web::test]
async fn an_unavailable_bus_is_an_error_and_not_silence() {
    struct Away;

    impl Bus for Away {
        fn publish<'a>(
            &'a self,
            _: &'a Arc<Envelope>,
        ) -> futures_util::future::BoxFuture<
            'a,
            Result<realtime_core::bus::Published, realtime_core::bus::BusError>,
        > {
            Box::pin(async { Err(realtime_core::bus::BusError::Unavailable("connection refused".into())) })
        }

        fn subscribe(&self) -> futures_util::stream::BoxStream<'static, realtime_core::bus::BusEvent> {
            Box::pin(futures_util::stream::pending())
        }
    }

    let hub = Hub::builder().bus(Away).start().unwrap();
    let error = hub.publish(Envelope::to_users([42], Scope::Both, Message::text("x")).unwrap()).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "failed to publish to `user:42`: the bus is unavailable: connection refused"
    );
    assert_eq!(hub.ready().unwrap_err(), "the bus has not answered yet");
    // It has never been there, so nothing is forgiven.
    assert!(!hub.not_ready()[0].is_within(Duration::MAX));
    hub.send_local(Envelope::broadcast(Scope::Both, Message::text("x"))).unwrap();
}
