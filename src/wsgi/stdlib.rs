//! The modules that the server needs of Python's standard library. A project may have files of the same names (`token.py`,
//! `traceback.py`), which come first on `sys.path`.
//!
//! Importing all of it at every start would cost half as much again as the start of a small application. So the project's
//! directories are listed before they are on the path. As a rule no name of the library is there, and a module is imported when a
//! case needs it. Otherwise all are imported at once, with the library's path alone, and kept here. The names that the project
//! has are removed from `sys.modules`, so that the project's imports find its own modules, as without the server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

/// All modules that any part of the server may need, now or later; they bring the modules that they import.
const NEEDED: [&str; 10] = [
    "threading",
    "linecache",
    "tokenize",
    "traceback",
    "inspect",
    "ast",
    "difflib",
    "json",
    "importlib.util",
    "importlib.machinery",
];

/// Name in `sys.modules` of the module whose dict has the modules that are kept.
const KEPT: &str = "tapster_stdlib";

/// Ensures that the server finds its modules when these directories are on the path. Call it before that, and before code of the
/// project runs.
pub fn keep(py: Python<'_>, project: &[PathBuf]) -> PyResult<()> {
    let sys = py.import("sys")?;
    if sys.getattr("modules")?.contains(KEPT)? {
        return Ok(());
    }
    let file: PathBuf = py.import("os")?.getattr("__file__")?.extract()?;
    let library = file.parent().unwrap_or(Path::new("/"));
    let path = sys.getattr("path")?.cast_into::<PyList>()?;
    let entries: Vec<PathBuf> = path.iter().filter_map(|entry| entry.extract().ok()).collect();
    // PYTHONPATH is before the library as well.
    let first = entries.iter().position(|entry| entry == library).unwrap_or(0);
    let mut names = BTreeSet::new();
    for directory in project.iter().chain(&entries[..first]) {
        find(directory, &mut names);
    }
    let known = sys.getattr_opt("stdlib_module_names")?;
    let mut shadowed = BTreeSet::new();
    for name in names {
        let is_known = match &known {
            Some(known) => known.contains(&name)?,
            None => library.join(format!("{name}.py")).exists() || library.join(&name).join("__init__.py").exists(),
        };
        if is_known {
            shadowed.insert(name);
        }
    }
    if shadowed.is_empty() {
        return Ok(());
    }
    sys.setattr("path", path.get_slice(first, path.len()))?;
    let kept = import_all(py);
    sys.setattr("path", &path)?;
    let (kept, new) = kept?;
    let modules = sys.getattr("modules")?.cast_into::<PyDict>()?;
    for name in new {
        if name.split('.').next().is_some_and(|top| shadowed.contains(top)) {
            modules.del_item(name)?;
        }
    }
    modules.set_item(KEPT, kept)
}

/// The names of modules that a directory has.
fn find(directory: &Path, names: &mut BTreeSet<String>) {
    // A directory that cannot be read has none for Python either.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        match name.split_once('.') {
            // `name.py`, `name.cpython-311-x86_64-linux-gnu.so`
            Some((stem, rest)) if rest == "py" || rest.ends_with("so") => _ = names.insert(stem.to_owned()),
            None if entry.path().join("__init__.py").exists() => _ = names.insert(name.to_owned()),
            Some(_) | None => {}
        }
    }
}

/// Imports all that is needed: returns a module that has all of it, and the names that are new in `sys.modules`.
fn import_all(py: Python<'_>) -> PyResult<(Bound<'_, PyModule>, Vec<String>)> {
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    let names = || -> PyResult<BTreeSet<String>> { modules.keys().iter().map(|name| name.extract()).collect() };
    let before = names()?;
    let kept = PyModule::new(py, KEPT)?;
    for name in NEEDED {
        kept.setattr(name, py.import(name)?)?;
    }
    Ok((kept, names()?.difference(&before).cloned().collect()))
}

/// The library's module of this name.
pub fn import<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyModule>> {
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    if let Some(kept) = modules.get_item(KEPT)?
        && let Some(module) = kept.getattr_opt(name)?
    {
        return Ok(module.cast_into::<PyModule>()?);
    }
    py.import(name)
}
