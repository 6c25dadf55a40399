//! Who is online, beside entries of presence that are none.

use std::io::{Read, Seek};

use realtime_core::Hub;
use realtime_redis::{RedisCluster, RedisConfig};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_its_keys_costs_nobody_the_online_users() {
    check(&[
        ("nodes: no text", "call('zadd', presence .. 'nodes', 4e12, bad)"),
        ("nodes: a lease without an end", "call('zadd', presence .. 'nodes', '+inf', 'x~1')"),
        ("counts: no number", "call('hset', presence .. 'counts', 'x', 'many', bad, bad, 'y', '-5')"),
        (
            "counts: too much",
            "call('hset', presence .. 'counts', 'x', '18446744073709551615', 'y', '18446744073709551615')",
        ),
        ("users: no text, no user", "call('zadd', presence .. 'users', 0, bad, -5, 'garbage', 0, '')"),
        ("online: no text", "call('sadd', presence .. 'online', bad, 'garbage')"),
        ("leaving: no text", "call('zadd', presence .. 'leaving', 0, bad, '-inf', 'garbage')"),
        ("changes: no text", "call('xadd', presence .. 'changes', '*', bad, bad, 'n', bad)"),
        ("changes: no fields", "call('xadd', presence .. 'changes', '*', 'x', 'y')"),
        (
            "changes: no number",
            "call('xadd', presence .. 'changes', '*', 'n', 'many', 'u', 'nobody', 's', '?')",
        ),
        (
            "changes: the end of time",
            "call('xadd', presence .. 'changes', '18446744073709551615-18446744073709551615', 'n', '1')",
        ),
        ("changed: no number", "call('set', presence .. 'changed', bad)"),
        ("changed: the last number", "call('set', presence .. 'changed', '9223372036854775807')"),
        ("swept: no number", "call('set', presence .. 'swept', bad)"),
        ("swept: the end of time", "call('set', presence .. 'swept', '1e300')"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_about_a_user_costs_nobody_the_online_users() {
    // The next user of the checks, as a member.
    let each = |write: &str| {
        format!(
            "local alphabet = '-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz'
             for user = 1000, 1100 do
               local high, low = math.floor(user / 64) + 1, user % 64 + 1
               local member = 'n7--------' .. alphabet:sub(high, high) .. alphabet:sub(low, low)
               {write}
             end"
        )
    };
    let cases = [
        ("refs: no number", each("call('hset', presence .. 'refs', member, 'many')")),
        ("refs: less than none", each("call('hset', presence .. 'refs', member, '-7')")),
        ("refs: the last number", each("call('hset', presence .. 'refs', member, '9223372036854775807')")),
        ("since: no number", each("call('hset', presence .. 'since', member, bad)")),
        ("expected: no number", each("call('hset', presence .. 'expected', member, 'soon')")),
        ("left: no number", each("call('hset', presence .. 'left', member, 'then')")),
        (
            "nodes' sessions: no text, no JSON",
            each(
                "for _, node in ipairs(call('zrange', presence .. 'nodes', 0, -1)) do
                   call('hset', presence .. 'node:' .. node, member, bad, bad, bad, 'x', '{')
                 end",
            ),
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(name, script)| (*name, script.as_str())).collect();
    check(&cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_type_cost_nobody_the_online_users() {
    let keys = [
        "nodes", "counts", "refs", "users", "online", "leaving", "since", "changes", "changed", "swept",
        "expected", "left",
    ];
    let scripts = keys.map(|key| {
        (key, format!("call('del', presence .. '{key}') call('rpush', presence .. '{key}', 'x')"))
    });
    let mut cases: Vec<_> = scripts.iter().map(|(key, script)| (*key, script.as_str())).collect();
    cases.push((
        "a node's sessions",
        "for _, node in ipairs(call('zrange', presence .. 'nodes', 0, -1)) do
           call('set', presence .. 'node:' .. node, 'x')
         end",
    ));
    check(&cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_no_outage() {
    let redis = Redis::start().await;
    let node = node(&redis).await;
    for (path, status) in [
        ("/api/online?page=9223372036854775807&size=1000", 200),
        ("/api/online?page=18446744073709551615&size=1", 200),
        ("/api/online?page=9223372036854775807&size=1", 200),
        ("/api/online?page=99999999999999999999", 400),
        ("/api/online?page=-1", 400),
        ("/api/online/%FF", 400),
        ("/api/online/1%FF", 400),
    ] {
        let answer = node.api(Method::GET, path, None).await;
        assert_eq!(answer.0, status, "{path}: {}", answer.1);
        if status == 200 {
            assert_eq!(answer.1["items"], json!([]), "{path}");
        }
    }
    assert_eq!(node.api(Method::DELETE, "/api/online/%FF", None).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_content_is_counted_and_has_a_word_in_the_log() {
    let redis = Redis::start().await;
    let cluster = RedisCluster::streams(RedisConfig::single(redis.url()), "a").unwrap();
    let hub = Hub::builder().cluster(cluster).start().unwrap();
    until("presence", async || hub.presence().count().await.map_err(|error| error.to_string()))
        .await
        .unwrap();
    assert_eq!(hub.metrics().unreadable, 0);
    redis.cli(&["eval", "return redis.call('zadd', '{rt/presence}:users', 0, '\\255')", "0"]);
    hub.presence().users(0, 10).await.unwrap();
    assert_eq!(hub.metrics().unreadable, 1);
    redis.cli(&["set", "{rt/control}:nodes", "x"]);
    until("the key to be begun anew", async || match redis.cli(&["type", "{rt/control}:nodes"]).as_str() {
        "zset" if hub.metrics().unreadable >= 2 => Ok(()),
        other => Err(other.to_owned()),
    })
    .await
    .unwrap();
    // The words are those of a process.
    let mut log = tempfile::tempfile().unwrap();
    let mut demo = std::process::Command::new(Demo::binary())
        .env("REALTIME__SERVER__PORT", "0")
        .env("REALTIME__AUTH__JWT__SECRET", realtime_tests::SECRET)
        .env("REALTIME__REDIS__URL", redis.url())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap();
    let write = "redis.call('xadd', '{rt/control}:commands', '*', 'c', '\\255')
                 redis.call('set', '{rt/presence}:counts', 'x') return 'written'";
    assert_eq!(redis.cli(&["eval", write, "0"]), "written");
    let said = until("words in the log", async || {
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        // Any node may have removed the key.
        let said = text.contains("skipped broken content of Redis") && text.contains("a command that");
        if said { Ok(()) } else { Err(text) }
    })
    .await;
    demo.kill().unwrap();
    demo.wait().unwrap();
    said.unwrap();
}
