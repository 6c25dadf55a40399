//! The limit of a user's sessions over all nodes: held by handshakes, corrected after races and outages.
#![allow(clippy::print_stdout, reason = "a test's figures")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::App;
use futures_util::future::join_all;
use realtime_core::{
    CloseReason, Hub, Settings,
    auth::{JwtAlgorithm, JwtAuthenticator},
    settings::OnExceeded,
};
use realtime_redis::{Incarnation, RedisConfig, RedisControl, RedisPresence};
use realtime_sse::{SseConfig, SseEmitters};
use realtime_tests::{
    EventStream, Proxy, Redis, Running, SECRET, ServerKind, Socket, start_server, token, until, within,
};
use realtime_websocket::WebSocketConfig;
use tokio::time::{sleep, timeout};

struct Node {
    hub: Hub,
    server: Running,
}

impl Node {
    /// Sessions of a user that are open on this node.
    fn open(&self, user: i64) -> usize {
        self.hub.sessions(&user.into()).iter().filter(|session| session.closing().is_none()).count()
    }

    async fn connect(&self, token: &str) -> Result<Socket, u16> {
        Socket::open(&self.server, token, &["realtime.v1"], None).await
    }
}

fn start(url: &str, name: &str, limit: usize, on_exceeded: OnExceeded) -> Hub {
    let incarnation = Incarnation::new(name);
    let presence = RedisPresence::make(RedisConfig::single(url), incarnation.clone()).unwrap();
    let control = RedisControl::make(RedisConfig::single(url), incarnation).unwrap();
    let mut settings = Settings::default();
    settings.limits.max_connections_per_user = 0;
    settings.limits.max_connections_per_user_in_cluster = limit;
    settings.limits.on_exceeded = on_exceeded;
    let hub = Hub::builder().node(name).settings(settings).presence(presence).control(control);
    hub.start().unwrap()
}

fn node(redis: &Redis, name: &str, limit: usize, on_exceeded: OnExceeded) -> Node {
    let hub = start(&redis.url(), name, limit, on_exceeded);
    let app = {
        let hub = hub.clone();
        move || {
            let authenticator = Arc::new(JwtAuthenticator::new(JwtAlgorithm::Hs256, SECRET).unwrap());
            let websocket = WebSocketConfig::default();
            App::new()
                .configure(realtime_websocket::routes(hub.clone(), authenticator.clone(), websocket))
                .configure(realtime_sse::routes(hub.clone(), authenticator, SseConfig::default()))
        }
    };
    let server = start_server!(ServerKind::of_run(), app.clone(), workers(1), h1_allow_half_closed(false));
    Node { hub, server }
}

fn nodes(redis: &Redis, count: usize, limit: usize, on_exceeded: OnExceeded) -> Vec<Node> {
    (0..count).map(|n| node(redis, &format!("node-{n}"), limit, on_exceeded)).collect()
}

