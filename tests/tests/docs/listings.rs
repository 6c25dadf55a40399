//! Listings of the guides are parts of programs that tests compile and run.

use std::{fs, path::PathBuf};

use crate::page::{Page, find, pages, root};

/// The lines of a text without indentation, without empty ones.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

fn programs() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut is_program = |path: &std::path::Path| {
        let name = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        ["rs", "js", "ts", "yml", "conf", "cfg"].contains(&name)
    };
    for folder in [
        "examples",
        "crates/realtime-sse/examples",
        "crates/realtime-websocket/examples",
        "apps/web-client/examples",
        "apps/web-client/test",
        "apps/demo/deploy",
        "tests/tests",
    ] {
        find(&root().join(folder), &mut is_program, &mut files);
    }
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(&file).unwrap())).collect()
}

/// A listing consists of parts; where a line is `// …` something is left out.
fn is_part(listing: &str, program: &str) -> bool {
    let program = lines(program);
    let mut rest = program.as_slice();
    let listing = lines(listing);
    listing.split(|line| line.trim_start_matches(['/', '#', ' ']) == "…").filter(|part| !part.is_empty()).all(
        |part| {
            let Some(start) = rest.windows(part.len()).position(|window| window == part) else {
                return false;
            };
            rest = &rest[start + part.len()..];
            true
        },
    )
}

fn is_guide(page: &Page) -> bool {
    page.path.starts_with("docs/howto") || page.path.starts_with("docs/zh")
}

/// The READMEs of the crates are compiled and run as documentation tests (tests/src/readmes.rs).
fn is_doctest(page: &Page) -> bool {
    page.path.starts_with("crates")
}

#[test]
fn each_listing_of_a_guide_and_each_whole_program_is_a_part_of_one_that_runs() {
    let programs = programs();
    let (mut unknown, mut count) = (Vec::new(), 0);
    for page in pages().iter().filter(|page| !is_doctest(page)) {
        for (language, listing) in &page.listings {
            let is_code = ["rust", "js", "ts", "nginx", "haproxy", "yaml"].contains(&language.as_str());
            // Elsewhere a listing may be a sketch, but for whole programs.
            let is_whole = language == "rust" && listing.contains("fn main()");
            if !(is_whole || is_code && is_guide(page)) {
                continue;
            }
            count += 1;
            if !programs.iter().any(|(_, program)| is_part(listing, program)) {
                unknown.push(format!("{}:\n{listing}", page.path.display()));
            }
        }
    }
    assert!(count >= 15, "{count} listings were found");
    assert!(unknown.is_empty(), "listings that are in no program:\n{}", unknown.join("\n"));
}

#[test]
fn what_is_left_out_of_a_listing_is_said() {
    let program = "fn main() {\n    let a = 1;\n    let b = 2;\n    let c = 3;\n}";
    for (listing, is) in [
        ("let a = 1;\nlet b = 2;", true),
        ("let a = 1;\nlet c = 3;", false),
        ("let a = 1;\n// …\nlet c = 3;", true),
        ("let c = 3;\n// …\nlet a = 1;", false),
        ("let a = 2;", false),
    ] {
        assert_eq!(is_part(listing, program), is, "{listing}");
    }
}
