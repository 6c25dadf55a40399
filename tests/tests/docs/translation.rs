//! README.zh-CN.md has the sections and listings of README.md, and names the same code.

use std::{collections::BTreeSet, path::Path};

use crate::page::{Page, pages};

fn page(path: &str) -> &'static Page {
    pages().iter().find(|page| page.path == Path::new(path)).unwrap()
}

fn listings(page: &Page) -> Vec<(&str, Vec<&str>)> {
    let lines = |language: &str, text| str::lines(text).map(|line| without_comment(language, line)).collect();
    page.listings.iter().map(|(language, text)| (language.as_str(), lines(language, text))).collect()
}

/// Comments behind shell commands are translated.
fn without_comment<'a>(language: &str, line: &'a str) -> &'a str {
    match line.split_once(" # ") {
        Some((command, _)) if language == "sh" => command.trim_end(),
        _ => line,
    }
}

#[test]
fn both_readmes_have_the_same_sections_and_listings() {
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(page);
    assert_eq!(english.levels, chinese.levels);
    assert_eq!(listings(english), listings(chinese));
}

#[test]
fn both_readmes_name_the_same_code() {
    let [english, chinese] =
        ["README.md", "README.zh-CN.md"].map(|path| BTreeSet::from_iter(&page(path).words));
    let in_one: Vec<_> = english.symmetric_difference(&chinese).collect();
    assert!(in_one.is_empty(), "named in one README only: {in_one:?}");
}
