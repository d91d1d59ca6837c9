//! Which server is meant: the one whose control socket is named, or the only one that there is.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config::ControlSocket;
use crate::config::control::{SUFFIX, file_name, places, plain};

use super::{Operation, OperatorFailure, code};

/// The variable that names the control socket, to the server as to its commands.
const VARIABLE: &str = "TAPSTER_CONTROL_SOCKET";

/// The control socket that the command goes to.
pub fn socket(operation: &Operation) -> Result<PathBuf, OperatorFailure> {
    if let Some(path) = &operation.socket {
        return Ok(path.clone());
    }
    let variable = std::env::var(VARIABLE).ok().and_then(|text| ControlSocket::parse(&text).ok());
    match (&operation.name, variable) {
        (None, Some(ControlSocket::At(path))) => Ok(path),
        (name, _) => choose(&places(|name| std::env::var_os(name)), name.as_deref()),
    }
}

/// The socket of the server of this name, or of the only server, in these places.
fn choose(places: &[PathBuf], name: Option<&str>) -> Result<PathBuf, OperatorFailure> {
    let mut found: Vec<PathBuf> = places.iter().flat_map(|place| sockets(place)).filter(|path| listens(path)).collect();
    found.dedup();
    if let Some(name) = name {
        // With a number behind its name there are several.
        let (first, rest) = (file_name(&plain(name), 1), format!("{}-", plain(name)));
        let numbered = |file: &str| {
            let number = file.strip_prefix(&rest).and_then(|file| file.strip_suffix(SUFFIX));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        found.retain(|path| path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file == first || numbered(file)));
    }
    match found.as_slice() {
        [path] => Ok(path.clone()),
        [] => {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            let named = name.map(|name| format!(" named {}", name.escape_debug())).unwrap_or_default();
            Err(OperatorFailure {
                code: code::NOBODY,
                why: format!("no server{named} is found in {}; --control-socket names the socket of one", places.join(", ")),
            })
        }
        several => {
            let paths: Vec<_> = several.iter().map(|path| format!("\n  --control-socket {}", path.display())).collect();
            Err(OperatorFailure { code: code::USAGE, why: format!("there are several servers; say which:{}", paths.concat()) })
        }
    }
}

/// The control sockets in a directory, by their names.
fn sockets(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with(SUFFIX))).collect();
    found.sort();
    found
}

/// Whether somebody listens there. One that this user may not ask counts: the message that follows says so.
fn listens(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_only_server_needs_no_name_and_several_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let places = [dir.path().to_owned()];
        assert_eq!(choose(&places, None).unwrap_err().code, code::NOBODY);
        drop(UnixListener::bind(dir.path().join("dead.ctl")).unwrap());
        let _shop = UnixListener::bind(dir.path().join("shop.ctl")).unwrap();
        assert_eq!(choose(&places, None), Ok(dir.path().join("shop.ctl")), "a socket that is left over is nobody");
        let _app = UnixListener::bind(dir.path().join("app-app-2.ctl")).unwrap();
        let several = choose(&places, None).unwrap_err();
        assert_eq!(several.code, code::USAGE);
        assert!(several.why.contains("shop.ctl") && several.why.contains("app-app-2.ctl"), "{}", several.why);
        assert_eq!(choose(&places, Some("shop")), Ok(dir.path().join("shop.ctl")));
        assert_eq!(choose(&places, Some("app:app")), Ok(dir.path().join("app-app-2.ctl")));
        assert_eq!(choose(&places, Some("app")).unwrap_err().code, code::NOBODY);
    }
}
