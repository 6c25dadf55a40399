//! Classification of Redis errors.

use realtime_core::bus::BusError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Converts an error into the reason why the bus has not accepted an envelope; the envelope was not sent, or Redis has
/// answered that it did nothing.
pub(crate) fn bus_error(error: &RedisError) -> BusError {
    // A replica is a working server, too, which does not let this node write.
    let is_read_only = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
    if is_refusal(error) || is_read_only {
        BusError::Refused(error.to_string())
    } else {
        BusError::Unavailable(error.to_string())
    }
}

/// Converts the error of `commands` commands that were sent to publish an envelope. Unless Redis has answered to each
/// that it failed, some may have been run.
pub(crate) fn publish_error(error: &RedisError, commands: usize) -> BusError {
    let failed = match error.code() {
        Some("EXECABORT") => commands,
        Some(_) => 1,
        None => error.clone().into_server_errors().map_or(0, |errors| errors.len()),
    };
    if failed >= commands { bus_error(error) } else { BusError::OutcomeUnknown(error.to_string()) }
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

    fn error(text: &[u8]) -> RedisError {
        match redis::parse_redis_value(text) {
            Ok(Value::ServerError(error)) => RedisError::from(error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_redis_has_answered_was_not_published_for_certain() {
        for (answer, refused) in [
            ("OOM command not allowed", true),
            ("NOREPLICAS Not enough", true),
            ("READONLY You can't write against a read only replica.", true),
            ("LOADING Redis is loading the dataset in memory", false),
            ("CLUSTERDOWN The cluster is down", false),
            ("ERR unknown", false),
        ] {
            let error = error(format!("-{answer}\r\n").as_bytes());
            let kind = publish_error(&error, 1);
            assert_eq!(matches!(kind, BusError::Refused(_)), refused, "{kind}");
            assert_eq!(matches!(kind, BusError::Unavailable(_)), !refused, "{kind}");
            let kind = publish_error(&error, 2);
            assert!(
                matches!(kind, BusError::OutcomeUnknown(_)),
                "the other command may have been run: {kind}"
            );
        }
        for error in [
            client_error("the connection was closed"),
            std::io::Error::from(std::io::ErrorKind::BrokenPipe).into(),
            (ErrorKind::UnexpectedReturnType, "not a position").into(),
        ] {
            let kind = publish_error(&error, 1);
            assert!(matches!(kind, BusError::OutcomeUnknown(_)), "{kind}");
            let kind = bus_error(&error);
            assert!(matches!(kind, BusError::Unavailable(_)), "nothing was sent: {kind}");
        }
    }

    #[test]
    fn a_refusal_is_told_from_a_broken_connection() {
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
