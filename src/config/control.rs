//! Where the control socket of a server is: the commands look for it where the server has made it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::app_spec::AppSpec;

/// Mode of a directory that is made for control sockets.
pub const DIRECTORY_MODE: u32 = 0o755;

/// How the file of a control socket ends.
pub const SUFFIX: &str = ".ctl";

/// Longest part of a name that is used for a file, in bytes: a unix socket's path has room for 107.
const NAME_MAX: usize = 48;

/// `--control-socket`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlSocket {
    /// In the first of [`places`] that there is.
    #[default]
    Default,
    /// None.
    Off,
    /// At this path.
    At(#[serde(with = "super::paths")] PathBuf),
}

impl ControlSocket {
    /// Reads `none`, `auto` or a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("must be a path, auto or none".into()),
            "none" => Ok(Self::Off),
            "auto" => Ok(Self::Default),
            path => Ok(Self::At(path.strip_prefix("unix:").unwrap_or(path).into())),
        }
    }
}

/// The directories for control sockets, the best first: what a service manager has made for this service (systemd.exec(5),
/// RuntimeDirectory=), what a login has, what the system has. `variable` reads the environment.
pub fn places(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let of_service = place_of_service(&variable);
    let of_login = variable("XDG_RUNTIME_DIR").map(|path| Path::new(&path).join("tapster"));
    let of_system = Some(PathBuf::from("/run/tapster"));
    [of_service, of_login, of_system].into_iter().flatten().filter(|path| path.is_absolute()).collect()
}

/// The first directory that a service manager has made for this service, and for no other one.
pub fn place_of_service(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let paths = variable("RUNTIME_DIRECTORY")?;
    std::env::split_paths(&paths).next().filter(|path| path.is_absolute())
}

/// The name of the server in the file's name: `--name`, else the application.
pub fn name_of(name: Option<&str>, app: &AppSpec) -> String {
    match (name, app) {
        (Some(name), _) => plain(name),
        (None, AppSpec::Target { text, .. } | AppSpec::Object { text }) => plain(text),
        (None, AppSpec::Welcome) => "tapster".to_owned(),
    }
}

/// A name as part of a file's name: letters, digits, dots and hyphens.
pub fn plain(name: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() || "._-".contains(character) { character } else { '-' };
    let name: String = name.chars().map(plain).take(NAME_MAX).collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() { "tapster".to_owned() } else { name.to_owned() }
}

/// The file of the server of this name; `number` tells servers of the same name apart, from 1.
pub fn file_name(name: &str, number: usize) -> String {
    match number {
        1 => format!("{name}{SUFFIX}"),
        number => format!("{name}-{number}{SUFFIX}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for (name, file) in [
            ("shop", "shop.ctl"),
            ("app:app", "app-app.ctl"),
            ("../../etc/x", "etc-x.ctl"),
            ("site:make(\"production\")", "site-make--production.ctl"),
            ("ü", "tapster.ctl"),
            ("", "tapster.ctl"),
        ] {
            assert_eq!(file_name(&plain(name), 1), file);
        }
        assert_eq!(file_name("shop", 2), "shop-2.ctl");
        assert!(plain(&"x".repeat(300)).len() <= NAME_MAX);
    }

    #[test]
    fn the_directory_of_the_service_comes_first() {
        let of = |pairs: &'static [(&str, &str)]| {
            places(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(of(&[]), [Path::new("/run/tapster")]);
        assert_eq!(
            of(&[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/run/user/7")]),
            [Path::new("/run/a"), Path::new("/run/user/7/tapster"), Path::new("/run/tapster")]
        );
        assert_eq!(of(&[("RUNTIME_DIRECTORY", "relative")]), [Path::new("/run/tapster")]);
    }

    #[test]
    fn a_control_socket_is_a_path_or_a_word() {
        assert_eq!(ControlSocket::parse("none"), Ok(ControlSocket::Off));
        assert_eq!(ControlSocket::parse("auto"), Ok(ControlSocket::Default));
        assert_eq!(ControlSocket::parse("unix:/run/x.ctl"), ControlSocket::parse("/run/x.ctl"));
        assert!(ControlSocket::parse("").is_err());
    }
}
