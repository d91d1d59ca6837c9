//! The items of a file that stand at the level of a module: the types that it defines, and the inherent `impl`s. The inside of a
//! function is not read.

use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{inline_module, is_cfg_test, is_punct, line, path_at, resolve};

/// A type that a file defines: a struct, an enum, a union, a trait or a name for another type.
pub struct Definition {
    pub line: usize,
    /// The keyword that defines it.
    pub kind: String,
    pub name: String,
    /// The module in which it stands, an inline one too, without `crate`.
    pub module: Vec<String>,
}

/// An `impl` without a trait.
pub struct Inherent {
    pub line: usize,
    /// The type as it is written there, `self` and `super` counted.
    pub path: Vec<String>,
    /// The module in which it stands.
    pub module: Vec<String>,
}

/// What a file has at the level of its modules, without what is compiled for tests only.
#[derive(Default)]
pub struct Items {
    pub definitions: Vec<Definition>,
    pub inherent: Vec<Inherent>,
    /// Modules that are compiled for tests only and have files of their own.
    pub for_tests: Vec<Vec<String>>,
}

/// Reads a source text; `module` is its path without `crate`.
pub fn read(file: &str, source: &str, module: &[String]) -> Items {
    let tokens = TokenStream::from_str(source).unwrap_or_else(|e| panic!("{file} cannot be read: {e}"));
    let mut items = Items::default();
    items.read(tokens, module);
    items
}

impl Items {
    fn read(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        // From `#[cfg(test)]` to the end of the item after it.
        let mut tested = false;
        for (at, token) in tokens.iter().enumerate() {
            let before = &tokens[..at];
            match token {
                TokenTree::Punct(p) if p.as_char() == ';' => tested = false,
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                TokenTree::Group(g) if g.delimiter() == Delimiter::Brace => {
                    if !tested && (opens_module(before) || is_macro_call(before)) {
                        self.read(g.stream(), &inline_module(before, module));
                    }
                    tested = false;
                }
                TokenTree::Group(g) => {
                    let attribute = g.delimiter() == Delimiter::Bracket && is_punct(before.last(), '#');
                    tested |= attribute && is_cfg_test(g.stream());
                }
                TokenTree::Ident(keyword) if tested => {
                    if let [TokenTree::Ident(name), semicolon, ..] = &tokens[at + 1..]
                        && *keyword == "mod"
                        && is_punct(Some(semicolon), ';')
                    {
                        self.for_tests.push(module.iter().cloned().chain([name.to_string()]).collect());
                    }
                }
                TokenTree::Ident(keyword) if *keyword == "impl" && begins_item(before) => {
                    if let Some(path) = inherent_type(&tokens[at + 1..]) {
                        let path = resolve(&path, module);
                        self.inherent.push(Inherent { line: line(keyword), path, module: module.to_vec() });
                    }
                }
                TokenTree::Ident(keyword) => {
                    let kind = keyword.to_string();
                    let defines = ["struct", "enum", "union", "trait", "type"].contains(&kind.as_str());
                    if let Some(TokenTree::Ident(name)) = tokens.get(at + 1)
                        && defines
                    {
                        let (line, name) = (line(name), name.to_string());
                        self.definitions.push(Definition { line, kind, name, module: module.to_vec() });
                    }
                }
            }
        }
    }
}

fn opens_module(before: &[TokenTree]) -> bool {
    matches!(before, [.., TokenTree::Ident(keyword), TokenTree::Ident(_)] if keyword == "mod")
}

/// `name! { .. }`: what it holds may be items.
fn is_macro_call(before: &[TokenTree]) -> bool {
    is_punct(before.last(), '!')
}

/// Whether an `impl` after these tokens is an item: `-> impl Trait` and `x: impl Trait` are not.
fn begins_item(before: &[TokenTree]) -> bool {
    match before.last() {
        None => true,
        Some(TokenTree::Punct(p)) => p.as_char() == ';',
        Some(TokenTree::Group(g)) => g.delimiter() != Delimiter::Parenthesis,
        Some(TokenTree::Ident(word)) => *word == "unsafe" || *word == "default",
        Some(TokenTree::Literal(_)) => false,
    }
}

/// The type of an inherent `impl`, from the tokens after the keyword; `None` where a trait is implemented, and for a type
/// that has no path.
fn inherent_type(tokens: &[TokenTree]) -> Option<Vec<String>> {
    let len = tokens.iter().position(is_body).unwrap_or(tokens.len());
    let header = &tokens[..len];
    // `for<'a>` is a bound, `for T` is not.
    let trait_for = |(at, token): (usize, &TokenTree)| is_word(token, "for") && !is_punct(header.get(at + 1), '<');
    let wheres = header.iter().position(|t| is_word(t, "where")).unwrap_or(len);
    let header = &header[..wheres];
    if header.iter().enumerate().any(trait_for) {
        return None;
    }
    let own = &header[generics(header)..];
    let path = match own {
        // `crate::a::B`, `::a::B` and `B`.
        [TokenTree::Ident(_), ..] => path_at(own),
        _ => return None,
    };
    (path[0] != "dyn").then_some(path)
}

/// How many tokens the parameters `<..>` at the front take.
fn generics(tokens: &[TokenTree]) -> usize {
    if !is_punct(tokens.first(), '<') {
        return 0;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        let arrow = is_punct(at.checked_sub(1).map(|i| &tokens[i]), '-');
        match token {
            TokenTree::Punct(p) if p.as_char() == '<' => depth += 1,
            TokenTree::Punct(p) if p.as_char() == '>' && !arrow => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn is_body(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace)
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if *ident == word)
}
