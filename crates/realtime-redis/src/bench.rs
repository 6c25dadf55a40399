//! What the workspace's micro-benchmarks run, behind the feature `bench`, with no promise to anybody else.

use crate::ruoyi::Form;

/// A message to some users in RuoYi's bytes.
pub fn ruoyi_encode(users: &[i64], message: &str) -> String {
    Form::SSE.encode(users, message)
}

/// Reads such bytes; returns how many users they name.
///
/// # Panics
/// When they are none.
pub fn ruoyi_decode(payload: &[u8]) -> usize {
    Form::SSE.decode(payload).expect("it was encoded here").users.len()
}
