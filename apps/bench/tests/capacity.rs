//! The examples of docs/capacity.md are what the command prints.
#![allow(clippy::unwrap_used, reason = "tests may")]

use std::process::Command;

#[test]
fn the_page_has_what_the_command_prints() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/capacity.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<_> = page.split("realtime-bench capacity ").skip(1).collect();
    let mut count = 0;
    for example in examples {
        let (arguments, rest) = example.split_once('\n').unwrap();
        // Mentions in the text have no output.
        let Some((_, rest)) = rest.split_once("```\n\n```text\n").filter(|(before, _)| before.is_empty())
        else {
            continue;
        };
        let printed = rest.split_once("```").unwrap().0;
        let mut command = Command::new(env!("CARGO_BIN_EXE_realtime-bench"));
        let output = command.arg("capacity").args(arguments.split_whitespace()).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), printed, "realtime-bench capacity {arguments}");
        count += 1;
    }
    assert!(count >= 3, "{count} examples");
}
