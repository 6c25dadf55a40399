//! The server counts all connections in its limit, and an orderly stop waits for them up to a time limit.
#![cfg(target_os = "linux")]

use std::{sync::Arc, time::Duration};

use actix_web::{App, HttpRequest, HttpResponse, web};
use realtime_core::{
    CloseReason, Hub, SessionHandle,
    auth::{JwtAlgorithm, JwtAuthenticator},
};
use realtime_sse::SseConfig;
use realtime_tests::{
    RawClient, Running, SECRET, Server, ServerKind, Socket, descriptors, start_server, token, until, within,
};
use realtime_websocket::WebSocketConfig;
use tokio::time::{Instant, sleep, timeout};

/// A server that serves few connections at once.
fn start(hub: &Hub, kind: ServerKind, connections: usize, shutdown: u64) -> Running {
    let hub = hub.clone();
    let app = move || {
        let authenticator = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
        App::new()
            .route("/plain", web::get().to(async || "plain"))
            .route("/kept", web::get().to(kept))
            .route("/never", web::get().to(std::future::pending::<HttpResponse>))
            .configure(realtime_websocket::routes(
                hub.clone(),
                authenticator.clone(),
                WebSocketConfig::default(),
            ))
            .configure(realtime_sse::routes(hub.clone(), authenticator, SseConfig::default()))
    };
    start_server!(
        kind,
        app.clone(),
        workers(1),
        max_connections(connections),
        shutdown_timeout(shutdown),
        h1_allow_half_closed(false)
    )
}

/// Has work go on behind the answer.
async fn kept(request: HttpRequest) -> &'static str {
    actix_web::rt::spawn(async move {
        sleep(Duration::from_secs(3600)).await;
        drop(request);
    });
    "kept"
}

fn hub() -> Hub {
    Hub::builder().start().unwrap()
}

/// A WebSocket and an event stream, both open.
async fn both(server: &Running, hub: &Hub) -> [RawClient; 2] {
    let mut clients = [RawClient::connect(server).await, RawClient::connect(server).await];
    clients[0].write(RawClient::websocket(1)).await;
    clients[1].write(RawClient::event_stream(1)).await;
    for client in &mut clients {
        client.head().await;
    }
    let taken = ServerKind::of_run() == ServerKind::Realtime;
    until("both to be taken over", || {
        let sessions = hub.all_sessions();
        sessions.len() == 2 && sessions.iter().all(|session| session.is_direct() == taken)
    })
    .await;
    clients
}

