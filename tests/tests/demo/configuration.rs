//! Modules, paths and logins follow the configuration, and one that cannot work stops the start with its key.

use realtime_tests::{Demo, Socket, token};
use serde_json::json;

const OFF: &str = "false";

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_module_has_no_route_and_is_printed_as_disabled() {
    for (websocket, sse) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut settings = Vec::new();
        if !websocket {
            settings.push(("REALTIME__WEBSOCKET__ENABLED", OFF));
        }
        if !sse {
            settings.push(("REALTIME__SSE__ENABLED", OFF));
        }
        let demo = Demo::start_with(&settings).await;
        let socket = Socket::open(&demo, &token(1), &[], None).await;
        assert_eq!(socket.as_ref().err(), (!websocket).then_some(&404));
        if sse {
            let mut stream = demo.stream(1).await;
            demo.publish(json!({ "userIds": [1], "message": "x", "transport": "sse" })).await;
            assert_eq!(stream.data().await, "x");
        } else {
            assert_eq!(demo.get("/resource/sse").await.0, 404);
            assert_eq!(demo.get("/resource/sse/close").await.0, 404);
        }
        for (name, enabled) in [("websocket", websocket), ("sse", sse)] {
            let body = json!({ "broadcast": true, "message": "x", "transport": name }).to_string();
            let (status, answer) = demo.try_publish(&body).await;
            if enabled {
                assert_eq!(status, 200);
            } else {
                assert_eq!(
                    (status, answer["msg"].as_str().unwrap()),
                    (409, format!("{name} is disabled").as_str())
                );
            }
        }
        let both = json!({ "broadcast": true, "message": "for whoever is there" }).to_string();
        assert_eq!(
            demo.try_publish(&both).await.0,
            200,
            "a hub without transports still takes what is published"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_come_from_the_configuration() {
    let settings = [("REALTIME__WEBSOCKET__PATH", "/push/ws"), ("REALTIME__SSE__PATH", "/push/sse")];
    let demo = Demo::start_with(&settings).await;
    let path = |module: &str| format!("/push/{module}?Authorization={}", token(1));
    assert!(Socket::open_at(&demo, &path("ws"), &[]).await.is_ok());
    assert_eq!(demo.get("/push/sse/close").await.0, 200);
    assert_eq!(demo.get("/resource/sse").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_stops_the_start_with_its_name() {
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    std::fs::write(&file, "websocket:\n  enabled: true\n  allowedOrigin: \"*\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    for (arguments, variable, expected) in [
        (vec!["--config", path], None, vec!["websocket.allowedOrigin", path]),
        (vec!["check-config", "--config", path], None, vec!["websocket.allowedOrigin", path]),
        (vec![], Some(("REALTIME__SERVER__PRT", "1")), vec!["REALTIME__SERVER__PRT"]),
        (
            vec![],
            Some(("REALTIME__SERVER__PORT", "many")),
            vec!["server.port", "REALTIME__SERVER__PORT", "many"],
        ),
        (vec![], Some(("REALTIME__HISTORY__MAXAGE", "30s")), vec!["heartbeat.interval", "history.maxAge"]),
        (
            vec![],
            Some(("REALTIME__REDIS__URL", "nonsense")),
            vec!["redis.url (environment variable REALTIME__REDIS__URL): is no Redis URL"],
        ),
        (vec!["--config", "/nowhere.yml"], None, vec!["/nowhere.yml"]),
        (vec!["gen-token", "--user", "1"], None, vec!["auth.jwt.secret"]),
    ] {
        let mut command = std::process::Command::new(Demo::binary());
        command.args(&arguments).envs(variable);
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?} {variable:?} started");
        for part in expected {
            assert!(stderr.contains(part), "{arguments:?} {variable:?} should name {part}: {stderr}");
        }
    }
    let output = std::process::Command::new(Demo::binary()).arg("check-config").output().unwrap();
    assert!(output.status.success());
}

#[test]
fn a_check_reads_the_environment_as_a_start_does() {
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    for (variables, expected) in [
        (vec![("RUST_LOG", "[")], "RUST_LOG"),
        (vec![collector, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "no address")], "OTEL_EXPORTER_OTLP_"),
    ] {
        for arguments in [&["check-config"][..], &[]] {
            let mut command = std::process::Command::new(Demo::binary());
            command.args(arguments).env("REALTIME__SERVER__PORT", "0").envs(variables.iter().copied());
            let output = command.output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?} {variables:?}: {stderr}");
            assert!(stderr.contains(expected), "{arguments:?} {variables:?}: {stderr}");
        }
    }
    let mut command = std::process::Command::new(Demo::binary());
    command.arg("check-config").envs([collector, ("RUST_LOG", "info")]);
    assert!(command.output().unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_without_users_allows_no_login() {
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    let path = file.path().to_str().unwrap();
    let alice = json!({ "username": "alice", "password": "demo", "clientId": "web" });
    let login = async |demo: &Demo| {
        let answer = reqwest::Client::new().post(demo.url("/auth/login")).json(&alice).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    std::fs::write(&file, "websocket: {enabled: true}\n").unwrap();
    let demo = Demo::start_from(&["--config", path], &[]).await;
    let (status, answer) = login(&demo).await;
    assert_eq!(
        (status, answer["msg"].as_str().unwrap()),
        (409, "nobody can log in here: auth.users names no users")
    );
    let page = demo.get("/demo/config").await.1;
    assert!(page.contains(r#""passwordHint":null"#) && page.contains(r#""users":[]"#), "{page}");
    assert!(page.contains(r#""login":false"#), "{page}");
    // The list of users does not matter for logins of another system.
    demo.socket(1).await;

    let eve = "{id: 7, username: eve, name: Eve, role: buyer, password: \
               '$argon2id$v=19$m=8192,t=2,p=1$KOepo+H+GDh0flcOAW7y4A$89E53bDvRgg+u9ttc8nEq3X6IMzs8w+A9rY6f1HA54Q'}";
    std::fs::write(&file, format!("auth:\n  users:\n    - {eve}\n")).unwrap();
    let demo = Demo::start_from(&["--config", path], &[]).await;
    assert_eq!(login(&demo).await.0, 401);
    // Only those who have logged in see who can.
    let page = demo.get("/demo/config").await.1;
    assert!(page.contains(r#""login":true"#) && page.contains(r#""users":[]"#), "{page}");
    let request = reqwest::Client::new().get(demo.url("/demo/config")).bearer_auth(token(7));
    let page = request.send().await.unwrap().text().await.unwrap();
    assert!(page.contains("Eve") && !page.contains("alice"), "{page}");
    std::fs::write(&file, format!("auth:\n  showUsers: true\n  passwordHint: ask\n  users:\n    - {eve}\n"))
        .unwrap();
    let demo = Demo::start_from(&["--config", path], &[]).await;
    let page = demo.get("/demo/config").await.1;
    assert!(page.contains("Eve") && page.contains(r#""passwordHint":"ask""#), "{page}");
}

#[test]
fn check_config_warns_of_public_logins() {
    let mut command = std::process::Command::new(Demo::binary());
    command.arg("check-config").env("REALTIME__SERVER__HOST", "0.0.0.0");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && stderr.contains("warning: auth.users are the built-in ones"),
        "{stderr}"
    );
}

#[test]
fn a_variable_with_single_underscores_is_warned_about_beside_every_mistake() {
    let variable = ("REALTIME_SERVER_PORT", "1");
    let warning = "warning: environment variable REALTIME_SERVER_PORT is ignored: `server.port` is set by \
                   REALTIME__SERVER__PORT";
    let unreadable: &[&str] = &["--config", "/nowhere.yml"];
    for (arguments, mistake, error) in [
        (&["check-config"][..], None, None),
        (&["check-config"], Some(("REALTIME__SERVER__PROT", "1")), Some("error: server.prot")),
        (&[], Some(("REALTIME__SERVER__HOST", "")), Some("error: server.host")),
        (&[], Some(("REALTIME__HISTORY__MAXAGE", "30s")), Some("error: heartbeat.interval")),
        (unreadable, None, Some("error: file /nowhere.yml: ")),
    ] {
        let mut command = std::process::Command::new(Demo::binary());
        let output = command.args(arguments).envs([variable]).envs(mistake).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.lines().any(|line| line == warning), "{arguments:?} {mistake:?}: {stderr}");
        assert_eq!(output.status.success(), error.is_none(), "{stderr}");
        let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), error.iter().len(), "{stderr}");
        assert!(errors.iter().zip(error).all(|(found, start)| found.starts_with(start)), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_token_opens_a_connection() {
    let demo = Demo::start().await;
    let mut command = std::process::Command::new(Demo::binary());
    command.args(["gen-token", "--user", "abc", "--client-id", "app", "--ttl", "1m"]);
    let output = command.env("REALTIME__AUTH__JWT__SECRET", realtime_tests::SECRET).output().unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    let path = format!("/resource/websocket?Authorization={}&clientid=app", token.trim());
    let mut socket = Socket::open_at(&demo, &path, &[]).await.unwrap();
    demo.publish(json!({ "userIds": ["abc"], "message": "x" })).await;
    assert_eq!(socket.text().await, "x");
}
