//! What an interpreter must be able to read where it starts as another user than the one who has started the server.

use std::path::PathBuf;

use crate::channel::BootError;
#[cfg(feature = "python")]
use crate::config::Settings;
use crate::master::privileges::Identity;
#[cfg(feature = "python")]
use crate::sys::access::Closed;
use crate::sys::access::{Wish, closed, loaded};

/// Files that a worker reads before its program can say what it misses, when it starts the interpreter that runs here: the libraries
/// of Python and of the package, and the standard library.
pub(super) fn needs() -> Vec<PathBuf> {
    let mut files = loaded("libpython");
    files.extend(loaded("_tapster."));
    files.extend(library());
    files
}

/// Becomes the user for good, to do what a worker would. The error names what the user cannot read of the interpreter that runs:
/// one that imports the next module would only miss it.
pub(super) fn assume(identity: &Identity) -> Result<(), BootError> {
    identity.assume_for_check()?;
    match library().and_then(|library| closed(&library, Wish::Read)) {
        Some(closed) => Err(BootError { app: false, text: format!("Python cannot be used: {closed}") }),
        None => Ok(()),
    }
}

/// The error of an interpreter that did not start, with what its user cannot read, if there is something.
#[cfg(feature = "python")]
pub(super) fn explain(error: BootError, settings: &Settings) -> BootError {
    let found = if error.app { None } else { closed_to_embedded(settings) };
    match found {
        Some(closed) => BootError { text: format!("{closed} ({})", error.text.trim_end()), ..error },
        None => error,
    }
}

#[cfg(feature = "python")]
fn closed_to_embedded(settings: &Settings) -> Option<Closed> {
    let venv = settings.python.venv.as_ref().map(|venv| venv.join("bin/python"));
    // PYTHONHOME says where the library is instead.
    let own = std::env::var_os("PYTHONHOME").is_none().then(built_with).flatten();
    venv.into_iter().chain(own).find_map(|python| closed(&python, Wish::Execute))
}

#[cfg(feature = "python")]
fn library() -> Option<PathBuf> {
    crate::wsgi::library()
}

#[cfg(not(feature = "python"))]
fn library() -> Option<PathBuf> {
    None
}

#[cfg(feature = "python")]
fn built_with() -> Option<PathBuf> {
    let python = std::path::Path::new(crate::wsgi::BUILT_WITH);
    python.is_absolute().then(|| python.to_owned())
}
