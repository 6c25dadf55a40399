//! [`in_own_process`]: tests that measure their process.

use std::{
    env,
    process::{Command, Stdio},
};

/// Runs a test of the calling binary, named by its path, once more in a process of its own, so that no other test adds to
/// its memory, its CPU time and its open files. Returns true in that process, and false in the first one when it has
/// ended.
///
/// ```no_run
/// # use realtime_tests::in_own_process;
/// fn memory_does_not_grow() {
///     if !in_own_process("memory::memory_does_not_grow") {
///         return;
///     }
///     // Measures.
/// }
/// ```
///
/// # Panics
/// When the test fails there, or when there is no test of that name.
#[allow(clippy::print_stdout, reason = "a test's figures")]
pub fn in_own_process(test: &str) -> bool {
    if env::var_os(MARK).is_some() {
        return true;
    }
    let mut process = Command::new(env::current_exe().unwrap());
    process.args([test, "--exact", "--nocapture"]).env(MARK, "1").stderr(Stdio::inherit());
    let output = process.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "`{test}` in its own process: {}",
        output.status
    );
    false
}

const MARK: &str = "REALTIME_TESTS_OWN_PROCESS";
