//! Kicks, beside commands and refusals that are none.

use super::check;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_its_keys_costs_nobody_a_kick() {
    check(&[
        ("a command that is no text", "call('xadd', control .. 'commands', '*', 'v', '1', 'c', bad)"),
        ("a field that is no text", "call('xadd', control .. 'commands', '*', bad, 'x')"),
        ("a command without fields of ours", "call('xadd', control .. 'commands', '*', 'x', 'y')"),
        ("a command that is no JSON", "call('xadd', control .. 'commands', '*', 'v', '1', 'c', '{')"),
        ("a command at the end of time", "call('xadd', control .. 'commands', '18446744073709551615-18446744073709551615', 'v', '1', 'c', '{}')"),
        ("a command long after now", "call('xadd', control .. 'commands', '18446744073709551615-3', 'v', '1', 'c', '{}')"),
        (
            "a question without an end",
            r#"for n = 1, 1500 do
                 call('xadd', control .. 'commands', '*', 'v', '1', 'c', '{"command":"report","position":"1.1","within":18446744073709551615}')
               end"#,
        ),
        ("a command of 4 MiB", "call('xadd', control .. 'commands', '*', 'v', '1', 'c', string.rep('x', 4194304))"),
        ("refused: no text", "call('zadd', control .. 'refused', 4e9, bad, '+inf', '00', '-inf', 'x y')"),
        ("revoked: no text", "call('zadd', control .. 'revoked', 4e9, bad, '+inf', 'x', '-inf', 'y')"),
        ("nodes: no text", "call('zadd', control .. 'nodes', 1e3, bad)"),
        ("nodes: leases without an end", "call('zadd', control .. 'nodes', '+inf', 'x~1', 4e12, bad)"),
        ("commands: another type", "call('del', control .. 'commands') call('set', control .. 'commands', 'x')"),
        ("refused: another type", "call('del', control .. 'refused') call('set', control .. 'refused', 'x')"),
        ("revoked: another type", "call('del', control .. 'revoked') call('set', control .. 'revoked', 'x')"),
        ("nodes: another type", "call('del', control .. 'nodes') call('set', control .. 'nodes', 'x')"),
        ("since: no text", "call('set', control .. 'since', bad)"),
        ("since: no number", "call('set', control .. 'since', 'nan')"),
        ("since: before all time", "call('set', control .. 'since', '-1')"),
        ("since: long after now", "call('set', control .. 'since', '1e300')"),
        ("since: another type", "call('del', control .. 'since') call('sadd', control .. 'since', 'x')"),
    ])
    .await;
}
