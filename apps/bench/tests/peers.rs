//! The servers of `apps/bench/peers` that are examples of this package, each started by its description.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

#[test]
fn each_peer_is_started_and_delivers_every_message() {
    for (peer, example, transport) in [
        ("actix_ws_by_hand", "actix_ws_by_hand", "--ws"),
        ("socketioxide", "socketioxide_on_axum", "--ws"),
        ("axum_sse", "axum_sse", "--sse"),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let text = fs::read_to_string(folder.join(peer).with_extension("toml")).unwrap();
        let released = format!("target/release/examples/{example}");
        assert!(text.contains(&released), "{peer}");
        let spec = tempfile::NamedTempFile::new().unwrap();
        fs::write(spec.path(), text.replace(&released, &build(example))).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_realtime-bench"))
            .args(["compare", "--against", spec.path().to_str().unwrap(), transport, "50"])
            .args(["--messages", "20", "--rate", "100/s", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{peer}: {}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["servers"][0]["median"]["delivered"], 1_000, "{peer}");
    }
}

/// Builds an example, which `cargo test --test peers` does not, and returns its path.
fn build(example: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "realtime-bench", "--example", example])
        .args(["--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{example}");
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().map(|message| serde_json::from_str::<Value>(message).unwrap());
    let mut executables = messages.filter(|message| message["target"]["name"] == example);
    executables.find_map(|message| message["executable"].as_str().map(str::to_owned)).unwrap()
}
