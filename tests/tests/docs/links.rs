//! Links between the documents, and the files that they name, exist.

use std::path::Path;

use crate::page::{Page, pages, root};

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        for link in page.links.iter().filter(|link| !is_elsewhere(link)) {
            count += 1;
            let (path, anchor) = page.resolve(link);
            let exists = root().join(&path).exists();
            let other = pages().iter().find(|other| other.path == path);
            let has_anchor =
                anchor.is_none_or(|anchor| other.is_none_or(|page| page.anchors.contains(&anchor)));
            if !exists || !has_anchor {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(count > 300, "{count} links were found");
    assert!(broken.is_empty(), "broken links: {broken:#?}");
}

#[test]
fn each_file_that_is_named_exists() {
    let mut missing = Vec::new();
    for page in pages().iter().filter(|page| page.path != Path::new("CHANGELOG.md")) {
        for word in &page.words {
            let path = word.trim_end_matches('/');
            let is_path = ["apps/", "crates/", "docs/", "examples/", "fuzz/", "tests/"]
                .iter()
                .any(|it| path.starts_with(it))
                && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            let exists = || root().join(path).exists() || from(page, path);
            if is_path && !exists() {
                missing.push(format!("{}: {word}", page.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "files that do not exist: {missing:#?}");
}

/// Each page of the book is in its table of contents.
#[test]
fn each_page_is_in_the_table_of_contents() {
    let contents = pages().iter().find(|page| page.path == Path::new("docs/SUMMARY.md")).unwrap();
    let listed: Vec<_> = contents.links.iter().map(|link| contents.resolve(link).0).collect();
    let in_book = |page: &&Page| {
        page.path.starts_with("docs") && !page.path.starts_with("docs/model") && page.path != contents.path
    };
    let missing: Vec<_> = pages()
        .iter()
        .filter(in_book)
        .filter(|page| !listed.contains(&page.path))
        .map(|page| &page.path)
        .collect();
    assert!(missing.is_empty(), "pages that are not in docs/SUMMARY.md: {missing:?}");
}

fn is_elsewhere(link: &str) -> bool {
    // The last one is a page of the site that hosts the repository.
    ["https:", "http:", "mailto:", "../../security/"].iter().any(|begin| link.starts_with(begin))
}

/// Whether the file is there seen from the page's own folder.
fn from(page: &Page, path: &str) -> bool {
    root().join(page.path.parent().unwrap()).join(path).exists()
}
