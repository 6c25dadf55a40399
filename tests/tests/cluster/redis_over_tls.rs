//! Buses, presence and control work over TLS, with client certificates, and reject servers that are not trusted.

use std::{process::Command, time::Duration};

use realtime_core::{
    Hub,
    bus::{Bus, BusError, BusEvent},
};
use realtime_redis::{
    Incarnation, RedisConfig, RedisControl, RedisPresence, RedisPubSubBus, RedisStreamsBus, RedisTls,
};
use realtime_tests::{
    Authority, Demo, RedisTlsServer,
    conformance::{Subscriber, Terms, bus_conforms, envelope},
    within,
};
use tokio::time::sleep;

const BOTH: &str = "TLSv1.2 TLSv1.3";

async fn problem(config: RedisConfig) -> String {
    let answer = RedisStreamsBus::new(config).unwrap().publish(&envelope("x")).await;
    let Err(BusError::Unavailable(problem)) = answer else { panic!("{answer:?}") };
    problem
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_an_error() {
    let config = RedisConfig::single("rediss://127.0.0.1:1/");
    problem(config.clone()).await;
    let (bus, pubsub) = (RedisStreamsBus::new(config.clone()).unwrap(), RedisPubSubBus::new(config).unwrap());
    for mut events in [Subscriber::start(&bus), Subscriber::start(&pubsub)] {
        assert!(matches!(events.next().await, BusEvent::Down(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_buses_conform_over_either_version_with_a_client_certificate() {
    let authority = Authority::new();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let redis = RedisTlsServer::start(&authority, version).await;
        let config = redis.config(authority.signed());
        bus_conforms(|| RedisStreamsBus::new(config.clone()).unwrap(), &Terms::full().with_ids()).await;
        bus_conforms(|| RedisPubSubBus::new(config.clone()).unwrap(), &Terms::ruoyi("sse")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_and_a_cluster_are_reached_over_it() {
    let authority = Authority::new();
    let redis = RedisTlsServer::start(&authority, BOTH).await;
    let (_sentinel, topology) = redis.watched(&authority).await;
    let config = RedisConfig::new(topology).tls(authority.signed());
    bus_conforms(|| RedisStreamsBus::new(config.clone()).unwrap(), &Terms::full().with_ids()).await;
    let cluster = RedisTlsServer::start_cluster(&authority).await;
    let topology = realtime_redis::Topology::Cluster(vec![cluster.url()]);
    let config = RedisConfig::new(topology).tls(authority.signed());
    bus_conforms(|| RedisStreamsBus::new(config.clone()).unwrap(), &Terms::full().with_ids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_control_work_over_it() {
    let authority = Authority::new();
    let redis = RedisTlsServer::start(&authority, BOTH).await;
    let (config, life) = (redis.config(authority.signed()), Incarnation::new("a"));
    let presence = RedisPresence::make(config.clone(), life.clone()).unwrap();
    let control = RedisControl::make(config, life).unwrap();
    let hub = Hub::builder().node("a").presence(presence).control(control).start().unwrap();
    within("presence and a confirmed kick", async {
        loop {
            let kicked = hub.kick(&1.into()).await;
            if kicked.is_ok_and(|outcome| outcome.unconfirmed.is_empty())
                && hub.presence().is_online(&[1.into()]).await.is_ok()
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_peer_is_refused_with_the_reason() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = RedisTlsServer::start(&authority, BOTH).await;
    let error = problem(redis.config(other.signed())).await;
    assert!(error.contains("certificate") && error.contains("UnknownIssuer"), "{error}");
    let error = problem(redis.config(RedisTls::default())).await;
    assert!(error.contains("certificate"), "{error}");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let redis = RedisTlsServer::start(&authority, version).await;
        problem(redis.config(authority.trusted())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_is_trusted_only_when_that_is_configured() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = RedisTlsServer::start(&authority, BOTH).await;
    let [chain, key] = ["client.crt", "client.key"].map(|file| std::fs::read(authority.path(file)).unwrap());
    let stranger = other.trusted().client(chain, key).unwrap();
    problem(redis.config(stranger.clone())).await;
    let bus = RedisStreamsBus::new(redis.config(stranger.insecure())).unwrap();
    bus.publish(&envelope("x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reaches_redis_over_it_and_can_be_stopped() {
    let authority = Authority::new();
    let redis = RedisTlsServer::start(&authority, BOTH).await;
    let path = |file| authority.path(file).display().to_string();
    let (url, ca, cert, key) = (redis.url(), path("ca.crt"), path("client.crt"), path("client.key"));
    let mut variables = vec![("REALTIME__REDIS__URL", url.as_str())];
    for trusting in [false, true] {
        if trusting {
            variables.extend([
                ("REALTIME__REDIS__TLS__CAFILE", ca.as_str()),
                ("REALTIME__REDIS__TLS__CERTFILE", &cert),
                ("REALTIME__REDIS__TLS__KEYFILE", &key),
            ]);
        }
        let mut demo = Demo::start_with(&variables).await;
        if trusting {
            within("the demo to be ready", async {
                while demo.get("/health/ready").await.0 != 200 {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
            demo.publish_to(1, "over TLS").await;
        } else {
            assert_eq!(demo.try_publish(r#"{"userIds":[1],"message":"x"}"#).await.0, 503);
        }
        until_stoppable(&demo).await;
        demo.terminate();
        let ended = within("the demo to stop", demo.child().wait()).await.unwrap();
        assert!(ended.success(), "{ended}");
    }
}

/// Waits until a demo that has just started handles SIGTERM.
async fn until_stoppable(demo: &Demo) {
    within("the demo to handle SIGTERM", async {
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", demo.pid())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            if u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0 {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[test]
fn the_demo_names_the_key_and_the_file_that_cannot_be_used() {
    let (authority, other) = (Authority::new(), Authority::new());
    let path = |file| authority.path(file).display().to_string();
    let (cert, key, ca) = (path("client.crt"), path("client.key"), path("ca.crt"));
    let wrong = other.path("client.key").display().to_string();
    let check = |tls: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.yml");
        std::fs::write(&file, format!("redis: {{url: 'rediss://127.0.0.1/', tls: {{{tls}}}}}\n")).unwrap();
        let check = Command::new(Demo::binary()).arg("check-config").arg("--config").arg(&file).output();
        let check = check.unwrap();
        (check.status.success(), String::from_utf8(check.stderr).unwrap())
    };
    for (tls, words) in [
        ("caFile: /no/such.pem".to_owned(), ["redis.tls.caFile (file ", "): `/no/such.pem`: No such file"]),
        (format!("caFile: {key}"), ["redis.tls.caFile (file ", "no usable certificate of an authority"]),
        (
            format!("certFile: {key}, keyFile: {key}"),
            ["redis.tls.certFile (file ", "no usable client certificate"],
        ),
        (format!("certFile: {cert}, keyFile: {cert}"), ["redis.tls.keyFile (file ", "no usable private key"]),
        (
            format!("certFile: {cert}, keyFile: {wrong}"),
            ["redis.tls.keyFile (file ", "is not that of the client"],
        ),
    ] {
        let (valid, error) = check(&tls);
        assert!(!valid && words.iter().all(|word| error.contains(word)), "{tls}: {error}");
    }
    assert!(check(&format!("caFile: {ca}, certFile: {cert}, keyFile: {key}")).0);
}
