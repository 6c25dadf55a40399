//! Writes the promises of the tests into docs/testing.md; with `--check` it only compares them.

use std::process::ExitCode;

use realtime_tests::{Generated, Suite, difference, run_generator};

fn main() -> ExitCode {
    run_generator("promises", run)
}

fn run(check: bool) -> Result<(), String> {
    let page = Generated::find("testing.md", "promises")?;
    let suites = ["transports", "cluster", "demo"].map(Suite::read);
    let suites = suites.into_iter().collect::<Result<Vec<_>, _>>()?;
    let text: String = suites.iter().map(ToString::to_string).collect();
    if !check {
        return page.replace(&text);
    }
    if page.text == text {
        return Ok(());
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let difference = difference(&lines(&page.text), &lines(&text));
    Err(format!(
        "docs/testing.md lacks promises of the tests (- page, + tests); `cargo run -p realtime-tests --bin promises` \
         writes them:{difference}"
    ))
}
