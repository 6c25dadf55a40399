//! [`cargo`]: builds of programs from within tests.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// The cargo that runs the tests.
///
/// It does not get the variables that cargo sets for the tests, such as `CARGO_PKG_NAME`: build scripts that read some of
/// them (ring's) would have everything above them built again, and once more by the next `cargo test`.
pub fn cargo() -> Command {
    const OF_A_PACKAGE: [&str; 4] = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_A_PACKAGE.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// A binary of a package of this workspace, built with this process's profile.
///
/// # Panics
/// When it does not build.
pub fn built(package: &str, binary: &str) -> PathBuf {
    let mut build = cargo();
    build.args(["build", "--package", package, "--bin", binary]);
    build.args(["--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{binary} does not build");
    let messages = String::from_utf8(output.stdout).unwrap();
    let artifacts = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let executable =
        artifacts.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    executable.expect("cargo names the executable that it built")
}
