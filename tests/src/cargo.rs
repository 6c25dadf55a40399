//! [`built`]: programs of this workspace, for tests that start them.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// The cargo that runs the tests.
///
/// It does not get the variables that cargo sets for the tests, such as `CARGO_PKG_NAME`: build scripts that read some of
/// them (ring's) would have everything above them built again, and once more by the next `cargo test`.
fn cargo() -> Command {
    const OF_A_PACKAGE: [&str; 4] = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| OF_A_PACKAGE.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// The executable of a binary of this workspace, built with this process's profile.
///
/// With `REALTIME_TESTS_WORKSPACE` set it comes out of the build of `cargo test --workspace`. Without, `package` is built
/// alone: its dependencies then have other features, for which cargo compiles them once more.
///
/// # Panics
/// When it does not build.
pub fn built(package: &str, binary: &str) -> PathBuf {
    build("bin", binary, &["--package", package])
}

/// The same of an example. Where its package is built alone, it has `features`.
///
/// # Panics
/// When it does not build.
pub fn built_example(package: &str, example: &str, features: &[&str]) -> PathBuf {
    build("example", example, &["--package", package, "--features", &features.join(",")])
}

fn build(kind: &str, name: &str, alone: &[&str]) -> PathBuf {
    let mut build = cargo();
    build.args(["build", "--locked", "--message-format", "json-render-diagnostics"]);
    build.args([&format!("--{kind}"), name]);
    if env::var_os("REALTIME_TESTS_WORKSPACE").is_some() {
        build.args(["--workspace", "--tests"]);
    } else {
        build.args(alone);
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name} does not build");
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut artifacts = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let program = artifacts.find(|artifact| {
        let (target, profile) = (&artifact["target"], &artifact["profile"]);
        target["name"] == name && target["kind"][0] == kind && profile["test"] == false
    });
    let executable = program.as_ref().and_then(|artifact| artifact["executable"].as_str());
    executable.expect("cargo names the executable that it built").into()
}
