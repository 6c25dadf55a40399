//! The modules of each crate import each other in one direction only.
//!
//! A module is a file. It imports another one if a `use` or a path in it names an item of the other, resolved through
//! all re-exports on the way. Test modules do not count, nor does the crate's root, which exports all.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ImplItemFn, ItemFn, ItemImpl, ItemMod, ItemUse, Macro, UseTree,
    visit::{self, Visit},
};

/// A path of names from the crate's root.
type Names = Vec<String>;

/// For each module, the modules that it imports and the names that it imports from them.
type Imports = BTreeMap<Names, BTreeMap<Names, BTreeSet<String>>>;

/// The modules of a crate, including those within files.
#[derive(Default)]
struct Crate(BTreeMap<Names, Module>);

#[derive(Default)]
struct Module {
    /// The module that is the file.
    file: Names,
    /// The target of each imported or exported name; `None` if it is in another crate.
    names: HashMap<String, Option<Names>>,
    /// All paths that lead to items of the crate.
    paths: Vec<Names>,
}

impl Crate {
    /// Reads all modules except tests, starting at the root. `read` returns the text of a file below `src`.
    fn parse(read: &impl Fn(&str) -> Option<String>) -> Self {
        let mut this = Self::default();
        let root = read("lib.rs").or_else(|| read("main.rs"));
        this.parse_file(Names::new(), &root.unwrap(), read);
        this
    }

    fn parse_file(&mut self, module: Names, text: &str, read: &impl Fn(&str) -> Option<String>) {
        let mut reader =
            Reader { modules: self, file: module.clone(), module: module.clone(), files: Vec::new() };
        reader.modules.0.insert(module.clone(), Module { file: module, ..Module::default() });
        reader.visit_file(&syn::parse_file(text).unwrap());
        for child in reader.files {
            let path = child.join("/");
            let text = read(&format!("{path}.rs")).or_else(|| read(&format!("{path}/mod.rs")));
            self.parse_file(child, &text.unwrap(), read);
        }
    }

    /// The module that contains the item of a path; `None` in another crate.
    fn resolve(&self, path: &[String]) -> Option<&Module> {
        let mut module = Names::new();
        for (index, name) in path.iter().enumerate() {
            module.push(name.clone());
            if self.0.contains_key(&module) {
                continue;
            }
            module.pop();
            return match self.0[&module].names.get(name) {
                // A module's own child, used by its name, is found above.
                Some(Some(target)) if target.as_slice() != path => {
                    self.resolve(&[target, &path[index + 1..]].concat())
                }
                Some(None) => None,
                _ => self.0.get(&module),
            };
        }
        self.0.get(&module)
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for module in self.0.values().filter(|module| !module.file.is_empty()) {
            for path in &module.paths {
                let Some(Module { file, .. }) = self.resolve(path) else { continue };
                if !file.is_empty() && *file != module.file {
                    let of_module = imports.entry(module.file.clone()).or_default();
                    of_module.entry(file.clone()).or_default().insert(path.last().unwrap().clone());
                }
            }
        }
        imports
    }
}

/// Finds the imports of one module and of the modules within it.
struct Reader<'a> {
    modules: &'a mut Crate,
    file: Names,
    module: Names,
    /// The children that are files.
    files: Vec<Names>,
}

