//! Targets of fuzz tests: functions that take any bytes and panic where a promise is broken (feature `fuzz`, unstable).

use std::{fs, path::PathBuf, process, sync::LazyLock};

use crate::config::Config;

/// Reads a configuration: a file in front of the first byte that no text has, and variables behind it. What is refused is
/// refused with a problem, and what is taken has settings.
pub fn configurations(data: &[u8]) {
    static FILE: LazyLock<PathBuf> =
        LazyLock::new(|| std::env::temp_dir().join(format!("realtime-fuzz-{}.yml", process::id())));
    let mut parts = data.split(|byte| *byte == 0xFF);
    fs::write(&*FILE, parts.next().unwrap_or_default())
        .expect("the directory for temporary files can be written");
    let variables: Vec<(String, String)> = parts
        .filter_map(|part| {
            let text = String::from_utf8_lossy(part).into_owned();
            let (name, value) = text.split_once('=')?;
            Some((format!("REALTIME__{name}"), value.to_owned()))
        })
        .collect();
    for file in [None, Some(FILE.as_path())] {
        match Config::load(file, variables.iter().cloned()) {
            Ok(config) => drop(config.settings()),
            Err(problems) => assert!(!problems.to_string().trim().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_configurations(parts in vec(prop_oneof![
            4 => select(vec![
                "server:\n", "  port: ", "  host: ", "auth:\n", "  jwt:\n    secret: ", "a-secret-of-32-bytes-or-even-more", "limits:\n", "  maxMessageBytes: ",
                "0", "-1", "1e99", "18446744073709551615", "null", "[]", "{}", "\"\"", "~", "\n", "  ", "- ", "*a", "&a ", "!!x ",
                "history:\n  maxBytes: ", "redis:\n  url: ", "redis://x:y@", "drain:\n  timeout: ", "365d", "10s", "\u{feff}",
                "\u{ff}", "websocket:\n  path: ", "/resource/{x}", "..", "on", "on: ", ": ", "#", "|\n", "x: ",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            2 => select(vec![
                "AUTH__JWT__SECRET=", "SERVER__PORT=", "REDIS__URL=", "LIMITS__MAXTARGETS=", "API__KEY=", "__=", "=", "A__B__C=",
                "HISTORY__MAXAGE=", "SSE__ENABLED=true", "HEARTBEAT__INTERVAL=0s",
            ]).prop_map(|text| [b"\xFF", text.as_bytes()].concat()),
            1 => vec(any::<u8>(), 0..4),
        ], 0..14)) {
            configurations(&parts.concat());
        }
    }
}
