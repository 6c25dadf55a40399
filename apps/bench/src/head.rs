//! [`Head`]: the begin of an HTTP/1.1 answer.

use memchr::memmem;

/// The parts of an answer's head that this tool uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The status line without the version, such as `401 Unauthorized`.
    pub(crate) line: String,
    pub(crate) body: Body,
    /// `Sec-WebSocket-Accept`.
    pub(crate) accept: Option<String>,
    /// `Content-Type`.
    pub(crate) content_type: Option<String>,
}

/// The framing of a body (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The key that every handshake of this tool brings, the RFC's own example, and its answer: the server shall prove that
/// it speaks WebSocket, which one key does as well as many.
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The longest head that is read.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// Bytes that are no head of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP/1.1 answer: {0:?}")]
pub(crate) struct HeadError(String);

impl Head {
    /// The head at the begin of some bytes and its length; `None` while it is cut.
    pub(crate) fn first(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let bad = |text: &str| HeadError(text.chars().take(80).collect());
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > MAX_HEAD { Err(bad("a head without an end")) } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let line = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..)).ok_or_else(|| bad(first))?;
        let status = line.get(..3).and_then(|status| status.parse().ok()).ok_or_else(|| bad(first))?;
        let mut head =
            Self { status, line: line.to_owned(), body: Body::UntilClose, accept: None, content_type: None };
        if matches!(status, 100..=199 | 204 | 304) {
            head.body = Body::Length(0);
        }
        for field in lines {
            let (name, value) = field.split_once(':').ok_or_else(|| bad(field))?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" if head.body == Body::UntilClose => {
                    head.body = Body::Length(value.parse().map_err(|_| bad(field))?);
                }
                "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => head.body = Body::Chunked,
                "sec-websocket-accept" => head.accept = Some(value.to_owned()),
                "content-type" => head.content_type = Some(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        Ok(Some((head, end + 4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_however_it_is_cut() {
        let answer =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-type: Text/Event-Stream\r\n\r\nbody";
        let end = answer.len() - 4;
        for cut in 0..end {
            assert_eq!(Head::first(&answer[..cut]), Ok(None), "cut at {cut}");
        }
        let (head, length) = Head::first(answer).unwrap().unwrap();
        assert_eq!((head.status, head.line.as_str(), head.body, length), (200, "200 OK", Body::Chunked, end));
        assert_eq!(head.content_type.as_deref(), Some("text/event-stream"));
    }

    #[test]
    fn a_body_ends_by_length_by_chunks_or_by_close() {
        let body = |fields: &str| {
            Head::first(format!("HTTP/1.1 {fields}\r\n\r\n").as_bytes()).map(|head| head.unwrap().0.body)
        };
        assert_eq!(body("200 OK\r\nContent-Length: 7"), Ok(Body::Length(7)));
        assert_eq!(body("200 OK"), Ok(Body::UntilClose));
        assert_eq!(body("204 No Content"), Ok(Body::Length(0)));
        assert!(body("200 OK\r\nContent-Length: x").is_err());
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bad in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n"] {
            assert!(Head::first(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Head::first(&[b'x'; MAX_HEAD + 1]).is_err());
    }
}
