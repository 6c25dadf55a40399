//! [`Event`]: blocks of an event stream (WHATWG HTML, section 9.2.6).

use memchr::memchr2;

/// A block of an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The event's name; empty for `message`.
    pub(crate) name: &'a [u8],
    /// The text; `None` for a block that fires no event.
    pub(crate) data: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    /// The first block of some bytes and its length; `None` while it is cut. `joined` is where the lines of a text with
    /// several are put together.
    pub(crate) fn first(bytes: &'a [u8], joined: &'a mut Vec<u8>) -> Option<(Self, usize)> {
        let mut name: &[u8] = b"";
        let mut data: Option<&[u8]> = None;
        let mut lines = 0;
        let mut at = 0;
        loop {
            let end = at + memchr2(b'\n', b'\r', &bytes[at..])?;
            let line = &bytes[at..end];
            // A CR at the end of what there is may be half of a CRLF. The other half would be a block that fires
            // nothing.
            at = if bytes[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 };
            if line.is_empty() {
                let data = if lines > 1 { Some(joined.as_slice()) } else { data };
                return Some((Self { name, data }, at));
            }
            if let Some(value) = field(line, b"data") {
                if lines == 1 {
                    joined.clear();
                    joined.extend_from_slice(data.unwrap_or_default());
                }
                if lines > 0 {
                    joined.push(b'\n');
                    joined.extend_from_slice(value);
                }
                lines += 1;
                data = Some(value);
            } else if let Some(value) = field(line, b"event") {
                name = value;
            }
        }
    }
}

/// The value of a line that is of this field.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All texts of a stream that comes in these parts.
    fn read(parts: &[&[u8]]) -> Vec<(String, String)> {
        let (mut left, mut joined, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            left.extend_from_slice(part);
            let mut used = 0;
            while let Some((Event { name, data }, length)) = Event::first(&left[used..], &mut joined) {
                if let Some(data) = data {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    events.push((text(name), text(data)));
                }
                used += length;
            }
            left.drain(..used);
        }
        events
    }

    #[test]
    fn a_stream_is_read_however_it_is_cut_and_however_its_lines_end() {
        let stream = ":connected\nretry:3000\nid:1.0\n\nevent:message\nid:1.1\ndata:one\n\n:heartbeat\n\n\
                      data: two\ndata:lines\ndata\nevent: order\n\ndatas: no field of ours\n\ndata:\n\n";
        let expected: Vec<_> = [("message", "one"), ("order", "two\nlines\n"), ("", "")]
            .map(|(name, data)| (name.to_owned(), data.to_owned()))
            .into();
        for ending in ["\n", "\r", "\r\n"] {
            let stream = stream.replace('\n', ending);
            let stream = stream.as_bytes();
            for cut in 0..=stream.len() {
                assert_eq!(read(&[&stream[..cut], &stream[cut..]]), expected, "{ending:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_block_that_has_not_ended_is_no_event() {
        assert_eq!(read(&[b"data:one\n"]), []);
        assert_eq!(read(&[b"data:one"]), []);
    }
}
