//! Each variable in the files of `apps/demo/deploy` sets a key that exists, and their configuration is valid.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use realtime_tests::{API_KEY, Demo, SECRET};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../apps/demo/deploy");

fn variables(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            variables(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        found.extend(words.filter(|word| word.starts_with("REALTIME__")).map(str::to_owned));
    }
}

fn check(variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(Demo::binary());
    command.args(["check-config", "--config", &format!("{FOLDER}/application.yml")]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_configuration_is_valid_with_the_variables_of_a_node() {
    let (valid, problems) = check(&[
        ("REALTIME__SERVER__HOST", "0.0.0.0"),
        ("REALTIME__SERVER__INTERNAL", "0.0.0.0:9081"),
        ("REALTIME__SERVER__NODE", "node-a"),
        ("REALTIME__REDIS__URL", "redis://redis:6379/"),
        ("REALTIME__AUTH__JWT__SECRET", SECRET),
        ("REALTIME__API__KEY", API_KEY),
    ]);
    assert!(valid && !problems.contains("warning"), "{problems}");
}

#[test]
fn each_variable_sets_a_key_that_exists() {
    let mut found = BTreeSet::new();
    variables(Path::new(FOLDER), &mut found);
    assert!(found.contains("REALTIME__SERVER__NODE"), "{found:?}");
    for variable in found {
        let (_, problems) = check(&[(&variable, "x")]);
        assert!(!problems.contains("unknown"), "{problems}");
    }
    assert!(check(&[("REALTIME__SERVER__PROT", "1")]).1.contains("unknown"));
}
