//! [`max_body`]: the size of the largest body that the limits allow.

use realtime_core::settings::Limits;

/// Maximum size of a request body in bytes, for these limits: the longest message with every byte escaped (`\u001f`), beside
/// the longest list of users.
pub(crate) fn max_body(limits: &Limits) -> usize {
    let or = |limit: usize, unlimited: usize| if limit == 0 { unlimited } else { limit };
    let message = or(limits.max_message_bytes, UNLIMITED_MESSAGE).saturating_mul(6);
    let targets = or(limits.max_targets, UNLIMITED_TARGETS).saturating_mul(TARGET);
    message.saturating_add(targets).saturating_add(REST)
}

/// Sizes that bodies are made for where the configuration has no limit.
const UNLIMITED_MESSAGE: usize = 2 << 20;
const UNLIMITED_TARGETS: usize = 100_000;

/// Bytes of a user in a list: the longest number, as text, with a comma and a space.
const TARGET: usize = 24;

/// Bytes of a body's other fields.
const REST: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_room_for_whatever_the_limits_allow() {
        let mut limits = Limits::default();
        let longest = |limits: &Limits| 6 * limits.max_message_bytes + 23 * limits.max_targets;
        assert!(max_body(&limits) > longest(&limits));
        limits.max_message_bytes = 8 << 20;
        assert!(max_body(&limits) > longest(&limits));
        (limits.max_message_bytes, limits.max_targets) = (0, 0);
        assert!((1 << 20..1 << 25).contains(&max_body(&limits)));
        limits.max_message_bytes = usize::MAX;
        assert_eq!(max_body(&limits), usize::MAX);
    }
}
