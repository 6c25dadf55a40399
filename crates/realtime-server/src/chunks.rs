//! [`Chunks`]: finds the end of a chunked body (RFC 9112, section 7.1).

/// Scanner for the end of a chunked body. It follows actix-http's decoder, so that both agree on the first byte of the next
/// request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Chunks {
    /// Before a chunk's size.
    #[default]
    Begin,
    Size(u64),
    /// Behind a chunk's size.
    Space(u64),
    Extension(u64),
    SizeLf(u64),
    /// Within a chunk, with the number of bytes that are left.
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    /// Before a trailer's line, or the end.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    /// Not a chunked body: the decoder fails, and the connection ends.
    Broken,
}

impl Chunks {
    /// Length of the body's part of `bytes`, if it ends within them.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let Self::Chunk(left) = self {
                let step = (*left).min((bytes.len() - at) as u64);
                *left -= step;
                at += step as usize;
                if *left == 0 {
                    *self = Self::ChunkCr;
                }
                continue;
            }
            at += 1;
            if (*self, byte) == (Self::EndLf, &b'\n') {
                return Some(at);
            }
            *self = self.step(*byte);
        }
        None
    }

    fn step(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Begin, _) => digit(byte).map_or(Self::Broken, Self::Size),
            (Self::Size(size) | Self::Space(size), b'\t' | b' ') => Self::Space(size),
            (Self::Size(size) | Self::Space(size), b';') => Self::Extension(size),
            (Self::Size(size) | Self::Space(size) | Self::Extension(size), b'\r') => Self::SizeLf(size),
            (Self::Size(size), _) => match (size.checked_mul(16), digit(byte)) {
                (Some(size), Some(digit)) => Self::Size(size + digit),
                _ => Self::Broken,
            },
            (Self::Extension(_), 0x00..=0x08 | 0x0A..=0x1F | 0x7F) => Self::Broken,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeLf(0), b'\n') => Self::Line,
            (Self::SizeLf(size), b'\n') => Self::Chunk(size),
            (Self::ChunkCr, b'\r') => Self::ChunkLf,
            (Self::ChunkLf, b'\n') => Self::Begin,
            (Self::Line, b'\r') => Self::EndLf,
            (Self::Trailer, b'\r') => Self::TrailerLf,
            (Self::Line | Self::Trailer, _) => Self::Trailer,
            (Self::TrailerLf, b'\n') => Self::Line,
            _ => Self::Broken,
        }
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the body at the front of `bytes`, which come in pieces of some length.
    fn end(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut chunks = Chunks::default();
        let mut before = 0;
        for piece in bytes.chunks(piece) {
            if let Some(end) = chunks.find(piece) {
                return Some(before + end);
            }
            before += piece.len();
        }
        None
    }

    #[test]
    fn a_body_ends_at_the_same_byte_however_it_is_cut() {
        let bodies = [
            "0\r\n\r\n",
            "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
            "a \t;x=\"y\"\r\n0123456789\r\n1\r\n\n\r\n00;last\r\n\r\n",
            "1\r\nx\r\n0\r\nname: value\r\nother: \r\n\r\n",
        ];
        for body in bodies {
            let bytes = format!("{body}GET / HTTP/1.1\r\n\r\n").into_bytes();
            for piece in 1..=bytes.len() {
                assert_eq!(end(&bytes, piece), Some(body.len()), "{body:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_the_decoder_refuses_has_no_end() {
        for body in ["g\r\n", "1\nx", "1\r\nxx\r\n0\r\n\r\n", "1;\x01\r\nx\r\n0\r\n\r\n", "0\r\n\rx\r\n\r\n"]
        {
            assert_eq!(end(body.as_bytes(), 3), None, "{body:?}");
        }
        assert_eq!(end(format!("{:x}0\r\n\r\n0\r\n\r\n", u64::MAX).as_bytes(), 3), None);
    }
}