#[actix_web::test]
async fn connections_that_were_taken_over_count_in_the_limit() {
    let hub = hub();
    let server = start(&hub, ServerKind::of_run(), 2, 1);
    for _ in 0..2 {
        let [first, second] = both(&server, &hub).await;
        let mut third = RawClient::connect(&server).await;
        third.write("GET /plain HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let waits = timeout(Duration::from_millis(200), third.read()).await;
        assert!(waits.is_err(), "it is served though there is no room");
        drop(first);
        assert!(third.head().await.starts_with("HTTP/1.1 200 "));
        drop((second, third));
        until("all to end", || hub.all_sessions().is_empty() && descriptors(&server) == 0).await;
    }
}

#[actix_web::test]
async fn an_orderly_stop_waits_for_connections_that_were_taken_over() {
    let hub = hub();
    let server = start(&hub, ServerKind::of_run(), 100, 10);
    let mut clients = both(&server, &hub).await;
    let begin = Instant::now();
    let stop = actix_web::rt::spawn(server.handle.stop(true));
    sleep(Duration::from_millis(1500)).await;
    assert!(!stop.is_finished() && hub.all_sessions().len() == 2);
    hub.all_sessions().into_iter().for_each(|session| session.close(CloseReason::Disconnected));
    let frame = loop {
        let frame = clients[0].next_frame().await;
        if frame.0 == 0x88 {
            break frame;
        }
    };
    clients[0].send(0x88, &frame.1[..2]).await;
    within("the stop", stop).await.unwrap();
    // actix-server looks once a second.
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    assert!(clients[1].end().await);
    until("the descriptors to be closed", || descriptors(&server) == 0).await;
}

#[actix_web::test]
async fn an_orderly_stop_has_a_limit_and_any_other_ends_all() {
    for graceful in [true, false] {
        let hub = hub();
        let server = start(&hub, ServerKind::of_run(), 100, 1);
        let clients = both(&server, &hub).await;
        // A `SessionHandle` does not keep the connection open.
        let sessions: Vec<SessionHandle> = hub.all_sessions();
        within("the stop", server.handle.stop(graceful)).await;
        until("the sessions to end", || hub.all_sessions().is_empty()).await;
        until("the descriptors to be closed", || descriptors(&server) == 0).await;
        for mut client in clients {
            client.end().await;
        }
        let metrics = hub.metrics();
        assert_eq!((metrics.taken_over, metrics.opened), (metrics.taken_over_ended, metrics.closed));
        drop(sessions);
    }
}

#[actix_web::test]
async fn a_server_that_is_dropped_leaves_nothing_and_others_go_on() {
    let hubs = [hub(), hub(), hub()];
    let mut servers: Vec<Running> = hubs.iter().map(|hub| start(hub, ServerKind::of_run(), 100, 1)).collect();
    let mut clients = Vec::new();
    for (server, hub) in servers.iter().zip(&hubs) {
        clients.push(both(server, hub).await);
    }
    let server = servers.remove(1);
    let port = server.port();
    drop(server);
    until("the sessions to end", || hubs[1].all_sessions().is_empty()).await;
    let stopped = Stopped(port);
    until("the descriptors to be closed", || descriptors(&stopped) == 0).await;
    for (server, hub) in servers.iter().zip([&hubs[0], &hubs[2]]) {
        assert_eq!(hub.all_sessions().len(), 2);
        let mut socket = Socket::open(server, &token(5), &[], None).await.unwrap();
        socket.send("ping").await;
        assert_eq!(socket.text().await, "pong");
    }
}

struct Stopped(u16);

impl Server for Stopped {
    fn port(&self) -> u16 {
        self.0
    }
}

#[test]
fn a_server_needs_no_actix_system() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let hub = hub();
        let server = start(&hub, ServerKind::of_run(), 100, 1);
        drop(both(&server, &hub).await);
        until("the sessions to end", || hub.all_sessions().is_empty()).await;
        within("the stop", server.handle.stop(true)).await;
    });
}

#[actix_web::test]
async fn a_request_that_is_kept_does_not_keep_the_socket() {
    let server = start(&hub(), ServerKind::of_run(), 100, 1);
    let mut client = RawClient::connect(&server).await;
    client.write("GET /kept HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    client.until("kept").await;
    assert!(client.end().await);
    until("the descriptor to be closed", || descriptors(&server) == 0).await;
}

#[actix_web::test]
async fn a_client_that_leaves_before_the_answer_is_noticed() {
    // Behind an answer that never comes, and behind an upgrade whose answer never comes.
    let hub = hub();
    let server = start(&hub, ServerKind::of_run(), 100, 1);
    let upgrade = "POST /never HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nbody!";
    for request in ["GET /never HTTP/1.1\r\nHost: x\r\n\r\n", upgrade] {
        let mut client = RawClient::connect(&server).await;
        client.write(request).await;
        until("the connection", || descriptors(&server) == 1).await;
        client.reset();
        until("the descriptor to be closed", || descriptors(&server) == 0).await;
    }
}

#[actix_web::test]
async fn sockets_are_set_for_pushing_whether_or_not_the_application_sets_them() {
    let options = |nodelay: bool| {
        let (send, receive) = std::sync::mpsc::channel();
        let set = realtime_server::socket_options(Duration::from_secs(7));
        let server = realtime_server::HttpServer::new(App::new)
            .workers(1)
            .tcp_nodelay(nodelay)
            .on_connect(move |connection, data| {
                let socket = socket2::SockRef::from(
                    connection.downcast_ref::<actix_web::rt::net::TcpStream>().unwrap(),
                );
                let options = || {
                    let stall = socket.tcp_user_timeout().unwrap();
                    (socket.tcp_nodelay().unwrap(), socket.tcp_notsent_lowat().unwrap(), stall)
                };
                let before = options();
                set(connection, data);
                send.send((before, options())).unwrap();
            })
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        drop(std::net::TcpStream::connect(address).unwrap());
        async move {
            let options = actix_web::rt::task::spawn_blocking(move || receive.recv().unwrap()).await.unwrap();
            handle.stop(false).await;
            options
        }
    };
    let stall = Some(Duration::from_secs(7));
    let default = Some(Duration::from_secs(8));
    assert_eq!(options(true).await, ((true, 4096, default), (true, 4096, stall)));
    assert_eq!(options(false).await.0, (false, 4096, default));
}
