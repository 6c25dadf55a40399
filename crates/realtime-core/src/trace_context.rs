//! [`TraceContext`]: where a message belongs in a distributed trace.

use std::fmt;

/// Context of a distributed trace, as the headers `traceparent` and `tracestate` carry it
/// ([W3C Trace Context](https://www.w3.org/TR/trace-context/)): the span in which a message was published.
///
/// An envelope carries it to every node. With the feature `opentelemetry` the write of a sampled message is a span below
/// it.
///
/// ```
/// use realtime_core::{Envelope, Message, Scope, TraceContext};
///
/// let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let context = TraceContext::parse(traceparent, Some("vendor=value")).expect("it is valid");
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), traceparent);
///
/// let envelope = Envelope::broadcast(Scope::Both, Message::text("shipped")).with_trace_context(context);
/// assert_eq!(envelope.trace_context().and_then(TraceContext::tracestate), Some("vendor=value"));
/// assert_eq!(TraceContext::parse("00-not-one", None), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
    state: Option<Box<str>>,
}

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;
/// The flags that are defined: [`SAMPLED`], and that of an id whose end is random.
const FLAGS: u8 = SAMPLED | 2;
/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Maximum length of a `tracestate` in bytes.
const MAX_STATE: usize = 512;
/// Maximum number of members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

impl TraceContext {
    /// Creates a context of ids. `None` if one of them is 0. Unknown flags are left out, and a `tracestate` as
    /// [`Self::parse`] does.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8, tracestate: Option<&str>) -> Option<Self> {
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        let state = tracestate.map(str::trim).filter(|state| is_state(state)).map(Box::from);
        Some(Self { trace: trace_id, span: span_id, flags: flags & FLAGS, state })
    }

    /// Parses the values of the headers; `None` if `traceparent` is invalid, as if there were none. Several headers
    /// `tracestate` are joined by commas. One that is invalid, longer than 512 bytes or of more than 32 members is left out
    /// alone. A `traceparent` of a later version is read as one of version 00.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.trim().as_bytes();
        let (first, more) = text.split_at_checked(LENGTH)?;
        let version = hex::<1>(&first[..2])?[0];
        let dashes = [first[2], first[35], first[52]];
        let is_complete = more.is_empty() || version > 0 && more[0] == b'-';
        if version == u8::MAX || dashes != [b'-'; 3] || !is_complete {
            return None;
        }
        Self::new(hex(&first[3..35])?, hex(&first[36..52])?, hex::<1>(&first[53..])?[0], tracestate)
    }

    /// Id of the trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace
    }

    /// Id of the span in which the message was published.
    pub fn span_id(&self) -> [u8; 8] {
        self.span
    }

    /// The flags of `traceparent`.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Returns `true` if the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The value of `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Approximate memory use in bytes.
    pub(crate) fn footprint(&self) -> usize {
        size_of::<Self>() + self.state.as_ref().map_or(0, |state| state.len())
    }
}

/// The value of `traceparent`, version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self}, {:?})", self.tracestate())
    }
}

/// Decodes lower-case hexadecimal digits; `None` if there are others, or another number.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Returns `true` for a list of members `key=value`, which fits into a header.
fn is_state(text: &str) -> bool {
    let is_key = |key: &str| {
        let is_allowed =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
        !key.is_empty() && key.bytes().all(is_allowed)
    };
    let is_value = |value: &str| {
        let is_allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=';
        !value.is_empty() && value.bytes().all(is_allowed)
    };
    let is_member = |member: &str| {
        let member = member.trim_matches([' ', '\t']);
        // A list of HTTP may have empty members.
        member.is_empty() || member.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value))
    };
    !text.is_empty()
        && text.len() <= MAX_STATE
        && text.split(',').count() <= MAX_MEMBERS
        && text.split(',').all(is_member)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn state(text: &str) -> Option<String> {
        TraceContext::parse(VALID, Some(text)).unwrap().tracestate().map(str::to_owned)
    }

    #[test]
    fn a_traceparent_is_read_and_written_as_it_came() {
        let context = TraceContext::parse(VALID, None).unwrap();
        assert_eq!((context.to_string().as_str(), context.is_sampled()), (VALID, true));
        assert_eq!(context.trace_id()[..2], [0x0a, 0xf7]);
        assert_eq!(context.span_id()[6..], [0x33, 0x31]);
        let unsampled = TraceContext::parse(&VALID.replace("-01", "-02"), None).unwrap();
        assert_eq!((unsampled.is_sampled(), unsampled.flags()), (false, 2));
        assert_eq!(TraceContext::parse(&format!(" {VALID}\t"), None), Some(context.clone()));
        assert_eq!(TraceContext::parse(&VALID.replace("-01", "-fd"), None).unwrap().flags(), 1);
        // What a later version adds is not known, and what it keeps is read.
        for later in [VALID.replacen("00", "cc", 1), format!("{}-more", VALID.replacen("00", "01", 1))] {
            assert_eq!(TraceContext::parse(&later, None), Some(context.clone()), "{later}");
        }
    }

    #[test]
    fn a_malformed_traceparent_is_none() {
        for bad in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-more"),
            &format!("{VALID}0"),
            &format!("{}0", VALID.replacen("00", "01", 1)),
            &VALID.replacen("00", "ff", 1),
            &VALID.to_uppercase(),
            &VALID.replace('-', "_"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("b7ad", "b7ag"),
            &VALID.replace("b7ad", "üü"),
            &"ü".repeat(30),
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad:?}");
        }
    }

    #[test]
    fn a_malformed_tracestate_costs_nobody_the_traceparent() {
        let longest = format!("a={}", "x".repeat(MAX_STATE - 2));
        let members = vec!["a=1"; MAX_MEMBERS].join(",");
        for good in ["a=1", "a=1,b/c@d=x y", "tenant@vendor=a:b;c", "a=1, ,b=2", &longest, &members] {
            assert_eq!(state(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "a",
            "=1",
            "a=",
            "A=1",
            "a=1=2",
            "a=ü",
            "a=1\nb=2",
            &format!("{longest}x"),
            &format!("{members},a=1"),
        ] {
            assert_eq!(state(bad), None, "{bad:?}");
        }
    }
}
