//! [`MessageText`]: the text of a message, which shows whether it has arrived whole.

use std::fmt::{self, Write};

use crate::audit::history::Target;

/// The contents of a message: run, number, target and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageText {
    /// Distinguishes the messages of this run from others.
    pub(crate) run: u64,
    pub(crate) n: u64,
    pub(crate) target: Target,
    /// Bytes that fill it up.
    pub(crate) filler: usize,
}

/// The result of parsing a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Ours(MessageText),
    /// A message of another publisher.
    Foreign,
    /// The prefix matches, the rest does not.
    Malformed,
}

const BEGIN: &str = "audit ";

impl MessageText {
    /// Reads a text that has come.
    pub(crate) fn read(text: &str, run: u64) -> Parsed {
        let Some(rest) = text.strip_prefix(BEGIN) else { return Parsed::Foreign };
        let Some(read) = Self::parse(rest) else { return Parsed::Malformed };
        // The whole text is compared, so that no byte can be missing, and none be too many.
        if read.to_string() != text {
            return Parsed::Malformed;
        }
        if read.run == run { Parsed::Ours(read) } else { Parsed::Foreign }
    }

    fn parse(rest: &str) -> Option<Self> {
        let mut words = rest.split([' ', '\n']);
        let mut word = || words.next();
        Some(Self {
            run: word()?.parse().ok()?,
            n: word()?.parse().ok()?,
            target: word()?.parse().ok()?,
            filler: word()?.parse().ok()?,
        })
    }
}

impl fmt::Display for MessageText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, n, target, filler } = self;
        writeln!(f, "{BEGIN}{run} {n} {target} {filler}")?;
        for at in 0..*filler {
            // Lines of 64 and non-ASCII between them, so that `data:` lines and UTF-8 are cut here and there.
            match at % 64 {
                63 => f.write_char('\n')?,
                31 => f.write_char('é')?,
                _ => f.write_char((b'a' + ((*n as usize + at) % 26) as u8) as char)?,
            }
        }
        write!(f, "\nend {n}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whole_or_not_at_all() {
        for filler in [0, 1, 64, 1000] {
            let text = MessageText { run: 1, n: 9, target: Target::Topic(4), filler };
            let written = text.to_string();
            assert_eq!(MessageText::read(&written, 1), Parsed::Ours(text.clone()));
            assert_eq!(MessageText::read(&written, 2), Parsed::Foreign);
            for cut in BEGIN.len()..written.len() {
                if written.is_char_boundary(cut) {
                    assert_eq!(MessageText::read(&written[..cut], 1), Parsed::Malformed, "{cut}");
                }
            }
            assert_eq!(MessageText::read(&format!("{written}:disconnected"), 1), Parsed::Malformed);
        }
        assert_eq!(MessageText::read("hello", 1), Parsed::Foreign);
    }
}
