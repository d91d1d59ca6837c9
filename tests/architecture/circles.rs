//! Files that need each other form a circle: none of them can be read, tested or changed alone. No circle has more than
//! [`FILES_MAX`] files, and each one that stays has its reason here.
//!
//! A file needs another one when it names an item of it, in a `use` or in a path; a name that is passed on by `pub use` counts
//! for the file that defines it. A module and the modules below it are one folder and may name each other freely, else each
//! folder would be a circle: such uses do not count, in neither direction.

use std::collections::BTreeSet;

use crate::sources::tree::{PACKAGE, Tree, Use};

/// Most files of a circle.
const FILES_MAX: usize = 3;

/// Most uses of one file by another that a message lists.
const SHOWN_MAX: usize = 3;

/// Circles that stay, and why. A circle must be one of them exactly.
const STAY: &[(&[&str], &str)] = &[
    (
        &["src/log/access.rs", "src/log/json.rs"],
        "a line of the access log is a format or JSON: `access` picks, `json` reads the same record",
    ),
    (
        &["src/net/listener.rs", "src/net/unix.rs"],
        "a listener carries the mark of its socket's file, and a listener is what binding to a path makes",
    ),
    (
        &["src/wsgi/failure.rs", "src/wsgi/timeout.rs"],
        "a deadline is an exception: its class is raised in `timeout`, and a traceback of it is told in `failure`",
    ),
    (
        &["src/wsgi/memo.rs", "src/wsgi/offers.rs", "src/wsgi/start_response.rs"],
        "one call of `start_response`: its arguments are compared in `memo`, and `offers` refuses as it does",
    ),
];

/// Files of the circles that still have more. A larger circle may have only files of one entry: the entries only get shorter.
const TO_OPEN: &[&[&str]] = &[];

/// The errors: a circle that no list allows, or an entry that is longer than necessary.
fn check(tree: &Tree, stay: &[(&[&str], &str)], to_open: &[&[&str]]) -> Vec<String> {
    let uses: Vec<Use> = tree.uses().into_iter().filter(|u| counts(tree, u)).collect();
    let circles = circles(tree.files.len(), &uses);
    let named: Vec<Vec<&str>> = circles.iter().map(|c| c.iter().map(|at| tree.files[*at].name.as_str()).collect()).collect();
    let mut report = Vec::new();
    for (circle, names) in circles.iter().zip(&named) {
        let stays = stay.iter().any(|(files, _)| files == names);
        let is_known = to_open.iter().any(|files| names.iter().all(|name| files.contains(name)));
        let fine = if names.len() > FILES_MAX { is_known } else { stays };
        if !fine {
            report.push(format!("{} files need each other: {}\n{}", names.len(), names.join(", "), edges(tree, circle, &uses)));
        }
    }
    for (files, _) in stay.iter().filter(|(files, _)| !named.iter().any(|names| names == files)) {
        report.push(format!("there is no such circle any more: take it off STAY: {}", files.join(", ")));
    }
    for file in to_open.iter().copied().flatten() {
        if !named.iter().any(|names| names.len() > FILES_MAX && names.contains(file)) {
            report.push(format!("{file} is in no circle of more than {FILES_MAX} files any more: take it off TO_OPEN"));
        }
    }
    report
}

/// Uses within a folder do not count.
fn counts(tree: &Tree, u: &Use) -> bool {
    let (from, to) = (&tree.files[u.from].module, &tree.files[u.to].module);
    !from.starts_with(to) && !to.starts_with(from)
}

/// The circles: sets of at least two files each of which needs, at some remove, all the others.
fn circles(files: usize, uses: &[Use]) -> Vec<Vec<usize>> {
    let mut needs = vec![BTreeSet::new(); files];
    for u in uses {
        needs[u.from].insert(u.to);
    }
    let reach: Vec<BTreeSet<usize>> = (0..files).map(|file| reachable(&needs, file)).collect();
    let mut circles = Vec::new();
    for (file, all) in reach.iter().enumerate() {
        let circle: Vec<usize> = all.iter().copied().filter(|other| reach[*other].contains(&file)).collect();
        // Each circle once, by its first file.
        if circle.len() > 1 && circle[0] == file {
            circles.push(circle);
        }
    }
    circles
}

fn reachable(needs: &[BTreeSet<usize>], file: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut next: Vec<usize> = needs[file].iter().copied().collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(&needs[file]);
        }
    }
    found
}

