//! `realtime-publish` reaches the clients of all nodes from a shell, and its exit code says what came of it.

use std::{
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use realtime_tests::{Demo, Redis, built, free_port, within};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::UdpSocket, process::Command};

/// What a run has printed, and its exit code.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    problem: String,
}

/// The command, built once per test process.
fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("realtime-publish", "realtime-publish"))
}

/// Runs the command with some lines as its input.
async fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
    let mut command = Command::new(binary());
    command.stdout(Stdio::piped());
    run_as(command, arguments, input).await
}

async fn run_as(mut command: Command, arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A run that reads no input may have ended.
    stdin.write_all(input.as_ref()).await.ok();
    drop(stdin);
    let output = within("the command", child.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), problem: text(output.stderr) }
}

/// A node, once the command is built: that can take longer than a client may leave pings unanswered.
async fn node(redis: &Redis, mode: &str) -> Demo {
    binary();
    let url = redis.url();
    let variables = [
        ("REALTIME__REDIS__URL", url.as_str()),
        ("REALTIME__REDIS__KEYPREFIX", mode),
        ("REALTIME__REDIS__MODE", mode),
        ("REALTIME__TOPICS__PUBLIC", "news"),
    ];
    let demo = Demo::start_with(&variables).await;
    demo.until_ready().await;
    demo
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_from_a_shell_reaches_users_topics_and_all() {
    let redis = Redis::start().await;
    let node = node(&redis, "streams").await;
    let (mut socket, mut other) = (node.socket_v1(1).await, node.socket(2).await);
    assert_eq!(socket.message().await["type"], "hello");
    let url = redis.url();
    let at = ["--redis", &url, "--prefix", "streams"];

    let ran = run(&[&at[..], &["to-users", "1,3", "paid", "--event", "order"]].concat(), "").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let message = socket.message().await;
    assert_eq!((&message["data"], &message["event"]), (&"paid".into(), &"order".into()), "{message}");
    assert_eq!(message["id"], ran.out, "the position is printed");

    // The text comes on stdin, and the same id is one message.
    for _ in 0..2 {
        let ran = run(&[&at[..], &["--id", "a1", "all"]].concat(), "to\nall\n").await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(run(&[&at[..], &["all", "last"]].concat(), "").await.code, 0);
    for text in ["to\nall", "last"] {
        assert_eq!(socket.message().await["data"], text);
        assert_eq!(other.text().await, text);
    }

    let token = realtime_tests::token(4);
    let mut member =
        realtime_tests::EventStream::open_query(&node, &token, "&topics=news", None).await.unwrap();
    assert_eq!(run(&[&at[..], &["to-topic", "news", "extra"]].concat(), "").await.code, 0);
    assert_eq!(member.data().await, "extra");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_json_are_published_in_their_order() {
    let redis = Redis::start().await;
    for mode in ["streams", "pubsub"] {
        let node = node(&redis, mode).await;
        let mut socket = node.socket(1).await;
        let url = redis.url();
        let lines = r#"{"userIds":[1],"message":"a"}

            {"userIds":[1],"message":"b","transport":null}
            {"userIds":[1],"text":"c"}
            {"broadcast":true,"message":"d"}
        "#;
        let ran = run(&["--redis", &url, "--prefix", mode, "--mode", mode, "lines"], lines).await;
        assert_eq!(ran.code, 2, "a line is wrong: {ran:?}");
        let answers: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), 4, "{ran:?}");
        assert!(answers[2]["error"].as_str().unwrap().starts_with("unknown field `text`"), "{ran:?}");
        for index in [0, 1, 3] {
            assert_eq!(answers[index]["position"].is_string(), mode == "streams", "{ran:?}");
        }
        for text in ["a", "b", "d"] {
            assert_eq!(socket.text().await, text, "{mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_printed_may_have_been_published_and_the_other_lines_are() {
    let redis = Redis::start().await;
    let node = node(&redis, "streams").await;
    let mut socket = node.socket(1).await;
    let url = redis.url();
    let at = ["--redis", &url, "--prefix", "streams"];
    let full = || {
        let mut command = Command::new(binary());
        command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        command
    };
    let ran = run_as(full(), &[&at[..], &["all", "alone"]].concat(), "").await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.problem.starts_with("error: stdout: "), "{ran:?}");
    let lines = r#"{"broadcast":true,"message":"a"}
        {"broadcast":true,"message":"b"}"#;
    let ran = run_as(full(), &[&at[..], &["lines"]].concat(), lines).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    // Nor does an unread stderr make another code of it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut unread = Command::new(binary());
    unread.args(at).args(["all", "unread"]).stdout(writer.try_clone().unwrap()).stderr(writer);
    assert_eq!(within("the command", unread.status()).await.unwrap().code(), Some(3));
    for text in ["alone", "a", "b", "unread"] {
        assert_eq!(socket.text().await, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_are_read_as_a_node_reads_them_or_refused_by_line() {
    let redis = Redis::start().await;
    let node = node(&redis, "streams").await;
    let mut socket = node.socket(1).await;
    let url = redis.url();
    // Any variable of the environment, such as the name of a folder in Latin-1.
    let mut command = Command::new(binary());
    command.env("OTHER", std::ffi::OsStr::from_bytes(b"\xff")).stdout(Stdio::piped());
    let mut lines = br#"{"broadcast":true,"message":"half \ud83d"}"#.to_vec();
    lines.extend(
        b"\n{\"broadcast\":true,\"message\":\"\xff\"}\n{\"broadcast\":true,\"message\":\"last\"}\r\n",
    );
    let ran = run_as(command, &["--redis", &url, "--prefix", "streams", "lines"], lines).await;
    assert_eq!(ran.code, 2, "a line is wrong: {ran:?}");
    let answers: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3, "{ran:?}");
    assert!(answers[1]["error"].as_str().unwrap().contains("UTF-8"), "{ran:?}");
    for text in ["half \u{fffd}", "last"] {
        assert_eq!(socket.text().await, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_a_node_says_where_to_publish() {
    let redis = Redis::start().await;
    let node = node(&redis, "streams").await;
    let mut socket = node.socket(1).await;
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let text = format!(
        "--- # the server\nserver:\n  port: 8080\n--- # the cluster\nredis:\n  url: {}\n  keyPrefix: streams\nhistory:\n  maxMessages: 500\n",
        redis.url()
    );
    std::fs::write(file.path(), text).unwrap();
    let ran = run(&["--config", file.path().to_str().unwrap(), "to-users", "1", "by file"], "").await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(socket.text().await, "by file");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_tells_a_wrong_call_from_a_redis_that_is_away() {
    let away = format!("redis://127.0.0.1:{}/", free_port());
    for (arguments, code, problem) in [
        (&["all", "x"][..], 2, "error: no Redis is given"),
        (&["--redis", "http://x/", "all", "x"], 2, "error: "),
        (&["--redis", &away, "to-users", "1", "x", "--ttl", "0s"], 2, "error: ttl: must be at least 1"),
        (&["--redis", &away, "to-topic", "user:1", "x", "--retain"], 2, "error: "),
        (&["--redis", &away, "nobody", "x"], 2, "error: unrecognized subcommand"),
        (&["--redis", &away, "all", "x"], 1, "error: failed to publish to `all`"),
    ] {
        let ran = run(arguments, "").await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.problem.starts_with(problem), "{arguments:?}: {ran:?}");
        assert_eq!(ran.out, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_nodes_keep_is_trimmed_only_by_their_own_bounds() {
    let redis = Redis::start().await;
    let url = redis.url();
    let first = run(&["--redis", &url, "all", "first"], "").await;
    let (epoch, _) = first.out.split_once('.').unwrap();
    // More than nodes keep by default.
    let fill = "for _ = 1, 101500 do redis.call('XADD', KEYS[1], ARGV[1] .. '-*', 'v', '0') end";
    redis.cli(&["eval", fill, "1", "{rt}:log", epoch]);
    let length = || redis.cli(&["xlen", "{rt}:log"]).trim().parse::<u32>().unwrap();
    assert_eq!(run(&["--redis", &url, "all", "x"], "").await.code, 0);
    assert!(length() > 101_500, "{} entries are left", length());
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), format!("redis:\n  url: {url}\nhistory:\n  maxMessages: 500\n")).unwrap();
    assert_eq!(run(&["--config", file.path().to_str().unwrap(), "all", "x"], "").await.code, 0);
    assert!(length() < 101_500, "{} entries are left", length());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_does_not_answer_holds_no_end_up() {
    let skipped = |what: &str| eprintln!("skipped: {what} is not granted here");
    // Neither this port nor a mount of its own is given to everybody.
    let Ok(_name_server) = UdpSocket::bind("127.0.0.78:53").await else { return skipped("port 53") };
    let resolver = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(resolver.path(), "nameserver 127.0.0.78\n").unwrap();
    let script = r#"mount --bind "$0" /etc/resolv.conf || exit 99; exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).arg(resolver.path()).arg(binary());
    command.stdout(Stdio::piped());
    let begun = Instant::now();
    let ran = run_as(command, &["--redis", "redis://redis.test/", "all", "x"], "").await;
    if ran.code == 99 || ran.problem.starts_with("unshare") {
        return skipped("a mount of its own");
    }
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
