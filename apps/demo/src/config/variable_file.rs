//! [`read`]: the value of a key that a variable `…_FILE` names the file of, as container platforms hand out secrets.

use std::{fs, path::Path};

/// Bytes of such a file.
const MAX_BYTES: u64 = 1 << 20;

/// The name of the key, if a variable's name ends as one that names a file.
pub(super) fn key_of(name: &str) -> Option<&str> {
    let (key, end) = name.split_at_checked(name.len().checked_sub(SUFFIX.len())?)?;
    end.eq_ignore_ascii_case(SUFFIX).then_some(key)
}

const SUFFIX: &str = "_FILE";

/// The text of a file, without the line break at its end.
///
/// # Errors
/// What is wrong with the file. It shows nothing of the text.
pub(super) fn read(path: &str) -> Result<String, String> {
    if path.trim().is_empty() {
        return Err("must not be empty; leave the variable out for none".to_owned());
    }
    let unusable = |problem: &dyn std::fmt::Display| format!("`{path}`: {problem}");
    let length = fs::metadata(Path::new(path)).map_err(|error| unusable(&error))?.len();
    if length > MAX_BYTES {
        return Err(unusable(&format_args!("has more than {MAX_BYTES} bytes")));
    }
    let mut text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::tests::{load, refused};

    fn file(name: &str, text: &str) -> String {
        let path = std::env::temp_dir().join(format!("realtime-demo-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn each_key_may_be_in_a_file_that_a_variable_names() {
        let (secret, port) = (file("secret", &format!("{}\n", "s".repeat(32))), file("port", "81\r\n"));
        let config = load(
            None,
            &[("REALTIME__AUTH__JWT__SECRET_FILE", &secret), ("realtime__server__port_file", &port)],
        );
        assert_eq!(config.auth.jwt.secret.as_deref(), Some(&*"s".repeat(32)));
        assert_eq!(config.server.port, 81);
    }

    #[test]
    fn only_one_line_break_is_no_part_of_the_value() {
        let hint = file("hint", " two\n\n");
        let config = load(None, &[("REALTIME__AUTH__PASSWORDHINT_FILE", &hint)]);
        assert_eq!(config.auth.password_hint.as_deref(), Some(" two\n"));
    }

    #[test]
    fn what_is_wrong_with_such_a_file_is_named_and_its_text_is_not() {
        let short = file("short", "hunter2");
        let variable = "REALTIME__AUTH__JWT__SECRET_FILE";
        assert_eq!(
            refused(None, &[(variable, &short)]),
            format!(
                "auth.jwt.secret (file {short} of environment variable {variable}): must have at least 32 bytes, has 7"
            )
        );
        assert_eq!(
            refused(None, &[(variable, "/no/such")]),
            format!(
                "auth.jwt.secret (environment variable {variable}): `/no/such`: No such file or directory (os error 2)"
            )
        );
        assert!(refused(None, &[(variable, "")]).contains("must not be empty"));
        let both = [("REALTIME__AUTH__JWT__SECRET", &*"s".repeat(32)), (variable, &*short)];
        assert!(refused(None, &both).contains("set twice"), "{}", refused(None, &both));
        let port = file("text", "hunter2");
        let error = refused(None, &[("REALTIME__SERVER__PORT_FILE", &port)]);
        assert!(error.contains("expected a whole number") && !error.contains("hunter2"), "{error}");
        assert_eq!(
            refused(None, &[("REALTIME__SERVER__PROT_FILE", "x")]),
            "server.prot (environment variable REALTIME__SERVER__PROT_FILE): unknown key; did you mean `server.port`?"
        );
    }
}
