//! An inherent `impl` lives in its type's own folder: in the module that defines the type, or in a module below it. A reader
//! of a type then finds all of its methods in one place, and its fields need not be visible to the whole crate.

use crate::sources::tree::{PACKAGE, Tree};

/// The `impl`s that still stand elsewhere, by file and type. This list only gets shorter.
const ABROAD: &[(&str, &str)] = &[];

/// The errors: an `impl` elsewhere that is not on the list, or an entry of the list without such an `impl`.
fn check(tree: &Tree, abroad: &[(&str, &str)]) -> Vec<String> {
    let mut report = Vec::new();
    let mut found = Vec::new();
    for (file, inherent) in tree.inherent() {
        let Some(home) = tree.home_of(file, inherent).filter(|home| !inherent.module.starts_with(home)) else { continue };
        let name = inherent.path.last().expect("a path has a name").as_str();
        found.push((file.name.as_str(), name));
        if !abroad.contains(&(file.name.as_str(), name)) {
            let home = home.join("::");
            report.push(format!("{}:{}: `impl {name}` belongs in `{home}` or a module below it", file.name, inherent.line));
        }
    }
    let stale = abroad.iter().filter(|entry| !found.contains(entry));
    report.extend(stale.map(|(file, name)| format!("{file}: no `impl {name}` stands there any more: take it off ABROAD")));
    report
}

#[test]
fn an_inherent_impl_lives_in_its_types_own_folder() {
    let report = check(&PACKAGE, ABROAD);
    assert!(report.is_empty(), "{} places:\n{}", report.len(), report.join("\n"));
}

/// `crate::a::Room` is defined in `a.rs`, `crate::b::Guest` in `b.rs`.
fn found(file: &str, source: &str) -> Vec<String> {
    let room = "pub struct Room<T>(T); pub mod inner { pub enum Door { Open } }";
    let texts = [("a.rs", room), ("b.rs", "pub struct Guest;"), ("c.rs", "pub use crate::a::Room as Chamber;"), (file, source)];
    check(&Tree::of(texts), &[])
}

#[track_caller]
fn refused(file: &str, source: &str, what: &str) {
    let found = found(file, source);
    assert!(found.len() == 1 && found[0].contains(what), "{source}\n{found:#?}");
}

#[track_caller]
fn allowed(file: &str, source: &str) {
    let found = found(file, source);
    assert!(found.is_empty(), "{source}\n{found:#?}");
}

#[test]
fn an_impl_elsewhere_is_found_however_it_is_written() {
    let what = "src/d.rs:1: `impl Room` belongs in `a` or a module below it";
    refused("d.rs", "use crate::a::Room; impl Room<u8> { fn f() {} }", what);
    refused("d.rs", "use super::a::{Room}; impl<T: Fn() -> u8> Room<T> where T: Copy {}", what);
    refused("d.rs", "use crate::a; impl<'x, T> a::Room<&'x T> {}", what);
    refused("d.rs", "#[cfg(unix)] impl<T> crate::a::Room<T> {}", what);
    refused("d.rs", "fn f() {} mod here { use crate::a::Room; impl Room<i8> {} }", what);
    refused("d.rs", "use crate::a::Room as Mine; impl Mine<u8> {}", "`impl Mine` belongs in `a`");
    refused("d.rs", "use crate::c::Chamber; impl Chamber<u8> {}", "`impl Chamber` belongs in `a`");
    refused("d.rs", "pub mod e; use crate::a::inner::Door; impl Door {}", "`impl Door` belongs in `a::inner`");
    refused("a2/b.rs", "struct Own; impl Own {} impl crate::b::Guest {}", "src/a2/b.rs:1: `impl Guest` belongs in `b`");
}

#[test]
fn an_impl_at_home_is_fine() {
    allowed("d.rs", "struct Own; impl Own {}");
    allowed("a/deep/er.rs", "use crate::a::Room; impl Room<u8> {}");
    allowed("a/deep.rs", "use super::inner::Door; use super::Room; impl Room<u8> {}");
    allowed("d.rs", "mod m { pub struct X; impl X {} }");
}

#[test]
fn what_is_no_inherent_impl_is_not_looked_at() {
    allowed("d.rs", "use crate::a::Room; impl<T> Clone for Room<T> {}");
    allowed("d.rs", "use crate::a::Room; impl<T> From<T> for Room<T> where T: for<'a> Fn(&'a u8) {}");
    allowed("d.rs", "fn f(x: impl Fn(crate::a::Room<u8>)) -> impl Iterator { x }");
    allowed("d.rs", "use crate::a::Room; #[cfg(test)] impl Room<u8> {} #[cfg(test)] mod tests { impl super::Room<i8> {} }");
    allowed("d.rs", "impl foreign::Room {} impl dyn Foreign {} impl [u8] {}");
    allowed("d.rs", "#[cfg(test)] mod proof;");
}

#[test]
fn an_entry_without_its_impl_is_an_error() {
    let tree = Tree::of([("a.rs", "pub struct Room;"), ("b.rs", "impl crate::a::Room {}")]);
    assert_eq!(check(&tree, &[("src/b.rs", "Room")]), <[String; 0]>::default());
    let report = check(&tree, &[("src/b.rs", "Room"), ("src/c.rs", "Room")]);
    assert_eq!(report, ["src/c.rs: no `impl Room` stands there any more: take it off ABROAD"]);
}