/// Waits until presence knows so many sessions of a user.
async fn until_known(node: &Node, user: i64, sessions: usize) {
    within(&format!("presence to know {sessions} sessions"), async {
        while node.hub.presence().sessions(&user.into()).await.map_or(usize::MAX, |known| known.len())
            != sessions
        {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn a_user_has_as_many_sessions_as_the_cluster_allows_on_whatever_nodes() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 3, 4, OnExceeded::Refuse);
    let token = token(1);
    let mut kept = Vec::new();
    for n in 0..4 {
        kept.push(nodes[n % 2].connect(&token).await.unwrap());
        until_known(&nodes[0], 1, n + 1).await;
    }
    for node in &nodes {
        assert_eq!(node.connect(&token).await.err(), Some(429));
        // An `EventSource` comes back: sessions of a node that was killed are counted for some seconds.
        assert_eq!(EventStream::open(&node.server, &token, None).await.err(), Some(200));
        assert_eq!(node.hub.metrics().refused_by.cluster, 2);
    }
    // Another user has a count of its own.
    let _other = nodes[2].connect(&realtime_tests::token(2)).await.unwrap();
    drop(kept.remove(0));
    until_known(&nodes[0], 1, 3).await;
    kept.push(nodes[2].connect(&token).await.unwrap());
    assert_eq!(nodes.iter().map(|node| node.open(1)).sum::<usize>(), 4);
}

#[actix_web::test]
async fn the_oldest_session_ends_on_a_node_that_has_had_no_other_since() {
    let redis = Redis::start().await;
    let nodes = nodes(&redis, 3, 1, OnExceeded::EndOldest);
    let token = token(1);
    let mut oldest = nodes[0].connect(&token).await.unwrap();
    // Its node counts six seconds after it began for the last time.
    sleep(Duration::from_secs(7)).await;
    for n in [1, 2, 0] {
        let newer = nodes[n].connect(&token).await.unwrap();
        let began = Instant::now();
        assert_eq!(oldest.close_code().await, 4410);
        println!("the oldest session ended {:.1?} after another node had let the newest in", began.elapsed());
        oldest = newer;
    }
    assert_eq!(nodes.iter().map(|node| node.open(1)).sum::<usize>(), 1);
    // Nothing is refused for it.
    drop(oldest);
    assert!(nodes[1].connect(&token).await.is_ok());
    // The orders leave the stream of commands, in which kicks wait for nodes that are cut off.
    within("a stream without the orders", async {
        while redis.cli(&["xrange", "{rt/control}:commands", "-", "+"]).contains("endSessions") {
            sleep(Duration::from_millis(50)).await;
            for node in &nodes {
                node.hub.kick(&9.into()).await.unwrap();
            }
        }
    })
    .await;
}

/// Opens `each` sessions on each node at once. Returns those that were let in.
async fn race(nodes: &[Node], token: &str, each: usize) -> Vec<Socket> {
    let attempts = (0..nodes.len() * each).map(|n| nodes[n % nodes.len()].connect(token));
    join_all(attempts).await.into_iter().flatten().collect()
}

#[actix_web::test]
async fn handshakes_that_race_on_several_nodes_are_corrected_within_seconds() {
    const LIMIT: usize = 4;
    for on_exceeded in [OnExceeded::Refuse, OnExceeded::EndOldest] {
        // Of its own: nodes with the names of dead ones are judged once the leases of those have ended.
        let redis = Redis::start().await;
        let nodes = nodes(&redis, 3, LIMIT, on_exceeded);
        let (mut most, mut slowest) = (0, Duration::ZERO);
        for round in 0..5 {
            let user = round + if on_exceeded == OnExceeded::Refuse { 100 } else { 200 };
            let began = Instant::now();
            let sockets = race(&nodes, &token(user), 10).await;
            let open = || nodes.iter().map(|node| node.open(user)).sum::<usize>();
            most = most.max(sockets.len());
            match on_exceeded {
                // Each node is exact by itself.
                OnExceeded::Refuse => assert!(
                    (LIMIT..=LIMIT * nodes.len()).contains(&sockets.len()),
                    "{} were let in",
                    sockets.len()
                ),
                OnExceeded::EndOldest => assert_eq!(sockets.len(), 30, "none is refused"),
            }
            until("as many as allowed to be left", || open() == LIMIT).await;
            slowest = slowest.max(began.elapsed());
            // And no more than that: nobody ends for it who need not.
            let (mut kept, mut codes) = (Vec::new(), Vec::new());
            for mut socket in sockets {
                match timeout(Duration::from_millis(200), socket.close_code()).await {
                    Ok(code) => codes.push(code),
                    Err(_) => kept.push(socket),
                }
            }
            let expected = match on_exceeded {
                // As a handshake that is refused: the client may come back.
                OnExceeded::Refuse => 1013,
                OnExceeded::EndOldest => 4410,
            };
            assert!(codes.iter().all(|code| *code == expected), "{codes:?}");
            assert_eq!((kept.len(), open()), (LIMIT, LIMIT));
        }
        println!(
            "{on_exceeded:?}: a limit of {LIMIT}, 10 handshakes at once on each of {} nodes: at most {most} were open, \
             {LIMIT} again after {slowest:.1?}",
            nodes.len()
        );
    }
}

#[actix_web::test]
async fn without_redis_each_node_holds_its_own_limit_alone_and_says_so_until_it_is_back() {
    let mut redis = Redis::start().await;
    let nodes = nodes(&redis, 2, 2, OnExceeded::Refuse);
    let token = token(1);
    let mut kept = Vec::new();
    for node in &nodes {
        kept.push(node.connect(&token).await.unwrap());
    }
    until_known(&nodes[0], 1, 2).await;
    assert_eq!(nodes[0].connect(&token).await.err(), Some(429));
    redis.kill();
    // Two on each node: what a node knows itself still counts.
    for node in &nodes {
        let began = Instant::now();
        kept.push(node.connect(&token).await.unwrap());
        assert!(began.elapsed() < Duration::from_secs(2), "a handshake waited for {:?}", began.elapsed());
        assert_eq!(node.connect(&token).await.err(), Some(429));
        assert!(node.hub.metrics().cluster_unchecked >= 1);
    }
    assert_eq!(nodes.iter().map(|node| node.open(1)).sum::<usize>(), 4);
    redis.restart().await;
    let back = Instant::now();
    until("two to be left", || nodes.iter().map(|node| node.open(1)).sum::<usize>() == 2).await;
    println!("two again {:.1?} after Redis was", back.elapsed());
    // The older ones stay.
    let mut newer = kept.split_off(2);
    for socket in &mut newer {
        assert_eq!(socket.close_code().await, 1013);
    }
    assert_eq!(nodes.iter().map(|node| node.open(1)).collect::<Vec<_>>(), [1, 1]);
    // And the limit is held again.
    within("a refusal", async {
        while let Ok(socket) = nodes[1].connect(&token).await {
            drop(socket);
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[actix_web::test]
async fn nobody_makes_room_for_the_sessions_of_a_dead_node() {
    const USERS: i64 = 100;
    for on_exceeded in [OnExceeded::Refuse, OnExceeded::EndOldest] {
        let redis = Redis::start().await;
        let proxy = Proxy::start(redis.port()).await;
        let a = start(&format!("redis://127.0.0.1:{}/", proxy.port()), "a", 1, on_exceeded);
        let b = start(&redis.url(), "b", 1, on_exceeded);
        within("the starts", async { tokio::join!(a.started(), b.started()) }).await;
        let open = |hub: &Hub, user: i64| {
            SseEmitters::new(hub.clone()).connect(user, "t").map_err(|error| error.to_string()).unwrap()
        };
        let _dead: Vec<_> = (0..USERS).map(|user| open(&a, user)).collect();
        within("presence to know them", async {
            while b.presence().count().await.map_or(0, |known| known.sessions) < USERS as usize {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // What its node does now, nobody hears.
        drop(proxy);
        sleep(Duration::from_millis(100)).await;
        let live: Vec<_> = (0..USERS).map(|user| open(&b, user)).collect();
        let polls = || {
            let stats = redis.cli(&["info", "commandstats"]);
            let exec = stats.lines().find_map(|line| line.strip_prefix("cmdstat_exec:calls="));
            exec.map_or(0, |exec| exec.split(',').next().unwrap().parse::<usize>().unwrap())
        };
        let before = polls();
        // Until the dead ones are removed.
        sleep(Duration::from_secs(10)).await;
        // Nobody reads the streams, and some end for that.
        let is_limit = |reason: CloseReason| ["limit-reached", "too-many-sessions"].contains(&reason.name());
        let ended = live.iter().filter(|stream| stream.handle().closing().is_some_and(is_limit)).count();
        assert_eq!(ended, 0, "{on_exceeded:?}: of {USERS}");
        let orders = redis.cli(&["xrange", "{rt/control}:commands", "-", "+"]).matches("endSessions").count();
        assert_eq!(orders, 0, "{on_exceeded:?}");
        assert!(polls() - before < 1000, "{on_exceeded:?}: {} polls", polls() - before);
    }
}

#[actix_web::test]
async fn a_client_that_was_let_in_by_mistake_is_told_to_come_back() {
    let redis = Redis::start().await;
    let [a, b] = ["a", "b"].map(|name| start(&redis.url(), name, 1, OnExceeded::Refuse));
    within("the starts", async { tokio::join!(a.started(), b.started()) }).await;
    let open = |hub: &Hub| SseEmitters::new(hub.clone()).connect(1, "t").unwrap();
    let first = open(&a);
    sleep(Duration::from_millis(5)).await;
    let second = open(&b);
    until("the newer one's end", || second.handle().closing().is_some()).await;
    assert!(second.handle().closing().unwrap().may_reconnect(), "{:?}", second.handle().closing());
    assert_eq!(first.handle().closing(), None);
}
