//! The Redis user of docs/operations.md may run each command that the crate for Redis sends or has its scripts call.

use std::{collections::BTreeSet, fs};

use crate::page::{find, root};

/// Those that the text below the list names for Sentinel, Cluster and Sa-Token.
const FOR_OTHERS: [&str; 3] = ["SENTINEL", "CLUSTER", "MGET"];

#[test]
fn the_user_of_the_operations_guide_may_run_each_command_of_the_crate() {
    let mut files = Vec::new();
    let folder = root().join("crates/realtime-redis/src");
    find(&folder, &mut |path| path.extension().is_some_and(|it| it == "rs"), &mut files);
    let mut commands = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        for (call, end) in [("redis.call('", '\''), ("redis.pcall('", '\''), ("cmd(\"", '"')] {
            let calls = source.split(call).skip(1).filter_map(|rest| rest.split_once(end));
            commands.extend(calls.map(|(command, _)| command.to_owned()));
        }
    }
    commands.retain(|command| !FOR_OTHERS.contains(&command.as_str()));
    assert!(commands.len() > 40, "{commands:?}");
    let guide = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, rules) = guide.split_once("redis-cli ACL SETUSER ").unwrap();
    let (rules, _) = rules.split_once("```").unwrap();
    let allowed: BTreeSet<_> = rules.split_whitespace().filter_map(|rule| rule.strip_prefix('+')).collect();
    commands.retain(|command| !allowed.contains(&*command.to_lowercase()));
    assert!(commands.is_empty(), "the user may not run {commands:?}");
}
