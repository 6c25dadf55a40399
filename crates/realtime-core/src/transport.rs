//! [`Transport`]: the label of a kind of connection.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use serde::{Serialize, Serializer};

/// The label of a kind of connection, defined by the crate that serves it (`websocket`, `sse`).
///
/// The hub compares and prints labels; it knows nothing else about a transport.
#[derive(Clone, Copy)]
pub struct Transport {
    bytes: [u8; Self::MAX_BYTES],
    /// Length of the label, with the flag [`TEXT_ONLY`].
    len: u8,
}

/// Flag of a transport that carries text only. It is not part of the label.
const TEXT_ONLY: u8 = 0x80;

impl Transport {
    /// The longest label, in bytes: short enough to be copied and compared like a number.
    pub const MAX_BYTES: usize = 15;

    /// Creates a transport with this label.
    ///
    /// # Panics
    /// If the label is empty, longer than 15 bytes or not made of `a-z`, `0-9` and `-`; in a `const` that is a compile
    /// error.
    pub const fn new(label: &str) -> Self {
        match Self::parse(label) {
            Some(transport) => transport,
            None => panic!("a transport's label has 1 to 15 characters of a-z, 0-9 and -"),
        }
    }

    /// Parses a transport's label; `None` if it is invalid.
    pub const fn parse(label: &str) -> Option<Self> {
        let source = label.as_bytes();
        if source.is_empty() || source.len() > Self::MAX_BYTES {
            return None;
        }
        let mut bytes = [0; Self::MAX_BYTES];
        let mut index = 0;
        while index < source.len() {
            if !matches!(source[index], b'a'..=b'z' | b'0'..=b'9' | b'-') {
                return None;
            }
            bytes[index] = source[index];
            index += 1;
        }
        Some(Self { bytes, len: source.len() as u8 })
    }

    /// Marks the transport as one that carries text and no bytes.
    #[must_use]
    pub const fn text_only(mut self) -> Self {
        self.len |= TEXT_ONLY;
        self
    }

    /// Returns `true` if the transport carries text only. A parsed label does not have this flag.
    pub const fn is_text_only(self) -> bool {
        self.len & TEXT_ONLY != 0
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        let len = usize::from(self.len & !TEXT_ONLY);
        std::str::from_utf8(&self.bytes[..len]).expect("a label is ASCII by construction")
    }
}

impl PartialEq for Transport {
    fn eq(&self, other: &Self) -> bool {
        // The bytes after the label are zero.
        self.bytes == other.bytes
    }
}

impl Eq for Transport {}

impl Hash for Transport {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({self})")
    }
}

impl Serialize for Transport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
