//! Classification of Redis errors.

use realtime_core::bus::BusError;
use redis::{ErrorKind, RedisError};

/// Converts an error of Redis into the reason why the bus did not accept an envelope.
pub(crate) fn bus_error(error: &RedisError) -> BusError {
    if is_refusal(error) {
        BusError::Refused(error.to_string())
    } else {
        BusError::Unavailable(error.to_string())
    }
}

/// Returns whether a working server refused the command. Nothing was done, another connection would get the same answer,
/// and the connection is not at fault.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    let is_named = |code: &str| REFUSALS.contains(&code);
    match error.code() {
        Some(code) if is_named(code) => true,
        // A pipeline: each command has an error of its own.
        Some("EXECABORT") | None => {
            let errors = error.clone().into_server_errors();
            errors.is_some_and(|all| !all.is_empty() && all.iter().all(|(_, error)| is_named(error.code())))
        }
        Some(_) => false,
    }
}

/// Creates an error of this client, as opposed to one that a server returned.
pub(crate) fn client_error(problem: &'static str) -> RedisError {
    (ErrorKind::Client, problem).into()
}

/// Out of memory; too few replicas; cannot persist; not permitted; not authenticated; busy with a script; wrong key type.
const REFUSALS: [&str; 7] = ["OOM", "NOREPLICAS", "MISCONF", "NOPERM", "NOAUTH", "BUSY", "WRONGTYPE"];

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_broken_connection() {
        let error = |text: &[u8]| match redis::parse_redis_value(text) {
            Ok(Value::ServerError(error)) => RedisError::from(error),
            other => panic!("{other:?}"),
        };
        for refusal in ["OOM command not allowed", "NOREPLICAS Not enough", "MISCONF Redis", "NOPERM no"] {
            let error = error(format!("-{refusal}\r\n").as_bytes());
            assert!(is_refusal(&error), "{error}");
            let text = bus_error(&error).to_string();
            let name = refusal.split(' ').next().unwrap();
            assert!(text.to_uppercase().contains(name), "{text}");
        }
        for other in ["READONLY You can't", "LOADING Redis", "UNBLOCKED force", "ERR unknown"] {
            assert!(!is_refusal(&error(format!("-{other}\r\n").as_bytes())), "{other}");
        }
    }
}
