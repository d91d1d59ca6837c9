//! The sources of the crate, read as tokens: which paths a file names and where it has unsafe code; in `items` the types that it
//! defines, in `tree` all files together.
//!
//! Each path is resolved to its full name: `use` trees are flattened, `self` and `super` counted from the file's place, and
//! names that a `use` brought in replaced by what they stand for.

pub mod items;
pub mod tree;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// A path that the file names, resolved as far as the file shows.
pub struct Mention {
    pub line: usize,
    /// At least one name.
    pub path: Vec<String>,
    /// Whether a `use` names it.
    pub import: bool,
}

/// What a file names.
pub struct Source {
    pub mentions: Vec<Mention>,
    /// Lines with unsafe code.
    pub unsafes: Vec<usize>,
    /// Names that a `use` brought in, and what they stand for.
    pub aliases: HashMap<String, Vec<String>>,
}

/// Reads a source text; `module` is its path without `crate`.
pub fn read(file: &str, source: &str, module: &[String]) -> Source {
    let tokens = TokenStream::from_str(source).unwrap_or_else(|e| panic!("{file} cannot be read: {e}"));
    let mut reader = Reader::default();
    reader.read(tokens, module, false);
    reader.expand();
    Source { mentions: reader.mentions, unsafes: reader.unsafes, aliases: reader.aliases }
}

/// The source files below a folder, in order.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    files
}

/// The module path of a file below `src`: `http/mod.rs` is `http`; `lib.rs` and `main.rs` are the root.
pub fn module_of(relative: &Path) -> String {
    let text = relative.with_extension("").to_string_lossy().replace('/', "::");
    match text.as_str() {
        "lib" | "main" => String::new(),
        other => other.strip_suffix("::mod").unwrap_or(other).to_owned(),
    }
}

/// Files that are compiled only for tests: `x_tests.rs` beside `x.rs`, `tests.rs`, and folders `tests`.
pub fn is_test_file(relative: &Path) -> bool {
    let stem = relative.file_stem().unwrap_or_default().to_string_lossy();
    stem.ends_with("_tests") || relative.with_extension("").components().any(|c| c.as_os_str() == "tests")
}

/// The dependencies of the package as the sources name them.
pub fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    let section = |name: &str| manifest.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    section("dependencies").keys().map(|name| name.replace('-', "_")).collect()
}

/// Reads the paths and the unsafe code out of a file's tokens.
#[derive(Default)]
struct Reader {
    mentions: Vec<Mention>,
    unsafes: Vec<usize>,
    /// Names that a `use` brought in, and what they stand for.
    aliases: HashMap<String, Vec<String>>,
}

