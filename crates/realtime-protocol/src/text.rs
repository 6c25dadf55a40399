//! Texts that are cut.

/// Bytes of an origin that are logged at most. The longest name of a host has 253.
const MAX_ORIGIN: usize = 300;

/// The part of an origin that is logged.
pub(crate) fn shown_origin(origin: &str) -> &str {
    beginning(origin, MAX_ORIGIN)
}

/// The beginning of a text, of at most so many bytes, cut between characters.
pub(crate) fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=text.len().min(bytes)).rfind(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(beginning("https://a.example", 300), "https://a.example");
        assert_eq!(beginning(&"网".repeat(1000), 300), "网".repeat(100));
        assert_eq!(beginning(&format!("a{}", "网".repeat(1000)), 300).len(), 298);
        assert_eq!((beginning("网", 2), beginning("", 2)), ("", ""));
    }
}
