//! [`Suite`]: the promises of a binary's tests, read from their sources.

use std::{fmt, fs, path::Path};

use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

/// A binary of `tests/tests` with its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    name: String,
    promise: String,
    modules: Vec<Module>,
}

/// A module that has tests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    /// Its path, which is also a filter that chooses its tests.
    name: String,
    /// The first paragraph of its documentation.
    promise: String,
    tests: usize,
}

impl Suite {
    /// Reads the sources of a binary, module by module.
    ///
    /// # Errors
    /// Where a file cannot be read, or a module with tests promises nothing.
    pub fn read(name: &str) -> Result<Self, String> {
        let folder = format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut modules = Vec::new();
        let promise = read(Path::new(&folder), "main", "", &mut modules)?;
        Ok(Self { name: name.to_owned(), promise, modules })
    }

    fn tests(&self) -> usize {
        self.modules.iter().map(|module| module.tests).sum()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, promise, modules } = self;
        writeln!(f, "### `{name}`\n\n{promise} {} tests.\n", self.tests())?;
        writeln!(f, "| promise | module | tests |\n|---|---|---|")?;
        for Module { name, promise, tests } in modules {
            writeln!(f, "| {promise} | `{name}` | {tests} |")?;
        }
        writeln!(f)
    }
}

/// Reads a file and the files of its modules, whose names begin with `path`. Returns the file's promise.
fn read(folder: &Path, file: &str, path: &str, modules: &mut Vec<Module>) -> Result<String, String> {
    let source = folder.join(file).with_extension("rs");
    let problem = |problem: &dyn fmt::Display| format!("{}: {problem}", source.display());
    let text = fs::read_to_string(&source).map_err(|error| problem(&error))?;
    let syntax = syn::parse_file(&text).map_err(|error| problem(&error))?;
    let promise = first_paragraph(&syntax.attrs);
    let tests = count(&syntax.items);
    if tests > 0 {
        if promise.is_empty() || promise.contains('|') {
            return Err(problem(&"its first paragraph is no cell of a table"));
        }
        modules.push(Module { name: path.to_owned(), promise: promise.clone(), tests });
    }
    let inside = if file == "main" { folder.to_owned() } else { folder.join(file) };
    for item in &syntax.items {
        if let Item::Mod(module) = item
            && module.content.is_none()
        {
            let name = module.ident.to_string();
            let path = if path.is_empty() { name.clone() } else { format!("{path}::{name}") };
            read(&inside, &name, &path, modules)?;
        }
    }
    Ok(promise)
}

/// The number of functions with an attribute like `#[test]` or `#[tokio::test]`.
fn count(items: &[Item]) -> usize {
    let is_test = |attribute: &Attribute| {
        attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
    };
    let tests = items.iter().map(|item| match item {
        Item::Fn(function) => usize::from(function.attrs.iter().any(is_test)),
        Item::Mod(module) => module.content.as_ref().map_or(0, |(_, items)| count(items)),
        _ => 0,
    });
    tests.sum()
}

fn first_paragraph(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => Some(line.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
