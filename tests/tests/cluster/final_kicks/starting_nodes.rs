//! A node admits no client before it has read which logins are refused.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use realtime_core::{auth::TokenHash, error::ConnectError};
use realtime_tests::{Embedded, Fault, Part, Proxy, Redis, Server, Socket, token, within};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{is_kicked, node, open, start};

/// A proxy between a node and Redis. While it is shut, it accepts connections but forwards nothing.
pub(super) struct Gate {
    pub(super) port: u16,
    pub(super) open: watch::Sender<bool>,
}

impl Gate {
    pub(super) async fn shut(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, server) = (listener.local_addr().unwrap().port(), redis.port());
        let (open, opened) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut opened = opened.clone();
                tokio::spawn(async move {
                    opened.wait_for(|open| *open).await.ok();
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Self { port, open }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

#[actix_web::test]
async fn a_node_that_restarts_admits_no_kicked_token() {
    const ROUNDS: usize = 8;
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let mut let_in = 0;
    for round in 0..ROUNDS {
        let token = format!("token {round}");
        let session = open(&a, 1, &token).unwrap();
        a.kick(&1.into()).await.unwrap();
        assert!(is_kicked(&session));
        let b = start(redis.url(), "b");
        // As soon as the port is open, and repeatedly until the node admits others.
        within("a start", async {
            loop {
                let_in += usize::from(open(&b, 1, &token).is_ok());
                if open(&b, 2, "another's").is_ok() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let_in += usize::from(open(&b, 1, &token).is_ok());
    }
    assert_eq!(let_in, 0);
    let seen = "It takes nobody in before it has read what is refused: for up to 5 s its handshakes wait, then they are \
                told to come back.";
    Fault::new("Node: starts after a kick", Part::Kicks, seen).record();
}

#[actix_web::test]
async fn a_node_that_starts_during_a_kick_admits_no_kicked_token() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    redis.knows_all_nodes();
    // One read, which takes a while to arrive.
    let fill = "for i = 1, 900 do redis.call('XADD', KEYS[1], '*', 'v', '1', 'x', string.rep('x', 4096)) end return 1";
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt/control}:commands"]), "1");
    let session = open(&a, 1, "kicked").unwrap();
    redis.cli(&["acl", "setuser", "late", "on", ">secret", "~*", "&*", "+@all"]);
    let proxy = Proxy::start_at(redis.port(), 3 << 20).await;
    let b = start(format!("redis://late:secret@127.0.0.1:{}/", proxy.port()), "b");
    within("a read", async {
        let reads = |client: &str| client.contains("user=late") && client.contains("cmd=xread");
        while !redis.cli(&["client", "list"]).lines().any(reads) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let outcome = a.kick(&1.into()).await.unwrap();
    assert_eq!((outcome.closed, outcome.unconfirmed), (1, vec![]));
    assert!(is_kicked(&session));
    open(&b, 2, "another's").expect_err("it is still reading");
    let mut let_in = 0;
    within("a start", async {
        loop {
            let_in += usize::from(open(&b, 1, "kicked").is_ok());
            if open(&b, 2, "another's").is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let_in += usize::from(open(&b, 1, "kicked").is_ok());
    assert_eq!(let_in, 0);
}

#[actix_web::test]
async fn a_node_that_gets_no_answer_for_its_lease_is_not_started() {
    let redis = Redis::start().await;
    redis.cli(&["client", "pause", "3000", "write"]);
    let a = start(redis.url(), "a");
    within("a start", a.started()).await;
    let leases = redis.cli(&["zrange", "{rt/control}:nodes", "0", "-1"]);
    assert!(leases.starts_with("a~"), "no kick waits for it: {leases:?}");
}

#[actix_web::test]
async fn a_node_that_cannot_reach_redis_at_its_start_admits_no_client_until_it_can() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    let gate = Gate::shut(&redis).await;
    let b = start(gate.url(), "b");
    assert_eq!(open(&b, 1, "t").unwrap_err(), ConnectError::Starting.to_string());
    open(&b, 2, "another's").expect_err("nobody knows yet what is refused");
    assert_eq!(b.ready().unwrap_err(), "the refused logins have not been read yet");

    // Over sockets a handshake waits a while and is then asked to retry later.
    let server = Embedded::start(b.clone());
    let (one, two, three) = (token(1), token(2), token(3));
    let asked = Instant::now();
    let url = format!("http://127.0.0.1:{}/resource/sse?Authorization={one}", server.port());
    let upgrade =
        format!("http://127.0.0.1:{}/resource/websocket?clientid=web&Authorization={two}", server.port());
    let upgrade = reqwest::Client::new()
        .get(upgrade)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let (stream, socket) = tokio::join!(reqwest::get(url), upgrade.send());
    assert!(asked.elapsed() > Duration::from_secs(4), "took {:?}", asked.elapsed());
    assert!(stream.unwrap().text().await.unwrap().starts_with(":disconnected\nretry:"));
    let socket = socket.unwrap();
    assert_eq!(socket.status(), 503);
    let retry: u64 = socket.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2..=5).contains(&retry), "{retry}");

    let socket = Socket::open(&server, &three, &["realtime.v1"], None);
    let open_gate = async {
        sleep(Duration::from_millis(100)).await;
        gate.open.send_replace(true);
    };
    let (socket, ()) = tokio::join!(socket, open_gate);
    assert_eq!(socket.expect("it was let in when the node had started").json().await["type"], "hello");
    within("a start", b.started()).await;
    open(&b, 2, "another's").unwrap();
    open(&b, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn refusals_outlive_any_number_of_commands() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let _session = open(&a, 1, "t").unwrap();
    a.kick(&1.into()).await.unwrap();
    redis.cli(&["xtrim", "{rt/control}:commands", "MAXLEN", "0"]);
    let late = node(&redis, "late").await;
    open(&late, 1, "t").unwrap_err();
}

#[actix_web::test]
async fn a_node_starts_at_once_however_much_is_refused() {
    let redis = Redis::start().await;
    let order = r#"{"command":"revoke","user":1,"tokens":[{"token":"00000000000000000000000000000001"}]}"#;
    let fill = "for i = 1, 20000 do redis.call('ZADD', KEYS[1], 4e9, string.format('%032x 1', i)) end \
                for i = 1, 10000 do redis.call('XADD', KEYS[2], '*', 'v', '1', 'c', ARGV[1]) end return 1";
    assert_eq!(redis.cli(&["eval", fill, "2", "{rt/control}:refused", "{rt/control}:commands", order]), "1");
    let asked = Instant::now();
    let a = start(redis.url(), "a");
    within("a start", a.started()).await;
    assert!(asked.elapsed() < Duration::from_secs(3), "took {:?}", asked.elapsed());
}

#[actix_web::test]
async fn a_node_starts_behind_a_slow_link_however_much_is_refused() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let session = open(&a, 1, "kicked").unwrap();
    a.kick(&1.into()).await.unwrap();
    assert!(is_kicked(&session));
    drop((session, a));
    let fill =
        "for i = 1, 40000 do redis.call('ZADD', KEYS[1], 4e9, string.format('%032x 1', i)) end return 1";
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt/control}:refused"]), "1");
    // All of it at once takes longer than the time limit of a command.
    let proxy = Proxy::start_at(redis.port(), 1 << 20).await;
    let b = start(format!("redis://127.0.0.1:{}/", proxy.port()), "b");
    within("a start", b.started()).await;
    open(&b, 1, "kicked").unwrap_err();
    open(&b, 2, "another's").unwrap();
}

#[actix_web::test]
async fn a_node_whose_redis_user_may_not_scan_starts() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    let session = open(&a, 1, "kicked").unwrap();
    a.kick(&1.into()).await.unwrap();
    assert!(is_kicked(&session));
    redis.cli(&["acl", "setuser", "older", "on", ">secret", "~*", "&*", "+@all", "-zscan"]);
    let b = start(format!("redis://older:secret@127.0.0.1:{}/", redis.port()), "b");
    within("a start", b.started()).await;
    open(&b, 1, "kicked").unwrap_err();
}

#[actix_web::test]
async fn a_node_whose_redis_changes_during_the_start_has_read_all_refusals() {
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let tokens: Vec<_> = (0..300).map(|n| format!("token {n}")).collect();
    let members = tokens.iter().map(|token| serde_json::to_value(TokenHash::of(token)).unwrap());
    let members: Vec<_> = members.map(|hash| format!("{} 1", hash.as_str().unwrap())).collect();
    let fill = "for i = 1, 40000 do redis.call('ZADD', KEYS[1], 4e9, string.format('%032x 1', i)) end \
                for _, member in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 4e9, member) end return 1";
    for redis in [&redis, &other] {
        let arguments = ["eval", fill, "1", "{rt/control}:refused"].into_iter();
        let arguments: Vec<_> = arguments.chain(members.iter().map(String::as_str)).collect();
        assert_eq!(redis.cli(&arguments), "1");
    }
    let proxy = Proxy::start_at(redis.port(), 1 << 20).await;
    let b = start(format!("redis://127.0.0.1:{}/", proxy.port()), "b");
    within("some steps", async {
        while !redis.cli(&["info", "commandstats"]).contains("cmdstat_zscan:") {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    sleep(Duration::from_millis(300)).await;
    proxy.lead_to(other.port());
    redis.cli(&["client", "kill", "type", "normal"]);
    within("a start", b.started()).await;
    let admitted: Vec<_> = tokens.iter().filter(|token| open(&b, 1, token).is_ok()).collect();
    assert!(admitted.is_empty(), "{} of 300 were let in: {admitted:?}", admitted.len());
}

#[actix_web::test]
async fn a_start_that_is_interrupted_forgets_no_command_of_an_older_node() {
    let redis = Redis::start().await;
    let stolen = serde_json::to_string(&TokenHash::of("stolen")).unwrap();
    let order = format!(r#"{{"command":"revokeToken","token":{stolen}}}"#);
    // More than one read takes, the first of which takes a while.
    let fill = "redis.call('XADD', KEYS[1], '*', 'v', '1', 'c', ARGV[1]) \
                for i = 1, 1500 do redis.call('XADD', KEYS[1], '*', 'v', '1', 'x', string.rep('x', 4096)) end return 1";
    assert_eq!(redis.cli(&["eval", fill, "1", "{rt/control}:commands", &order]), "1");
    let proxy = Proxy::start_at(redis.port(), 8 << 20).await;
    redis.cli(&["acl", "setuser", "reader", "on", ">secret", "~*", "&*", "+@all"]);
    let a = start(format!("redis://reader:secret@127.0.0.1:{}/", proxy.port()), "a");
    let reads = async |count: &str| {
        within("a read", async {
            while !redis
                .cli(&["info", "commandstats"])
                .lines()
                .any(|line| line.starts_with("cmdstat_xread:") && !line.contains(&format!("{count}=0")))
            {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    reads(":calls").await;
    redis.cli(&["acl", "setuser", "reader", "-xread"]);
    reads(",rejected_calls").await;
    redis.cli(&["acl", "setuser", "reader", "+xread"]);
    within("a start", a.started()).await;
    open(&a, 1, "stolen").unwrap_err();
}

#[actix_web::test]
async fn commands_of_older_nodes_are_carried_out() {
    let redis = Redis::start().await;
    let order = |json: String| redis.cli(&["xadd", "{rt/control}:commands", "*", "v", "1", "c", &json]);
    let hash = |token: &str| serde_json::to_string(&TokenHash::of(token)).unwrap();
    // They store refused logins in the commands only, without the users that the tokens belong to.
    order(format!(r#"{{"command":"revokeToken","token":{}}}"#, hash("stolen")));
    order(format!(r#"{{"command":"revoke","tokens":[{{"token":{}}}]}}"#, hash("kicked before")));
    order(r#"{"command":"kick","user":2}"#.to_owned());
    let a = node(&redis, "a").await;
    open(&a, 1, "stolen").unwrap_err();
    open(&a, 1, "kicked before").unwrap_err();
    let (one, two) = (open(&a, 1, "t").unwrap(), open(&a, 2, "t2").unwrap());
    order(format!(r#"{{"command":"revoke","tokens":[{{"token":{}}}]}}"#, hash("t")));
    within("the session's end", async {
        while !is_kicked(&one) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!is_kicked(&two), "the kick was before it came");
    // A node of this version stores them for later nodes in the new form.
    redis.cli(&["del", "{rt/control}:commands"]);
    within("the list", async {
        while redis.cli(&["zcard", "{rt/control}:refused"]) != "2" {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    open(&node(&redis, "b").await, 1, "stolen").unwrap_err();
}

#[actix_web::test]
async fn a_node_that_starts_during_a_kick_confirms_it() {
    let redis = Redis::start().await;
    let a = node(&redis, "a").await;
    redis.knows_all_nodes();
    // A node that hangs.
    let lease = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(9);
    redis.cli(&["zadd", "{rt/control}:nodes", &lease.as_millis().to_string(), "c~1"]);
    let starts = async {
        // Its receipt must not wait for the next command.
        sleep(Duration::from_millis(600)).await;
        let late = start(redis.url(), "late");
        late.started().await;
        late
    };
    let user = 1.into();
    let (outcome, _late) = tokio::join!(a.kick(&user), starts);
    assert_eq!(outcome.unwrap().unconfirmed, ["c"]);
}
