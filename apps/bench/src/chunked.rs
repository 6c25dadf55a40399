//! [`Chunked`]: takes the chunked transfer coding off a body (RFC 9112, section 7.1).

/// The state of decoding a chunked body, which may be cut anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Chunked {
    place: Place,
    /// The rest of the chunk, or the digits of its size so far.
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Before the first digit of a size.
    #[default]
    Size,
    /// After a digit.
    Digits,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the begin of a line of the trailer.
    Trailer,
    TrailerLine,
    TrailerEnd,
    End,
}

/// A malformed chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unexpected byte {0:#04x} in a chunked body")]
pub(crate) struct ChunkError(u8);

impl Chunked {
    /// Moves the data in `bytes` to their beginning. Returns the length of the data, and the number of bytes that belong to
    /// the body: all but those after its end.
    pub(crate) fn decode(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), ChunkError> {
        let (mut read, mut written) = (0, 0);
        while read < bytes.len() {
            if self.place == Place::Data {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - read);
                bytes.copy_within(read..read + here, written);
                read += here;
                written += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.place = Place::DataCr;
                }
                continue;
            }
            if self.place == Place::End {
                break;
            }
            self.step(bytes[read])?;
            read += 1;
        }
        Ok((written, read))
    }

    /// Returns whether the body is complete.
    pub(crate) fn ended(&self) -> bool {
        self.place == Place::End
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.place = match (self.place, byte) {
            (Place::Size | Place::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).ok_or(ChunkError(byte))?;
                let left = self.left.checked_mul(16).ok_or(ChunkError(byte))?;
                self.left = left + u64::from(digit);
                Place::Digits
            }
            (Place::Digits, b'\r') | (Place::Extension, b'\r') => Place::SizeEnd,
            (Place::Digits, b';' | b' ' | b'\t') => Place::Extension,
            (Place::Extension, other) if other != b'\n' => Place::Extension,
            (Place::SizeEnd, b'\n') if self.left == 0 => Place::Trailer,
            (Place::SizeEnd, b'\n') => Place::Data,
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Size,
            (Place::Trailer, b'\r') => Place::TrailerEnd,
            (Place::TrailerEnd, b'\n') => Place::End,
            (Place::TrailerLine, b'\n') => Place::Trailer,
            (Place::Trailer | Place::TrailerLine, _) => Place::TrailerLine,
            _ => return Err(ChunkError(byte)),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"5\r\nhello\r\nA;name=\"value\"\r\n, world\r\n!\r\n0\r\nTrailer: x\r\n\r\n";
    const DATA: &[u8] = b"hello, world\r\n!";

    #[test]
    fn a_body_is_decoded_however_it_is_cut() {
        for first in 0..=BODY.len() {
            for second in first..=BODY.len() {
                let mut chunked = Chunked::default();
                let mut data = Vec::new();
                for part in [&BODY[..first], &BODY[first..second], &BODY[second..]] {
                    let mut part = part.to_vec();
                    let (length, _) = chunked.decode(&mut part).unwrap();
                    data.extend_from_slice(&part[..length]);
                }
                assert_eq!(data, DATA, "cut at {first} and {second}");
                assert!(chunked.ended());
            }
        }
    }

    #[test]
    fn what_follows_the_end_is_not_read() {
        let mut bytes = b"1\r\nx\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n".to_vec();
        assert_eq!(Chunked::default().decode(&mut bytes), Ok((1, 11)));
        assert_eq!(bytes[0], b'x');
    }

    #[test]
    fn what_is_no_chunk_is_an_error() {
        for bad in ["x", "\r\n", "1\nx", "1\r\nxy", "1\r\nx\n", "fffffffffffffffff\r\n", "1;a\n"] {
            assert!(Chunked::default().decode(&mut bad.as_bytes().to_vec()).is_err(), "{bad:?}");
        }
    }
}
