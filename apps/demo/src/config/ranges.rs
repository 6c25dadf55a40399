//! [`problem`]: what a number out of its range is told, in place of the name of a type.

/// Keys with a range that is narrower than that of their types.
const NARROW: [(&str, &str); 1] = [("server.workers", "from 0 to 1024")];

/// The problem of a number that does not fit: `expected` and `found` are serde's words.
pub(super) fn problem(key: &str, expected: &str, found: &str) -> Option<String> {
    let range = match expected {
        "an unsigned 8 bit integer" => "from 0 to 255",
        "an unsigned 16 bit integer" => "from 0 to 65535",
        "an unsigned 32 bit integer" => "from 0 to 4294967295",
        "an unsigned 64 bit or less integer" | "an unsigned 64 bit integer" => "at least 0",
        _ => return None,
    };
    let number = found.split('`').nth(1).filter(|text| text.parse::<i128>().is_ok())?;
    let narrow = NARROW.iter().find(|(narrow, _)| *narrow == key).map(|(_, range)| *range);
    Some(format!("must be {}, is {number}", narrow.unwrap_or(range)))
}
