//! Functions for the micro-benchmarks of this workspace (feature `bench`, unstable).

use crate::ruoyi::Form;

/// Encodes a message to some users in RuoYi's format.
pub fn ruoyi_encode(users: &[i64], message: &str) -> String {
    Form::SSE.encode(users, message)
}

/// Decodes such a message; returns the number of its users.
///
/// # Panics
/// If the payload is malformed.
pub fn ruoyi_decode(payload: &[u8]) -> usize {
    Form::SSE.decode(payload).expect("it was encoded here").users.len()
}
