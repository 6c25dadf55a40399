//! [`Page`]: a document in Markdown, with its headings, links and code.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A document.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Its path from the root of the repository.
    pub(crate) path: PathBuf,
    /// The levels of its headings.
    pub(crate) levels: Vec<HeadingLevel>,
    /// The anchors of its headings, as GitHub and mdBook make them.
    pub(crate) anchors: HashSet<String>,
    /// The targets of its links and images.
    pub(crate) links: Vec<String>,
    /// Its words in code.
    pub(crate) words: Vec<String>,
    /// Its listings, with the name of their language.
    pub(crate) listings: Vec<(String, String)>,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> =
        LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap());
    &ROOT
}

/// All documents of the repository.
pub(crate) fn pages() -> &'static [Page] {
    static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
        let mut files = Vec::new();
        find(root(), &mut |path| path.extension().is_some_and(|it| it == "md"), &mut files);
        files.iter().map(|file| Page::read(file)).collect()
    });
    &PAGES
}

/// Finds files below a folder, in the order of their names, without what was built or installed.
pub(crate) fn find(folder: &Path, wanted: &mut impl FnMut(&Path) -> bool, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            if !["target", "node_modules", "dist", "build", ".git"].contains(&&*name) {
                find(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

impl Page {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let path = file.strip_prefix(root()).unwrap().to_owned();
        let mut page = Self { path, ..Self::default() };
        let mut same: HashMap<String, usize> = HashMap::new();
        let (mut heading, mut listing): (Option<String>, Option<(String, String)>) = (None, None);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    page.levels.push(level);
                    heading = Some(String::new());
                }
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap());
                    let times = same.entry(anchor.clone()).or_default();
                    page.anchors.insert(match *times {
                        0 => anchor,
                        n => format!("{anchor}-{n}"),
                    });
                    *times += 1;
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(info) => info.split([',', ' ']).next().unwrap().to_owned(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    listing = Some((language, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => page.listings.extend(listing.take()),
                Event::Text(text) => {
                    if let Some((_, listing)) = &mut listing {
                        listing.push_str(&text);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                    page.words.push(text.to_string());
                }
                _ => {}
            }
        }
        page
    }

    /// Returns the path of a link from the root of the repository, and its anchor.
    pub(crate) fn resolve(&self, link: &str) -> (PathBuf, Option<String>) {
        let (path, anchor) = match link.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor.to_owned())),
            None => (link, None),
        };
        let mut resolved =
            if path.is_empty() { self.path.clone() } else { self.path.parent().unwrap().to_owned() };
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                assert!(resolved.pop(), "{link} in {} leads out of the repository", self.path.display());
            } else {
                resolved.push(part);
            }
        }
        (resolved, anchor)
    }
}

/// The anchor of a heading: lower case, no punctuation, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}