/// The uses that make this circle, one line for each pair of files.
fn edges(tree: &Tree, circle: &[usize], uses: &[Use]) -> String {
    let mut lines = Vec::new();
    for from in circle {
        for to in circle {
            let pair: Vec<&Use> = uses.iter().filter(|u| u.from == *from && u.to == *to).collect();
            if pair.is_empty() {
                continue;
            }
            let mut places: Vec<String> =
                pair.iter().take(SHOWN_MAX).map(|u| format!("`{}` in line {}", u.path.join("::"), u.line)).collect();
            if pair.len() > SHOWN_MAX {
                places.push(format!("{} more", pair.len() - SHOWN_MAX));
            }
            lines.push(format!("    {} needs {}: {}", tree.files[*from].name, tree.files[*to].name, places.join(", ")));
        }
    }
    lines.join("\n")
}

#[test]
fn no_circle_of_files_is_large_and_each_has_its_reason() {
    let report = check(&PACKAGE, STAY, TO_OPEN);
    assert!(report.is_empty(), "{} faults:\n{}", report.len(), report.join("\n"));
    assert!(STAY.iter().all(|(files, _)| files.len() <= FILES_MAX), "larger circles do not stay");
}

#[track_caller]
fn reported(texts: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(check(&Tree::of(texts.iter().copied()), &[], &[]), expected, "{texts:?}");
}

#[test]
fn a_circle_is_found_with_the_uses_that_make_it() {
    reported(
        &[("a.rs", "use crate::b::B;\nuse crate::outside::O;"), ("b.rs", "pub struct B(crate::a::A);"), ("outside.rs", "")],
        &["2 files need each other: src/a.rs, src/b.rs\n    \
           src/a.rs needs src/b.rs: `b::B` in line 1\n    \
           src/b.rs needs src/a.rs: `a::A` in line 1"],
    );
    reported(
        &[
            ("x/a.rs", "use super::b;\nfn f() { b::g() }\nfn g() { b::g() }\nfn h() { b::g() }"),
            ("x/b.rs", "use super::c::{self, C};"),
            ("x/c.rs", "fn f() { crate::x::a::f() }"),
            ("x/mod.rs", "mod a; mod b; mod c;"),
            ("y.rs", "use crate::x::a;"),
        ],
        &["3 files need each other: src/x/a.rs, src/x/b.rs, src/x/c.rs\n    \
           src/x/a.rs needs src/x/b.rs: `x::b` in line 1, `x::b::g` in line 2, `x::b::g` in line 3, 1 more\n    \
           src/x/b.rs needs src/x/c.rs: `x::c` in line 1\n    \
           src/x/c.rs needs src/x/a.rs: `x::a::f` in line 1"],
    );
}

#[test]
fn a_name_that_is_passed_on_counts_for_the_file_that_defines_it() {
    reported(
        &[
            ("door.rs", "mod lock; pub use lock::Lock;"),
            ("door/lock.rs", "use crate::key::Key; pub struct Lock;"),
            ("key.rs", "use crate::door::Lock; pub struct Key;"),
        ],
        &["2 files need each other: src/door/lock.rs, src/key.rs\n    \
           src/door/lock.rs needs src/key.rs: `key::Key` in line 1\n    \
           src/key.rs needs src/door/lock.rs: `door::lock::Lock` in line 1"],
    );
}

#[test]
fn a_folder_is_no_circle() {
    reported(
        &[("a.rs", "mod b; use b::B;"), ("a/b.rs", "use super::A; use crate::a::c::C;"), ("a/c.rs", "use super::super::A;")],
        &[],
    );
    reported(&[("a.rs", "use crate::b::B;"), ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; }")], &[]);
    reported(&[("a.rs", "use crate::b::B;"), ("b.rs", "use std::a::A; use foreign::a; fn f() { a::g() }")], &[]);
}

#[test]
fn an_entry_that_allows_too_much_is_an_error() {
    let ring = |n: usize| {
        let text = |at: usize| (format!("f{at}.rs"), format!("use crate::f{}::X;", (at + 1) % n));
        let texts: Vec<(String, String)> = (0..n).map(text).collect();
        Tree::of(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    };
    let four = ["src/f0.rs", "src/f1.rs", "src/f2.rs", "src/f3.rs"];
    let three = &four[..3];
    let none: [String; 0] = [];
    assert_eq!(check(&ring(4), &[], &[&four]), none);
    assert_eq!(check(&ring(3), &[(three, "because")], &[]), none);
    // No reason excuses a circle of more files.
    assert!(check(&ring(4), &[(&four, "because")], &[])[0].starts_with("4 files need each other"));
    assert!(check(&ring(3), &[], &[three])[0].starts_with("3 files need each other"));
    let report = check(&ring(3), &[(three, "because")], &[&four]);
    assert_eq!(report.len(), 4, "{report:?}");
    assert_eq!(report[0], "src/f0.rs is in no circle of more than 3 files any more: take it off TO_OPEN");
    let report = check(&ring(4), &[(three, "because")], &[&four]);
    assert_eq!(report, ["there is no such circle any more: take it off STAY: src/f0.rs, src/f1.rs, src/f2.rs"]);
}
