//! One name, one type: a struct, enum, union, trait or `type` has its name for itself in the whole crate, so that a line of code
//! says which it means wherever it stands.

use std::collections::BTreeMap;

use crate::sources::tree::{PACKAGE, Tree};

/// Names that several types have for good, and why.
const SHARED: &[(&str, &str)] =
    &[("Error", "the idiom of the standard library: each is named with its module, as `io::Error` and `fmt::Error` are")];

/// Names that are still used more than once, with all their files. This list only gets shorter.
const TWICE: &[(&str, &[&str])] = &[];

/// The errors: a name that several types have and no list allows, or an entry that is longer than necessary.
fn check(tree: &Tree, shared: &[(&str, &str)], twice: &[(&str, &[&str])]) -> Vec<String> {
    // By module: the variants of one type under different `cfg`s are one type.
    let mut types: BTreeMap<&str, BTreeMap<&[String], (&str, String)>> = BTreeMap::new();
    for (file, definition) in tree.definitions() {
        let place = format!("{} at {}:{}", definition.kind, file.name, definition.line);
        types.entry(&definition.name).or_default().entry(&definition.module).or_insert((&file.name, place));
    }
    types.retain(|_, modules| modules.len() > 1);
    let mut report = Vec::new();
    for (name, modules) in types.iter().filter(|(name, _)| !shared.iter().any(|(known, _)| known == *name)) {
        let known = twice.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, files)| *files);
        if !modules.values().all(|(file, _)| known.contains(file)) {
            let places: Vec<&str> = modules.values().map(|(_, place)| place.as_str()).collect();
            report.push(format!("`{name}` is the name of {} types: {}", places.len(), places.join(", ")));
        }
    }
    for (name, _) in shared.iter().filter(|(name, _)| !types.contains_key(name)) {
        report.push(format!("`{name}` is no longer the name of several types: take it off SHARED"));
    }
    for (name, files) in twice {
        let still = |file: &&str| types.get(name).is_some_and(|modules| modules.values().any(|(there, _)| there == file));
        for file in files.iter().filter(|file| !still(file)) {
            report.push(format!("`{name}` of {file} is gone, or alone: take it off TWICE"));
        }
    }
    report
}

#[test]
fn no_two_types_have_one_name() {
    let report = check(&PACKAGE, SHARED, TWICE);
    assert!(report.is_empty(), "{} names:\n{}", report.len(), report.join("\n"));
}

#[track_caller]
fn reported(texts: &[(&str, &str)], twice: &[(&str, &[&str])], expected: &[&str]) {
    assert_eq!(check(&Tree::of(texts.iter().copied()), &[], twice), expected, "{texts:?}");
}

#[test]
fn a_name_that_two_types_have_is_found() {
    reported(
        &[("a.rs", "pub struct Slot;"), ("b/c.rs", "\nenum Slot { A }"), ("d.rs", "struct Alone;")],
        &[],
        &["`Slot` is the name of 2 types: struct at src/a.rs:1, enum at src/b/c.rs:2"],
    );
    reported(
        &[
            ("a.rs", "trait T {} mod inner { pub(super) type T<'a> = &'a u8; } union U { a: u8 }"),
            ("b.rs", "m! { struct U { } }"),
        ],
        &[],
        &[
            "`T` is the name of 2 types: trait at src/a.rs:1, type at src/a.rs:1",
            "`U` is the name of 2 types: union at src/a.rs:1, struct at src/b.rs:1",
        ],
    );
}

#[test]
fn what_is_no_second_type_is_not_found() {
    reported(&[("a.rs", "#[cfg(unix)] struct A; #[cfg(not(unix))] struct A(u8);"), ("b.rs", "pub use crate::a::A;")], &[], &[]);
    reported(
        &[("a.rs", "struct A; #[cfg(test)] mod tests { struct A; }"), ("b.rs", "#[cfg(test)] struct A; fn f() {}")],
        &[],
        &[],
    );
    reported(
        &[("a.rs", "impl I for X { type A = u8; } trait I { type A; }"), ("b.rs", "struct A; fn f() { struct B; }")],
        &[],
        &[],
    );
    reported(&[("lib.rs", "#[cfg(test)] mod proof;"), ("proof.rs", "struct A;"), ("b.rs", "struct A;")], &[], &[]);
}

#[test]
fn an_entry_that_allows_too_much_is_an_error() {
    let two = [("a.rs", "struct A;"), ("b.rs", "struct A;")];
    reported(&two, &[("A", &["src/a.rs", "src/b.rs"])], &[]);
    let gone = ["`A` of src/c.rs is gone, or alone: take it off TWICE"];
    reported(&two, &[("A", &["src/a.rs", "src/b.rs", "src/c.rs"])], &gone);
    let third = [two[0], two[1], ("d.rs", "struct A;")];
    let found = "`A` is the name of 3 types: struct at src/a.rs:1, struct at src/b.rs:1, struct at src/d.rs:1";
    reported(&third, &[("A", &["src/a.rs", "src/b.rs"])], &[found]);
    let tree = Tree::of([("a.rs", "struct Error;")]);
    assert_eq!(check(&tree, SHARED, &[]), ["`Error` is no longer the name of several types: take it off SHARED"]);
}
