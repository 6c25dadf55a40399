//! Finishes the book that mdbook has built: links that lead out of it go to the repository, and each other one has to
//! lead to a page and a place that exist.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use realtime_tests::run_generator;

fn main() -> ExitCode {
    run_generator("book", |_| run())
}

/// A page of the book.
struct Page {
    /// Its path in the book.
    path: PathBuf,
    html: String,
    /// The ids of its elements.
    ids: HashSet<String>,
}

#[allow(clippy::print_stdout, reason = "it is a program's")]
fn run() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let book = target.join("book");
    let manifest = read(&root.join("Cargo.toml"))?;
    let repository =
        manifest.lines().find_map(|line| line.strip_prefix("repository = ")).ok_or("no repository")?;
    let outside = format!("{}/blob/main", repository.trim_matches('"'));

    let mut files = Vec::new();
    find(&book, &mut files)?;
    let mut pages = Vec::new();
    for file in files {
        // Its links count from the root of a site that nobody knows yet.
        if file.ends_with("404.html") {
            continue;
        }
        let html = read(&file)?;
        let ids = values(&html, " id=\"").map(str::to_owned).collect();
        pages.push(Page {
            path: file.strip_prefix(&book).expect("it was found there").to_owned(),
            html,
            ids,
        });
    }
    let ids: HashMap<&Path, &HashSet<String>> =
        pages.iter().map(|page| (page.path.as_path(), &page.ids)).collect();
    let (mut broken, mut count) = (Vec::new(), 0);
    for page in &pages {
        let mut html = page.html.clone();
        for link in
            values(&page.html, " href=\"").chain(values(&page.html, " src=\"")).collect::<HashSet<_>>()
        {
            if link.contains(':') || link.is_empty() {
                continue;
            }
            count += 1;
            let (path, anchor) =
                link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let to = if path.is_empty() { page.path.clone() } else { join(&page.path, path) };
            let exists = book.join(&to).exists() && !to.starts_with("..");
            let has_anchor =
                || anchor.is_none_or(|anchor| ids.get(to.as_path()).is_none_or(|ids| ids.contains(anchor)));
            if exists && has_anchor() {
                continue;
            }
            // mdbook takes each link to Markdown for one to a page of the book.
            let source = join(&Path::new("docs").join(&page.path), path);
            let markdown = source.with_extension("md");
            let source = if root.join(&source).exists() { source } else { markdown };
            if exists || source.starts_with("..") || !root.join(&source).exists() {
                broken.push(format!("{}: {link}", page.path.display()));
                continue;
            }
            let anchor = anchor.map(|anchor| format!("#{anchor}")).unwrap_or_default();
            let there = format!("{outside}/{}{anchor}", source.display());
            for attribute in ["href", "src"] {
                html =
                    html.replace(&format!(" {attribute}=\"{link}\""), &format!(" {attribute}=\"{there}\""));
            }
        }
        if html != page.html {
            let path = book.join(&page.path);
            fs::write(&path, html).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    broken.sort();
    if broken.is_empty() && count > 500 {
        println!("{} pages, {count} links, none of them broken", pages.len());
        return Ok(());
    }
    Err(format!("{count} links, broken: {broken:#?}"))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Finds the pages below a folder.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let error = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|it| it == "html") {
            files.push(path);
        }
    }
    Ok(())
}

/// The values of an attribute.
fn values<'a>(html: &'a str, attribute: &'static str) -> impl Iterator<Item = &'a str> {
    html.split(attribute).skip(1).filter_map(|rest| rest.split('"').next())
}

/// The path of a link from the root that the page's path counts from.
fn join(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir if path.pop() => {}
            Component::ParentDir => path.push(".."),
            _ => {}
        }
    }
    path
}