impl Reader<'_> {
    fn module(&mut self) -> &mut Module {
        self.modules.0.get_mut(&self.module).unwrap()
    }

    /// The absolute path from the crate's root; `None` if it leads to another crate.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let (base, rest) = match path[0].as_str() {
            "crate" => (Names::new(), &path[1..]),
            "self" => (self.module.clone(), &path[1..]),
            "super" => (self.module[..self.module.len() - ups].to_vec(), &path[ups..]),
            first => {
                let child = [self.module.as_slice(), &[first.to_owned()]].concat();
                if self.modules.0.contains_key(&child) || self.files.contains(&child) {
                    (self.module.clone(), path)
                } else if first.starts_with(char::is_lowercase) {
                    // It may be a module that was imported.
                    (self.modules.0[&self.module].names.get(first)?.clone()?, &path[1..])
                } else {
                    return None;
                }
            }
        };
        Some([base.as_slice(), rest].concat())
    }

    fn add(&mut self, path: &[String]) {
        if let Some(path) = self.absolute(path) {
            self.module().paths.push(path);
        }
    }

    fn add_use(&mut self, tree: &UseTree, before: &Names) {
        let with = |name: &syn::Ident| [before.as_slice(), &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.add_use(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => return group.items.iter().for_each(|tree| self.add_use(tree, before)),
            UseTree::Name(name) if name.ident == "self" => (before.clone(), before.last().cloned()),
            UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
            _ => (before.clone(), None),
        };
        self.add(&path);
        if let Some(name) = name {
            let target = self.absolute(&path);
            self.module().names.insert(name, target);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // A child may be used above the line that declares it.
        for item in &file.items {
            if let syn::Item::Mod(module) = item
                && !is_test(&module.attrs)
                && module.content.is_none()
            {
                self.files.push([self.module.as_slice(), &[module.ident.to_string()]].concat());
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_test(&module.attrs) || module.content.is_none() {
            return;
        }
        self.module.push(module.ident.to_string());
        let inner = Module { file: self.file.clone(), ..Module::default() };
        self.modules.0.insert(self.module.clone(), inner);
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            self.add_use(&item.tree, &Names::new());
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.add(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        // Its tokens may be anything; a sequence that begins like a path of this crate counts as one.
        let text = item.tokens.to_string().replace("::", " :: ");
        let words: Vec<&str> =
            text.split(|c: char| c.is_whitespace() || "(){}[],;&*<>!?.=|".contains(c)).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        for (index, word) in words.iter().enumerate() {
            let is_first = index == 0 || words[index - 1] != "::";
            if is_first && ["crate", "self", "super"].contains(word) {
                let rest = words[index + 1..].chunks(2).take_while(|pair| pair.len() == 2 && pair[0] == "::");
                let names: Names =
                    [*word].into_iter().chain(rest.map(|pair| pair[1])).map(str::to_owned).collect();
                if names.len() > 1 {
                    self.add(&names);
                }
            }
        }
        visit::visit_macro(self, item);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let cfgs = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let mut texts = cfgs.map(|cfg| cfg.meta.require_list().unwrap().tokens.to_string().replace(' ', ""));
    texts.any(|text| {
        text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test") && !text.contains("not(test")
    })
}

/// Every circle: its modules, and the names that they import from each other.
fn circles(imports: &Imports) -> Vec<String> {
    let reach = |from: &Names| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = left.pop() {
            for next in imports.get(&module).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&Names, _> = imports.keys().map(|module| (module, reach(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, to) in &reached {
        if to.contains(*module) {
            let same =
                to.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)));
            circles.insert(same.collect::<BTreeSet<_>>());
        }
    }
    let tell = |circle: &BTreeSet<&Names>| {
        let mut text = format!("a circle of {} modules\n", circle.len());
        for module in circle {
            for (other, names) in imports[*module].iter().filter(|(other, _)| circle.contains(other)) {
                text += &format!("    {} -> {}: {names:?}\n", module.join("/"), other.join("/"));
            }
        }
        text
    };
    circles.iter().map(tell).collect()
}

/// The sources of this crate, and in the workspace of all others.
fn sources() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [own.join(".."), own.join("../../apps")];
    let entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
    let is_crate = |src: &PathBuf| src.join("lib.rs").exists() || src.join("main.rs").exists();
    let others = entries.map(|entry| entry.path().join("src")).filter(is_crate);
    let others = others.filter(|src| src.canonicalize().ok() != own.join("src").canonicalize().ok());
    [own.join("src")].into_iter().chain(others).collect()
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    for (index, src) in sources().into_iter().enumerate() {
        let modules = Crate::parse(&|path| fs::read_to_string(src.join(path)).ok());
        let imports = modules.imports();
        assert!(index > 0 || imports.len() > 20, "too few imports are found: {imports:?}");
        let circles = circles(&imports);
        assert!(circles.is_empty(), "{}: {}", src.display(), circles.join("\n"));
    }
}

#[test]
fn a_circle_through_re_exports_paths_and_macros_is_found() {
    let files = [
        ("lib.rs", "mod low; mod mid; mod top; pub use mid::Renamed; pub use top::Top;"),
        (
            "low.rs",
            "use std::fmt; use crate::Renamed; pub mod child; #[cfg(test)] mod tests { use crate::Top; }",
        ),
        ("low/child.rs", "use super::fmt; pub struct Child;"),
        (
            "mid.rs",
            "mod inner { use super::Mid; } pub use inner::X as Renamed; fn f() { tell!(crate::top::Top) }",
        ),
        ("top.rs", "use crate::low; fn f(_: low::child::Child) {}"),
    ];
    let read = |path: &str| Some(files.iter().find(|(name, _)| *name == path)?.1.to_owned());
    let found = circles(&Crate::parse(&read).imports());
    let expected = "a circle of 3 modules\n    low -> mid: {\"Renamed\"}\n    mid -> top: {\"Top\"}\n    top -> low: {\"low\"}\n";
    assert_eq!(found, [expected]);
    let open =
        |path: &str| if path == "mid.rs" { Some("pub struct Renamed;".to_owned()) } else { read(path) };
    assert_eq!(circles(&Crate::parse(&open).imports()), Vec::<String>::new());
}
