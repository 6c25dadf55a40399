//! [`check_path`]: the rules for the path of an endpoint in a configuration file.

use std::fmt;

/// Checks the path of an endpoint that a configuration names: it starts with `/`, does not end with it, and has no white
/// space, no control character, none of `?`, `#`, `{`, `}` and `\\`, and no segment that is empty, `.` or `..`: clients would
/// send another path instead.
///
/// A path in code may be a pattern of actix-web (`/rooms/{room}/socket`), so it is not checked.
///
/// # Errors
/// [`PathError`] with the rule that is broken.
pub fn check_path(path: &str) -> Result<(), PathError> {
    let problem = if !path.starts_with('/') {
        "does not start with `/`"
    } else if path.ends_with('/') {
        "ends with `/`"
    } else if path.contains(['?', '#', '{', '}']) {
        "holds one of `?`, `#`, `{` and `}`"
    } else if path.contains('\\') || path[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        "is not as clients send it: it holds `\\`, or a segment that is empty, `.` or `..`"
    } else if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "holds white space or a control character"
    } else {
        return Ok(());
    };
    Err(PathError { path: path.to_owned(), problem })
}

/// A path that no endpoint can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError {
    path: String,
    problem: &'static str,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path, self.problem)
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_endpoint_can_have_is_refused_with_the_rule() {
        for path in ["/ws", "/resource/sse", "/a.b/c-d_e~f", "/中"] {
            assert_eq!(check_path(path), Ok(()));
        }
        for (path, problem) in [
            ("", "does not start with `/`"),
            ("ws", "does not start with `/`"),
            ("/", "ends with `/`"),
            ("/ws/", "ends with `/`"),
            ("/{id}", "holds one of `?`, `#`, `{` and `}`"),
            ("/a?b", "holds one of `?`, `#`, `{` and `}`"),
            ("/a//b", "is not as clients send it: it holds `\\`, or a segment that is empty, `.` or `..`"),
            ("/../b", "is not as clients send it: it holds `\\`, or a segment that is empty, `.` or `..`"),
            ("/a\\b", "is not as clients send it: it holds `\\`, or a segment that is empty, `.` or `..`"),
            ("/a b", "holds white space or a control character"),
            ("/a\n", "holds white space or a control character"),
        ] {
            assert_eq!(check_path(path).unwrap_err().to_string(), format!("`{path}` {problem}"));
        }
    }
}
