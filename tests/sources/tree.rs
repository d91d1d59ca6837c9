//! The crate as a whole: which file has a module, where a type is defined that a path names, and which files use which.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::LazyLock;

use super::items::{self, Definition, Inherent, Items};
use super::{Source, below, is_test_file, module_of};

/// Most steps from a name to its definition, `pub use` by `pub use`: a circle of them has to end.
const STEPS_MAX: usize = 16;

/// The tree of the package.
pub static PACKAGE: LazyLock<Tree> = LazyLock::new(Tree::of_package);

/// A source file.
pub struct File {
    /// As a message names it: `src/http/head.rs`.
    pub name: String,
    /// Its module without `crate`.
    pub module: Vec<String>,
    source: Source,
    items: Items,
}

/// A line of one file that needs another file.
pub struct Use {
    /// The file that needs, as an index.
    pub from: usize,
    /// The file that is needed.
    pub to: usize,
    pub line: usize,
    /// What is named, from the crate's root.
    pub path: Vec<String>,
}

/// All source files but those that are compiled for tests only.
pub struct Tree {
    pub files: Vec<File>,
    /// The file of each module that has one, by its path.
    modules: HashMap<Vec<String>, usize>,
    /// The modules of each type's name.
    types: HashMap<String, HashSet<Vec<String>>>,
}

impl Tree {
    fn of_package() -> Tree {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let read = |file: &PathBuf| {
            let relative = file.strip_prefix(&src).expect("it was found there");
            let text = fs::read_to_string(file).expect("sources are UTF-8");
            (!is_test_file(relative)).then(|| (relative.display().to_string(), text))
        };
        let texts: Vec<_> = below(&src).iter().filter_map(read).collect();
        assert!(texts.len() > 20, "the sources were not found");
        Tree::of(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// The tree of these texts; a name is the file's path below `src`.
    pub fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Tree {
        let mut files: Vec<File> = Vec::new();
        for (name, text) in texts {
            let module: Vec<String> = split(&module_of(Path::new(name)));
            let source = super::read(name, text, &module);
            let items = items::read(name, text, &module);
            files.push(File { name: format!("src/{name}"), module, source, items });
        }
        let for_tests: Vec<_> = files.iter().flat_map(|file| file.items.for_tests.clone()).collect();
        files.retain(|file| !for_tests.iter().any(|module| file.module.starts_with(module)));
        let modules = files.iter().enumerate().map(|(at, file)| (file.module.clone(), at)).collect();
        let mut types: HashMap<String, HashSet<Vec<String>>> = HashMap::new();
        for definition in files.iter().flat_map(|file| &file.items.definitions) {
            types.entry(definition.name.clone()).or_default().insert(definition.module.clone());
        }
        Tree { files, modules, types }
    }

    /// The types, with their files.
    pub fn definitions(&self) -> impl Iterator<Item = (&File, &Definition)> {
        self.files.iter().flat_map(|file| file.items.definitions.iter().map(move |d| (file, d)))
    }

    /// The `impl`s without a trait, with their files.
    pub fn inherent(&self) -> impl Iterator<Item = (&File, &Inherent)> {
        self.files.iter().flat_map(|file| file.items.inherent.iter().map(move |i| (file, i)))
    }

    /// The module that defines the type of this `impl`, when it is a type of the crate.
    pub fn home_of(&self, file: &File, inherent: &Inherent) -> Option<Vec<String>> {
        let full = self.follow(file, &inherent.module, &inherent.path);
        let (name, module) = full.split_last()?;
        self.types.get(name)?.contains(module).then(|| module.to_vec())
    }

    /// The uses between files, each once per line and file.
    pub fn uses(&self) -> Vec<Use> {
        let mut uses = BTreeMap::new();
        for (from, file) in self.files.iter().enumerate() {
            for mention in &file.source.mentions {
                let path = self.follow(file, &file.module, &mention.path);
                let to = (1..=path.len()).rev().find_map(|len| self.modules.get(&path[..len]));
                if let Some(&to) = to
                    && to != from
                {
                    uses.entry((from, to, mention.line)).or_insert(path);
                }
            }
        }
        uses.into_iter().map(|((from, to, line), path)| Use { from, to, line, path }).collect()
    }

    /// The full path, without `crate`, of what a path names in this module: names that a `use` brought in are replaced by
    /// what they stand for, in the module itself and in each that passes them on. A path of another crate becomes one of this
    /// module that names nothing.
    fn follow(&self, file: &File, module: &[String], path: &[String]) -> Vec<String> {
        let mut full: Vec<String> = match path {
            [first, rest @ ..] if first == "crate" => rest.to_vec(),
            [first, ..] => {
                let inline = self.types.get(first).is_some_and(|modules| modules.contains(module));
                let place = if inline { module } else { &file.module };
                place.iter().chain(path).cloned().collect()
            }
            [] => return Vec::new(),
        };
        for _ in 0..STEPS_MAX {
            let Some(next) = self.step(&full) else { break };
            full = next;
        }
        full
    }

    /// The path one `use` nearer to the definition.
    fn step(&self, full: &[String]) -> Option<Vec<String>> {
        let len = (0..full.len()).rev().find(|len| self.modules.contains_key(&full[..*len]))?;
        let (module, rest) = full.split_at(len);
        let (first, rest) = rest.split_first()?;
        let alias = self.files[self.modules[module]].source.aliases.get(first)?;
        let next: Vec<String> = match alias.as_slice() {
            [root, alias @ ..] if root == "crate" => alias.iter().chain(rest).cloned().collect(),
            // `pub use reading::Reading` names a module below.
            [child, ..] if self.modules.contains_key(&[module, slice::from_ref(child)].concat()) => {
                module.iter().chain(alias).chain(rest).cloned().collect()
            }
            _ => return None,
        };
        (next != full).then_some(next)
    }
}

/// The names of a module path.
pub fn split(path: &str) -> Vec<String> {
    path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
