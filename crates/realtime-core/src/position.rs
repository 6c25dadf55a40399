//! [`Position`]: the epoch and offset of an envelope in the bus's history.

use std::{fmt, str::FromStr};

/// Position of an envelope in the bus's history.
///
/// Offsets of one epoch are dense: each envelope's offset is one more than the previous one, except for ranges that the
/// bus reports as skipped ([`BusEvent::Skip`](crate::bus::BusEvent::Skip)). The epoch grows whenever a loss cannot be
/// ruled out. Positions are ordered, and are the same on all nodes.
///
/// Its string, `<epoch>.<offset>`, is the *cursor* that clients send back after a reconnect. It is opaque to them,
/// URL-safe and at most 41 bytes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The epoch: the start of the history in milliseconds since 1970.
    pub epoch: u64,
    /// Number of the envelope in that history; the first has 1.
    pub offset: u64,
}

/// Error of a text that is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service")]
pub struct CursorError;

impl Position {
    /// The position after this one in the same epoch.
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, offset: self.offset.saturating_add(1) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = CursorError;

    fn from_str(cursor: &str) -> Result<Self, Self::Err> {
        let (epoch, offset) = cursor.split_once('.').ok_or(CursorError)?;
        let number = |digits: &str| -> Result<u64, CursorError> {
            if digits.bytes().all(|b| b.is_ascii_digit()) {
                digits.parse().map_err(|_| CursorError)
            } else {
                Err(CursorError)
            }
        };
        Ok(Self { epoch: number(epoch)?, offset: number(offset)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_its_position() {
        let position = Position { epoch: u64::MAX, offset: u64::MAX };
        let cursor = position.to_string();
        assert_eq!(cursor.parse(), Ok(position));
        assert!(cursor.len() <= 41);
        for bad in ["", ".", "1", "1.", ".1", "1.+2", "1.2.3", "18446744073709551616.1", "a.b"] {
            assert_eq!(bad.parse::<Position>(), Err(CursorError), "{bad:?}");
        }
    }

    #[test]
    fn a_later_epoch_is_later() {
        assert!(Position { epoch: 2, offset: 1 } > Position { epoch: 1, offset: 9 });
    }
}
