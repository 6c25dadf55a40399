//! [`cargo`]: builds of programs from within tests.

use std::process::Command;

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
