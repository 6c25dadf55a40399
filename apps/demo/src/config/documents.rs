//! [`documents`]: the YAML documents of a file, each with the tables that it holds.

use config::{File, FileFormat, Map, Source as _, Value};

use super::{ConfigError, Source};

/// Reads all documents of a text, in their order. Lines that begin with `---` are between them.
pub(super) fn documents(text: &str, source: &Source) -> Result<Vec<Map<String, Value>>, ConfigError> {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    split(text).iter().map(|document| parse(document, source)).collect()
}

/// Reads a single document.
pub(super) fn parse(text: &str, source: &Source) -> Result<Map<String, Value>, ConfigError> {
    File::from_str(text, FileFormat::Yaml)
        .collect()
        .map_err(|error| ConfigError::unreadable(source.clone(), error.to_string()))
}

/// The documents, each behind as many empty lines as there are lines in front of it, so that errors name the right one.
fn split(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let last = all.last_mut().expect("there is one from the begin");
        match line.strip_prefix("---") {
            // Even inside of a text in several lines: YAML 1.2, section 9.1.2.
            Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => {
                if last.lines().all(|line| line.trim().is_empty() || line.starts_with(['#', '%'])) {
                    last.clear();
                    last.push_str(&"\n".repeat(number));
                    last.push_str("   ");
                    last.push_str(rest);
                } else {
                    all.push(format!("{}   {rest}", "\n".repeat(number)));
                }
            }
            _ => last.push_str(line),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{load, refused};

    #[test]
    fn several_documents_are_one_file() {
        let file = "# RuoYi writes it so\n--- # the server\nserver:\n  port: 1\n--- # the log\nlog:\n  level: warn\n---\n";
        let config = load(Some(file), &[]);
        assert_eq!((config.server.port, config.log.level.as_str()), (1, "warn"));
        let config = load(Some("%YAML 1.2\n---\nserver: {port: 2}\n--- {log: {level: error}}\n"), &[]);
        assert_eq!((config.server.port, config.log.level.as_str()), (2, "error"));
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        let error = refused(Some("server: {port: 1}\n---\nlog:\n  level: a\n  level: b\n"), &[]);
        assert!(error.contains("line 5"), "{error}");
        let twice = refused(Some("server: {port: 1}\n---\nserver: {port: 2}\n"), &[]);
        assert_eq!(twice, "server.port (file app.yml): set twice");
    }
}
