//! Which server is meant: the one whose control socket is named, or the only one that there is. What changes a server has to name
//! it: the only one that is found may be somebody else's.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config::ControlSocket;
use crate::config::control::{SUFFIX, file_name, place_of_service, places, plain};

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
        (name, _) => {
            let variable = |name: &str| std::env::var_os(name);
            let places = places(variable);
            if operation.verb.only_shows() {
                choose(&places, name.as_deref())
            } else {
                named(&places, place_of_service(variable).as_deref(), name.as_deref())
            }
        }
    }
}

/// The socket of the server of this name; without one that of the only server of the service in whose unit this runs.
fn named(places: &[PathBuf], of_service: Option<&Path>, name: Option<&str>) -> Result<PathBuf, OperatorFailure> {
    if name.is_some() {
        return choose(places, name);
    }
    if let [path] = of_service.map(living).unwrap_or_default().as_slice() {
        return Ok(path.clone());
    }
    match choose(places, None) {
        Ok(path) => Err(ambiguous("this changes a server; say which by --name or", &[path])),
        Err(failure) => Err(failure),
    }
}

/// The sockets in a directory at which somebody listens.
fn living(place: &Path) -> Vec<PathBuf> {
    sockets(place).into_iter().filter(|path| listens(path)).collect()
}

fn ambiguous(what: &str, found: &[PathBuf]) -> OperatorFailure {
    let paths: Vec<_> = found.iter().map(|path| format!("\n  --control-socket {}", path.display())).collect();
    OperatorFailure { code: code::USAGE, why: format!("{what}:{}", paths.concat()) }
}

/// The socket of the server of this name, or of the only server, in these places.
fn choose(places: &[PathBuf], name: Option<&str>) -> Result<PathBuf, OperatorFailure> {
    let mut found: Vec<PathBuf> = places.iter().flat_map(|place| living(place)).collect();
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
        several => Err(ambiguous("there are several servers; say which by --name or", several)),
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

    #[test]
    fn what_changes_a_server_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let (service, system) = (dir.path().join("service"), dir.path().join("system"));
        fs::create_dir(&service).and_then(|()| fs::create_dir(&system)).unwrap();
        let places = [service.clone(), system.clone()];
        let change = |name: Option<&str>, of_service: Option<&Path>| named(&places, of_service, name);
        assert_eq!(change(None, None).unwrap_err().code, code::NOBODY);
        let _shop = UnixListener::bind(system.join("shop.ctl")).unwrap();
        let refused = change(None, None).unwrap_err();
        assert_eq!(refused.code, code::USAGE);
        assert!(refused.why.contains(&format!("--control-socket {}", system.join("shop.ctl").display())), "{}", refused.why);
        assert_eq!(change(Some("shop"), None), Ok(system.join("shop.ctl")));
        assert_eq!(change(Some("other"), None).unwrap_err().code, code::NOBODY);
        assert_eq!(change(None, Some(&service)).unwrap_err().code, code::USAGE, "it is not in this service's directory");
        let _own = UnixListener::bind(service.join("own.ctl")).unwrap();
        assert_eq!(change(None, Some(&service)), Ok(service.join("own.ctl")), "that directory names its service");
        assert_eq!(change(None, None).unwrap_err().code, code::USAGE);
        let _second = UnixListener::bind(service.join("second.ctl")).unwrap();
        assert_eq!(change(None, Some(&service)).unwrap_err().code, code::USAGE);
    }
}
