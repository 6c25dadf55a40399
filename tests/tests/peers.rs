//! The servers of `apps/bench/peers` that are examples of the bench, each started by its description.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{fs, path::Path, process::Command};

use realtime_tests::{built, built_example};
use serde_json::Value;

#[test]
fn each_peer_is_started_and_delivers_every_message() {
    let bench = built("realtime-bench", "realtime-bench");
    for (peer, example, transport) in [
        ("actix_ws_by_hand", "actix_ws_by_hand", "--ws"),
        ("socketioxide", "socketioxide_on_axum", "--ws"),
        ("axum_sse", "axum_sse", "--sse"),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/bench/peers");
        let text = fs::read_to_string(folder.join(peer).with_extension("toml")).unwrap();
        let released = format!("target/release/examples/{example}");
        assert!(text.contains(&released), "{peer}");
        let executable = built_example("realtime-bench", example, &[]);
        let spec = tempfile::NamedTempFile::new().unwrap();
        fs::write(spec.path(), text.replace(&released, executable.to_str().unwrap())).unwrap();
        let output = Command::new(&bench)
            .args(["compare", "--against", spec.path().to_str().unwrap(), transport, "50"])
            .args(["--messages", "20", "--rate", "100/s", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{peer}: {}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["servers"][0]["median"]["delivered"], 1_000, "{peer}");
    }
}
