//! Which files of a watched directory matter, by their names: pure.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What a change of a directory matters for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Modules are loaded from it.
    pub code: bool,
    /// All of its files matter: templates.
    pub all: bool,
    /// These files do.
    pub files: BTreeSet<OsString>,
}

/// Ends of the names of modules: what an application writes beside them at run time (databases, logs, uploads, `__pycache__`) has
/// others. Byte code follows the sources.
const CODE: [&[u8]; 2] = [b".py", b".so"];

/// Ends of the names of files that editors make for a moment.
const PASSING: [&[u8]; 7] = [b"~", b"#", b".swp", b".swx", b".tmp", b"___jb_tmp___", b"___jb_old___"];

/// The file that vim makes to see whether it can.
const VIM_TRIAL: &[u8] = b"4913";

impl Interest {
    /// Whether a change of this file matters.
    pub fn has(&self, name: &OsStr) -> bool {
        self.files.contains(name) || self.code && is_code(name) || self.all && !is_passing(name)
    }

    /// Takes in another one; whether that adds anything.
    pub fn add(&mut self, other: Self) -> bool {
        let before = (self.code, self.all, self.files.len());
        self.code |= other.code;
        self.all |= other.all;
        self.files.extend(other.files);
        before != (self.code, self.all, self.files.len())
    }
}

/// Whether a file with this name may be a module.
fn is_code(name: &OsStr) -> bool {
    let name = name.as_bytes();
    // Hidden ones are the marks and copies of editors (`.#app.py`).
    !name.starts_with(b".") && CODE.iter().any(|end| name.len() > end.len() && name.ends_with(end))
}

/// Whether a directory with this name may be a package.
pub fn is_package(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name != b"__pycache__" && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii())
}

/// Whether an editor makes a file with this name for a moment.
fn is_passing(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == VIM_TRIAL || matches!(name.first(), Some(b'.' | b'#')) || PASSING.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_matter_and_what_applications_write_does_not() {
        let code = Interest { code: true, ..Interest::default() };
        for name in ["app.py", "_speed.cpython-311-x86_64-linux-gnu.so", "ä.py"] {
            assert!(code.has(OsStr::new(name)), "{name}");
        }
        for name in
            ["db.sqlite3", "db.sqlite3-journal", "app.log", "upload.png", "app.pyc", ".#app.py", "app.py~", ".py", "app.py.swp"]
        {
            assert!(!code.has(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn all_templates_matter_but_for_those_of_a_moment() {
        let all = Interest { all: true, ..Interest::default() };
        assert!(all.has(OsStr::new("index.html")) && all.has(OsStr::new("mail.txt")));
        for name in ["index.html~", ".index.html.swp", "4913", "#index.html#", ".#index.html", "index.html___jb_tmp___"] {
            assert!(!all.has(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn interests_add_up() {
        let mut interest = Interest { code: true, ..Interest::default() };
        assert!(!interest.add(Interest { code: true, ..Interest::default() }));
        assert!(interest.add(Interest { files: [OsString::from("a.toml")].into(), ..Interest::default() }));
        assert!(interest.has(OsStr::new("a.toml")) && interest.has(OsStr::new("a.py")) && !interest.has(OsStr::new("b.toml")));
    }

    #[test]
    fn a_new_directory_may_be_a_package() {
        assert!(is_package(OsStr::new("shop")) && is_package(OsStr::new("größe")));
        assert!(!is_package(OsStr::new("__pycache__")) && !is_package(OsStr::new(".git")) && !is_package(OsStr::new("a-b")));
    }
}
