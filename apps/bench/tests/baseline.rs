//! The binary, against its own baseline.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_realtime-bench");

/// A baseline server that may drop or double messages, killed at the end of its test.
struct Baseline {
    child: Child,
    url: String,
}

impl Baseline {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(BENCH)
            .arg("baseline")
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stderr = child.stderr.take().expect("it is piped");
        BufReader::new(stderr).read_line(&mut line).expect("a line");
        let (_, url) = line.split_once(" is ready at ").expect(&line);
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(arguments).output().expect("the binary starts")
}

/// The medians of the first server.
fn figures(output: &Output) -> Value {
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    json["servers"][0]["median"].clone()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_message_reaches_every_connection() {
    let output = bench(&[
        "run",
        "--baseline",
        "--ws",
        "200",
        "--sse",
        "200",
        "--messages",
        "50",
        "--rate",
        "0",
        "--json",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let figures = figures(&output);
    assert_eq!((&figures["expected"], &figures["delivered"]), (&20_000.into(), &20_000.into()));
    for violation in ["lost", "doubled", "out_of_order", "misrouted", "ended", "timed_out"] {
        assert_eq!(figures[violation], 0, "{violation}");
    }
    for figure in ["latency_p99_ms", "delivery_cpu_us", "connection_kib"] {
        assert!(figures[figure].as_f64().is_some(), "{figure}");
    }
}

#[test]
fn messages_of_many_callers_over_many_threads_are_told_apart() {
    let output = bench(&[
        "run",
        "--baseline",
        "--baseline-threads",
        "3",
        "--threads",
        "2",
        "--ws",
        "50",
        "--sse",
        "50",
        "--messages",
        "200",
        "--rate",
        "0",
        "--callers",
        "8",
        "--pipeline",
        "4",
        "--json",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(figures(&output)["delivered"], 20_000);
}

#[test]
fn a_message_to_one_user_or_topic_reaches_no_other() {
    let load = ["--baseline", "--ws", "40", "--sse", "40", "--messages", "400", "--rate", "0", "--json"];
    let unicast = bench(&[&["unicast"], &load[..]].concat());
    assert!(unicast.status.success(), "{}", stderr(&unicast));
    assert_eq!(
        (figures(&unicast)["delivered"].clone(), figures(&unicast)["misrouted"].clone()),
        (800.into(), 0.into())
    );
    let topics = bench(&[&["topics", "--topics", "10"], &load[..]].concat());
    assert!(topics.status.success(), "{}", stderr(&topics));
    assert_eq!(
        (figures(&topics)["delivered"].clone(), figures(&topics)["misrouted"].clone()),
        (3_200.into(), 0.into())
    );
}

#[test]
fn a_server_that_loses_and_doubles_is_detected() {
    let baseline = Baseline::start(&["--drop-every", "10", "--double-every", "7"]);
    let output = bench(&[
        "run",
        "--url",
        &baseline.url,
        "--secret",
        "any",
        "--ws",
        "20",
        "--sse",
        "20",
        "--messages",
        "100",
        "--rate",
        "0",
        "--json",
    ]);
    assert!(!output.status.success());
    let figures = figures(&output);
    // Of 100 messages 10 are lost; 14 are doubled but for the one that is lost, the 70th.
    assert_eq!((&figures["lost"], &figures["doubled"]), (&400.into(), &520.into()));
    assert_eq!(figures["delivered"], 3_600);
    assert!(stderr(&output).contains("realtime: lost: 400, doubled: 520"), "{}", stderr(&output));
}

#[test]
fn storms_and_idle_connections_are_measured() {
    let storm = bench(&["storm", "--baseline", "--ws", "200", "--sse", "200", "--json"]);
    assert!(storm.status.success(), "{}", stderr(&storm));
    assert_eq!(figures(&storm)["failed"], 0);
    assert!(figures(&storm)["reconnect_p99_ms"].as_f64().is_some());
    let idle = bench(&["idle", "--baseline", "--ws", "200", "--hold", "100ms", "--json"]);
    assert!(idle.status.success(), "{}", stderr(&idle));
    assert!(figures(&idle)["connection_after_kib"].as_f64().is_some());
}

#[test]
fn memory_is_read_at_several_numbers_of_connections_and_after_a_burst() {
    let load = ["idle", "--baseline", "--ws", "200", "--threads", "3", "--json"];
    let idle = bench(&[&load[..], &["--points", "50,100", "--burst", "20"]].concat());
    assert!(idle.status.success(), "{}", stderr(&idle));
    let figures = figures(&idle);
    assert_eq!((&figures["connections"], &figures["delivered"]), (&200.into(), &4_000.into()));
    for figure in [
        "connection_kib_at_50",
        "connection_kib_at_100",
        "connection_kib_at_200",
        "line_slope_kib",
        "line_intercept_mib",
        "line_residual_percent",
        "million_gib",
        "kernel_slope_kib",
        "connection_burst_kib",
        "buffers_burst_kib",
    ] {
        assert!(figures[figure].as_f64().is_some(), "{figure}: {figures}");
    }
    for points in ["100,50", "0,100", "201"] {
        let output = bench(&[&load[..], &["--points", points]].concat());
        assert!(stderr(&output).contains("--points: in ascending order, from 1 to the 200"), "{points}");
    }
}

#[test]
fn many_connections_are_compared_with_few() {
    let output = bench(&[
        "scale",
        "--baseline",
        "--sse",
        "100",
        "--few",
        "10",
        "--messages",
        "10",
        "--rate",
        "50/s",
        "--json",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let figures = figures(&output);
    assert_eq!((&figures["delivered"], &figures["few_connections"]), (&1_000.into(), &10.into()));
    for figure in ["delivery_cpu_us", "few_delivery_cpu_us", "scale"] {
        assert!(figures[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {figures}");
    }
}

/// Answers connections only once `together` of them wait, and no other one comes for a moment. Returns the largest number
/// that waited together.
fn most_at_once(listener: &TcpListener, together: usize, mut left: usize) -> usize {
    let (mut most, mut open) = (0, Vec::new());
    while left > 0 {
        listener.set_nonblocking(false).unwrap();
        let mut waiting: Vec<TcpStream> = listener.incoming().take(together).map(Result::unwrap).collect();
        thread::sleep(Duration::from_millis(200));
        listener.set_nonblocking(true).unwrap();
        waiting.extend(listener.incoming().map_while(Result::ok));
        most = most.max(waiting.len());
        left -= waiting.len();
        for client in &mut waiting {
            client.set_nonblocking(false).unwrap();
            read_head(client);
            let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
            client.write_all(format!("HTTP/1.1 101 x\r\n{accept}\r\n\r\n").as_bytes()).unwrap();
        }
        open.append(&mut waiting);
    }
    // Until they have gone.
    open.iter_mut().for_each(|client| drop(client.read_to_end(&mut Vec::new())));
    most
}

#[test]
fn a_storm_opens_all_at_once_unless_it_is_given_a_window() {
    for (arguments, expected) in [(&[][..], 4), (&["--window", "2"], 2)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || most_at_once(&listener, expected, 8));
        let storm = ["storm", "--url", &url, "--secret", "s", "--ws", "4"];
        let output = bench(&[&storm[..], arguments].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(server.join().unwrap(), expected, "{arguments:?}");
    }
    let output = bench(&["storm", "--baseline", "--ws", "4", "--window", "0"]);
    assert!(stderr(&output).contains("--window"), "{}", stderr(&output));
}

#[test]
fn a_storm_whose_connections_end_soon_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut clients: Vec<_> = listener.incoming().take(2).map(Result::unwrap).collect();
        for client in &mut clients {
            read_head(client);
            let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
            client.write_all(format!("HTTP/1.1 101 x\r\n{accept}\r\n\r\n").as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        drop(clients);
        // The second turn stays.
        most_at_once(&listener, 2, 2);
    });
    let output = bench(&["storm", "--url", &url, "--secret", "s", "--ws", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(figures(&output)["ended"], 2);
}

#[test]
fn a_burst_that_the_time_limit_cuts_fails() {
    let burst = ["--ws", "20", "--burst", "10000000", "--time-limit", "1s", "--json"];
    let baseline = Baseline::start(&[]);
    let pid = baseline.child.id().to_string();
    let at = ["idle", "--url", &baseline.url, "--pid", &pid, "--secret", "s"];
    let output = bench(&[&at[..], &burst].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(figures(&output)["timed_out"], 1);
}

#[test]
fn a_demo_is_published_to_where_it_says_that_its_api_is() {
    let baseline = Baseline::start(&[]);
    // Port 1 is closed. A demo without an internal address has its API at the address of its clients.
    let script = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempfile().unwrap();
    let text = format!(
        "#!/bin/sh\n[ -n \"$REALTIME__SERVER__INTERNAL\" ] && echo 'internal api: http://127.0.0.1:1/ (key)' >&2\n\
         echo 'demo is ready at {}' >&2\nexec sleep 60\n",
        baseline.url
    );
    fs::write(script.path(), text).unwrap();
    // A program that is open for writing cannot be started.
    let script = script.into_temp_path();
    let load =
        ["run", "--demo", script.to_str().unwrap(), "--ws", "10", "--messages", "3", "--rate", "0", "--json"];
    let output = bench(&load);
    assert!(stderr(&output).contains("caller 1 to 127.0.0.1:1: Connection refused"), "{}", stderr(&output));
    let output = bench(&[&load[..], &["--no-internal"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(figures(&output)["delivered"], 30);
}

#[test]
fn a_tool_that_is_killed_ends_its_server() {
    let mut tool = Command::new(BENCH)
        .args(["idle", "--baseline", "--ws", "1", "--hold", "60s"])
        .spawn()
        .expect("the binary starts");
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < until, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    let children = format!("/proc/{0}/task/{0}/children", tool.id());
    let server = || fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
    wait("the baseline is not started", &|| !server().is_empty());
    let server = format!("/proc/{}/exe", server());
    tool.kill().expect("it runs");
    tool.wait().expect("it has ended");
    // A process that has ended has no program any more, even before its parent has waited for it.
    wait("the baseline lives on", &|| fs::read_link(&server).is_err());
}

#[test]
fn the_former_name_of_the_baseline_still_works() {
    let output = bench(&["run", "--floor", "--floor-threads", "2", "--ws", "5", "--rate", "0", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["servers"][0]["name"], "baseline");
    let output = bench(&["floor", "--help"]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn an_error_names_its_object() {
    let baseline = Baseline::start(&[]);
    let url = baseline.url.trim_end_matches('/');
    for (arguments, expected) in [
        (
            vec!["run", "--url", url, "--secret", "s", "--ws", "3", "--ws-path", "/nothing"],
            format!("connection 1 to {}: 404 Not Found: /nothing", &url["http://".len()..]),
        ),
        (
            vec!["run", "--url", url, "--secret", "s", "--ws", "1", "--publish-path", "/nothing"],
            format!("caller 1 to {}: 404 Not Found: /nothing", &url["http://".len()..]),
        ),
        (
            vec!["run", "--url", url, "--api-url", "http://127.0.0.1:1", "--secret", "s", "--ws", "1"],
            "caller 1 to 127.0.0.1:1: Connection refused".into(),
        ),
        (vec!["run", "--url", url, "--ws", "1"], "need tokens; pass --secret or --token-file".into()),
        (
            vec!["run", "--url", "http://192.0.2.1", "--secret", "s", "--ws", "1"],
            "192.0.2.1 is not this machine".into(),
        ),
        (vec!["run", "--demo", "/bin/false", "--ws", "1"], "/bin/false has ended at once".into()),
        (vec!["run", "--baseline"], "no connections: pass --ws N".into()),
    ] {
        let output = bench(&arguments);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(&expected), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn another_server_is_compared_by_its_description() {
    let other = Baseline::start(&[]);
    let (url, pid) = (other.url.trim_end_matches('/'), other.child.id());
    let spec = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "name = 'other'\nws = '{url}/resource/websocket'\nsse = '{url}/resource/sse'\n\
         publish = '{url}/api/publish'\n\
         body = '{{\"broadcast\":true,\"message\":\"{{message:json}}\"}}'\npids = [{pid}]\n"
    );
    fs::write(spec.path(), text).unwrap();
    let output = bench(&[
        "compare",
        "--against",
        spec.path().to_str().unwrap(),
        "--baseline",
        "--ws",
        "20",
        "--sse",
        "20",
        "--rate",
        "0",
        "--runs",
        "2",
        "--json",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = json["servers"].as_array().unwrap().iter().map(|server| &server["name"]).collect();
    assert_eq!(names, ["other", "baseline"]);
    assert_eq!(json["servers"][0]["median"]["delivered"], 4_000);
    assert_eq!(json["servers"][0]["runs"].as_array().unwrap().len(), 2);
    // The baseline is measured once more at the end.
    assert_eq!(json["servers"][1]["runs"].as_array().unwrap().len(), 3);
    assert!(json["servers"][0]["ratioToBaseline"]["delivery_cpu_us"].as_f64().is_some());
}

/// Writes a description with these lines, and compares what it describes under a small load.
fn compare(lines: &str, arguments: &[&str]) -> Output {
    let spec = tempfile::NamedTempFile::new().unwrap();
    fs::write(spec.path(), format!("name = 'other'\n{lines}")).unwrap();
    let load = ["compare", "--against", spec.path().to_str().unwrap(), "--rate", "0", "--json"];
    bench(&[&load[..], arguments].concat())
}

/// The lines of a description whose server is the baseline, at `host:port`.
fn baseline_lines(host: &str) -> String {
    format!(
        "ws = 'ws://{host}/resource/websocket'\npublish = 'http://{host}/api/publish'\n\
         body = '{{\"broadcast\":true,\"message\":\"{{message:json}}\"}}'\n"
    )
}

#[test]
fn a_described_server_is_started_for_each_run_and_ended_with_its_children() {
    let pids = tempfile::NamedTempFile::new().unwrap();
    // The server is a child of what is started.
    let script = format!("{BENCH} baseline --port $0 & echo $$ $! >> {}; wait", pids.path().display());
    let lines =
        format!("start = ['/bin/sh', '-c', '{script}', '{{port}}']\n{}", baseline_lines("127.0.0.1:{port}"));
    let output = compare(&lines, &["--ws", "20", "--messages", "50", "--runs", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let figures = figures(&output);
    assert_eq!(figures["delivered"], 1_000);
    assert!(figures["delivery_cpu_us"].as_f64().is_some_and(|micros| micros > 0.0), "{figures}");
    let pids = fs::read_to_string(pids.path()).unwrap();
    let pids: Vec<&str> = pids.split_whitespace().collect();
    assert_eq!(pids.len(), 4, "{pids:?}");
    for pid in pids {
        let program = Path::new("/proc").join(pid).join("exe");
        let until = Instant::now() + Duration::from_secs(20);
        while fs::read_link(&program).is_ok() {
            assert!(Instant::now() < until, "process {pid} lives on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_described_server_that_cannot_be_started_is_named_with_its_last_words() {
    let running = Baseline::start(&[]);
    let taken = running.url.trim_end_matches('/').trim_start_matches("http://");
    let (free, taken) = (baseline_lines("127.0.0.1:{port}"), baseline_lines(taken));
    for (lines, expected) in [
        (
            format!("start = ['/bin/sh', '-c', 'echo no such key >&2; exit 3']\n{free}"),
            "other: /bin/sh has ended at once, exit status: 3:\nno such key",
        ),
        (format!("start = ['/no/such/program']\n{free}"), "failed to start /no/such/program"),
        (format!("start = ['/bin/sleep', '60']\n{taken}"), "where something else listens already"),
        (format!("start = ['/bin/sleep', '60']\npids = [1]\n{free}"), "other: `pids` are those of a running"),
        (free.clone(), "has a {port}, but there is no `start`"),
    ] {
        let output = compare(&lines, &["--ws", "1"]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(expected), "{lines}: {}", stderr(&output));
    }
}

#[test]
fn a_described_server_without_the_transport_of_a_load_is_left_out_and_named() {
    let running = Baseline::start(&[]);
    let lines = baseline_lines(running.url.trim_end_matches('/').trim_start_matches("http://"));
    let output = compare(&lines, &["--sse", "5", "--baseline"]);
    let problem = stderr(&output);
    assert!(!output.status.success());
    assert!(problem.contains("other is left out: its description has no `sse`"), "{problem}");
    assert!(problem.contains("error: --against: no server is left"), "{problem}");
}

#[test]
fn a_client_answers_the_texts_that_a_description_names() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        read_head(&mut client);
        // To the key that each client of the tool sends.
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        client.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n").as_bytes()).unwrap();
        client.write_all(&[0x81, 4, b'p', b'i', b'n', b'g']).unwrap();
        let mut frame = [0; 6 + 4];
        client.read_exact(&mut frame).unwrap();
        let mut publisher = listener.accept().unwrap().0;
        let request = read_head(&mut publisher);
        let length = request.split_once("Content-Length: ").unwrap().1.trim().parse().unwrap();
        let mut body = vec![0; length];
        publisher.read_exact(&mut body).unwrap();
        client.write_all(&[0x81, 126, 0, u8::try_from(length).unwrap()]).unwrap();
        client.write_all(&body).unwrap();
        publisher.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        // Until the client has gone.
        client.read_to_end(&mut Vec::new()).ok();
        frame[6..].to_vec()
    });
    let lines = format!("ws = 'ws://{host}/'\npublish = 'http://{host}/'\nreplies = {{ ping = 'pong' }}");
    let output = compare(&lines, &["--ws", "1", "--messages", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(server.join().unwrap(), b"pong");
    assert_eq!(figures(&output)["delivered"], 1);
}

/// Reads the head of a request, byte by byte, so that its body is left.
fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
