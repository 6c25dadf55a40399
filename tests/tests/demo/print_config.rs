//! `print-config` shows the configuration that a start would use, and no secret.

use std::{fs, process::Command};

use realtime_tests::{API_KEY, Demo, SECRET};
use tempfile::NamedTempFile;

fn print(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String, String) {
    let mut command = Command::new(Demo::binary());
    let output =
        command.arg("print-config").args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_reference_is_printed_as_it_is() {
    let reference = include_str!("../../../apps/demo/config/application.yml");
    assert_eq!(print(&["--reference"], &[]).1, reference);
    assert_eq!(print(&[], &[]).1, reference);
}

#[test]
fn what_is_in_force_is_printed_with_its_source_and_without_secrets() {
    let file = NamedTempFile::with_suffix(".yml").unwrap();
    let path = file.path().to_str().unwrap();
    fs::write(&file, "server: {port: 81}\n---\nwebsocket:\n  enabled: true\n").unwrap();
    let variables = [
        ("REALTIME__AUTH__JWT__SECRET", SECRET),
        ("REALTIME__API__KEY", API_KEY),
        ("REALTIME__REDIS__URL", "redis://me:hunter2@cache/3"),
        ("REALTIME_SSE_ENABLED", "true"),
    ];
    let (valid, shown, warnings) = print(&["--config", path], &variables);
    assert!(valid, "{warnings}");
    for line in [
        &format!("  port: 81  # file {path}"),
        &format!("  enabled: true  # file {path}"),
        "  enabled: false  # left out, so not the built-in example",
        "    secret: \"***\"  # environment variable REALTIME__AUTH__JWT__SECRET",
        "  url: \"redis://me:***@cache/3\"  # environment variable REALTIME__REDIS__URL",
    ] {
        assert!(shown.lines().any(|other| other == line), "no `{line}` in\n{shown}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains(SECRET) && !shown.contains(API_KEY), "{shown}");
    let ignored = "warning: environment variable REALTIME_SSE_ENABLED is ignored: `sse.enabled` is set by \
                   REALTIME__SSE__ENABLED";
    assert!(warnings.contains(ignored), "{warnings}");
}

#[test]
fn secrets_come_from_files_that_variables_name() {
    let file = NamedTempFile::new().unwrap();
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let (valid, shown, _) = print(&[], &[("REALTIME__AUTH__JWT__SECRET_FILE", path)]);
    let line = format!(
        "    secret: \"***\"  # file {path} of environment variable REALTIME__AUTH__JWT__SECRET_FILE"
    );
    assert!(valid && shown.contains(&line), "{shown}");
    let both = [("REALTIME__AUTH__JWT__SECRET_FILE", path), ("REALTIME__AUTH__JWT__SECRET", SECRET)];
    let (valid, _, errors) = print(&[], &both);
    assert!(!valid && errors.contains("auth.jwt.secret") && errors.contains("set twice"), "{errors}");
}