impl Reader {
    /// `tested`: inside `#[cfg(test)]`, where only unsafe code is looked for.
    fn read(&mut self, tokens: TokenStream, module: &[String], tested: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        // From `#[cfg(test)]` to the end of the item after it.
        let mut test_item = false;
        while at < tokens.len() {
            let skip = tested || test_item;
            match &tokens[at] {
                TokenTree::Punct(p) if p.as_char() == ';' => test_item = false,
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                TokenTree::Group(g) => {
                    if g.delimiter() == Delimiter::Bracket && is_punct(at.checked_sub(1).map(|i| &tokens[i]), '#') {
                        test_item |= is_cfg_test(g.stream());
                    }
                    self.read(g.stream(), &inline_module(&tokens[..at], module), skip);
                    test_item &= g.delimiter() != Delimiter::Brace;
                }
                TokenTree::Ident(ident) if *ident == "unsafe" => self.unsafes.push(line(ident)),
                // `use<'a>` is a bound, not an import.
                TokenTree::Ident(ident) if *ident == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let rest = &tokens[at + 1..];
                    let len = rest.iter().position(|t| is_punct(Some(t), ';')).unwrap_or(rest.len());
                    if !skip {
                        self.import(&rest[..len], &[], module);
                    }
                    at += len;
                }
                TokenTree::Ident(ident) if starts_path(&tokens[..at]) => {
                    let path = path_at(&tokens[at..]);
                    // A path of n names takes n - 1 separators of two tokens each.
                    at += (path.len() - 1) * 3;
                    if !skip && path.len() > 1 {
                        self.mentions.push(Mention { line: line(ident), path: resolve(&path, module), import: false });
                    }
                }
                TokenTree::Ident(_) => {}
            }
            at += 1;
        }
    }

    /// Flattens a `use` tree.
    fn import(&mut self, tree: &[TokenTree], prefix: &[String], module: &[String]) {
        let mut path = prefix.to_vec();
        let mut alias = None;
        let mut at_line = 0;
        for (at, token) in tree.iter().enumerate() {
            match token {
                TokenTree::Ident(ident) if *ident == "as" => {
                    alias = tree.get(at + 1).map(TokenTree::to_string);
                    break;
                }
                TokenTree::Ident(ident) => {
                    at_line = line(ident);
                    path.push(ident.to_string());
                }
                TokenTree::Group(g) => {
                    let inner: Vec<TokenTree> = g.stream().into_iter().collect();
                    for branch in inner.split(|t| is_punct(Some(t), ',')).filter(|b| !b.is_empty()) {
                        self.import(branch, &path, module);
                    }
                    return;
                }
                TokenTree::Punct(p) if p.as_char() == '*' => {
                    at_line = p.span().start().line;
                    path.push("*".into());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let full = resolve(&path, module);
        if let Some(name) = alias.or_else(|| path.last().cloned()) {
            self.aliases.insert(name, full.clone());
        }
        self.mentions.push(Mention { line: at_line, path: full, import: true });
    }

    /// Replaces the names that a `use` brought in by what they stand for.
    fn expand(&mut self) {
        for mention in self.mentions.iter_mut().filter(|m| !m.import) {
            if let Some(full) = self.aliases.get(&mention.path[0]) {
                mention.path.splice(..1, full.iter().cloned());
            }
        }
    }
}

fn line(ident: &Ident) -> usize {
    ident.span().start().line
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == wanted)
}

/// `cfg(test)`, also as `cfg(all(test, ...))`, but not `cfg(not(test))`.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The module that a group opens, when the tokens before it are `mod name`.
fn inline_module(before: &[TokenTree], module: &[String]) -> Vec<String> {
    let mut inner = module.to_vec();
    if let [.., TokenTree::Ident(keyword), TokenTree::Ident(name)] = before
        && keyword == "mod"
    {
        inner.push(name.to_string());
    }
    inner
}

/// Whether a name after these tokens starts a path: it is no field, method or later segment.
fn starts_path(before: &[TokenTree]) -> bool {
    let back = |n: usize| before.len().checked_sub(n).map(|i| &before[i]);
    if is_punct(back(1), ':') && is_punct(back(2), ':') {
        // `::std::io` starts one; `x::<T>::y` and `<T>::y` have started before.
        let arrow = is_punct(back(4), '-');
        !matches!(back(3), Some(TokenTree::Ident(_))) && (arrow || !is_punct(back(3), '>'))
    } else {
        // `a..b::c` starts one, `a.b` does not.
        !is_punct(back(1), '.') || is_punct(back(2), '.')
    }
}

/// The names of the path that starts here.
fn path_at(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = vec![tokens[0].to_string()];
    let mut rest = &tokens[1..];
    while let [a, b, TokenTree::Ident(name), later @ ..] = rest
        && is_punct(Some(a), ':')
        && is_punct(Some(b), ':')
    {
        path.push(name.to_string());
        rest = later;
    }
    path
}

/// Counts `self::` and `super::` from the module's place; other paths stay.
fn resolve(path: &[String], module: &[String]) -> Vec<String> {
    let relative = path.iter().take_while(|s| *s == "self" || *s == "super").count();
    if relative == 0 {
        return path.to_vec();
    }
    let up = path.iter().filter(|s| *s == "super").count();
    let base = &module[..module.len().saturating_sub(up)];
    ["crate".to_owned()].iter().chain(base).chain(&path[relative..]).cloned().collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}
