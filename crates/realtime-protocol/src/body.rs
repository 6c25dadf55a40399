//! [`announces_body`]: what a request that opens a long-lived connection must not.

/// Returns `true` if a request's head announces a body: by any `Transfer-Encoding`, or a `Content-Length` other than 0.
///
/// A request that opens a long-lived connection has none. Where a body ends in a handshake is for a proxy to decide that
/// may already pass on everything that it reads: what follows would be answered as requests that it has never looked at.
pub fn announces_body<'a>(
    has_transfer_encoding: bool,
    content_lengths: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    let is_zero = |length: &[u8]| {
        str::from_utf8(length)
            .is_ok_and(|length| length.trim().parse::<u64>().is_ok_and(|length| length == 0))
    };
    has_transfer_encoding || !content_lengths.into_iter().all(is_zero)
}
