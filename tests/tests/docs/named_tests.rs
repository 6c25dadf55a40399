//! Tests that documents name exist.

use std::{fs, path::PathBuf};

use crate::page::{pages, root};

/// The file and the function of a test's name, such as `demo behind_proxies::tls::both_transports_work`.
fn test_of(word: &str) -> Option<(Vec<PathBuf>, &str)> {
    let (binary, path) = word.split_once(' ')?;
    let (modules, name) = path.rsplit_once("::").unwrap_or(("", path));
    let is_name = path.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':');
    if !is_name || !path.contains('_') {
        return None;
    }
    let module = modules.replace("::", "/");
    let files = match binary {
        "cluster" | "demo" | "docs" | "transports" => {
            vec![root().join("tests/tests").join(binary).join(format!("{module}.rs"))]
        }
        "programs" | "own_bus" => vec![root().join("examples/tests").join(format!("{binary}.rs"))],
        "unit_test" => vec![root().join("examples/unit_test.rs")],
        _ => return None,
    };
    Some((files, name))
}

#[test]
fn each_test_that_is_named_exists() {
    let (mut missing, mut count) = (Vec::new(), 0);
    for page in pages() {
        for (files, name, word) in
            page.words.iter().filter_map(|word| test_of(word).map(|(f, n)| (f, n, word)))
        {
            count += 1;
            let exists = files
                .iter()
                .any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {name}("))));
            if !exists {
                missing.push(format!("{}: {word}", page.path.display()));
            }
        }
    }
    assert!(count >= 20, "{count} tests are named");
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
}
