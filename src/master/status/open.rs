//! Opening the doors: the addresses of `--status-bind`, and the control socket, where there is a place for it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::config::control::{self, ControlSocket};
use crate::config::{Bind, Endpoint, Settings};
use crate::log::error::Log;
use crate::net::bind;
use crate::net::listener::{FileMark, Listener};

use super::{Door, Doors};

/// Length of the queue of connections to a door: those that come while the master becomes another program, too.
const BACKLOG: u32 = 64;

/// Servers of one name that have a control socket in the same default place.
const SAME_NAME_MAX: usize = 99;

impl Doors {
    /// Opens what the settings ask for. A door that is asked for and cannot be had is an error, whose text says what, where, why.
    /// In its default place the control socket is only offered: without one the server goes on.
    pub fn open(settings: &Settings, log: &Log) -> Result<Self, String> {
        let mut doors = Vec::new();
        for endpoint in &settings.status_binds {
            let door = listen(endpoint, settings.umask).map_err(|why| format!("--status-bind: {why}"))?;
            log.info(format_args!("status and metrics on {}", door.place()));
            doors.push(Door::new(door, false));
        }
        match &settings.control_socket {
            ControlSocket::Off => {}
            ControlSocket::At(path) => {
                let door = control_at(path, settings.control_socket_mode).map_err(|why| format!("--control-socket: {why}"))?;
                log.info(format_args!("control socket: {}", path.display()));
                doors.push(Door::new(door, true));
            }
            ControlSocket::Default => match control_by_default(settings) {
                Some((path, door)) => {
                    log.debug(format_args!("control socket: {}", path.display()));
                    doors.push(Door::new(door, true));
                }
                None => log.debug(format_args!("there is no place for a control socket; --control-socket names one")),
            },
        }
        Ok(Self::new(doors))
    }
}

/// Continues to listen at a door that the program before has opened.
pub fn adopt(number: i32, own: bool, file: Option<FileMark>, control: bool) -> Result<Door, String> {
    let listener = bind::adopt(number, own, file, &settings_of(Vec::new(), None)).map_err(|error| error.to_string())?;
    Ok(Door::new(listener, control))
}

fn listen(endpoint: &Endpoint, mask: Option<u32>) -> Result<Listener, String> {
    let mut bound = bind::bind_all(&settings_of(vec![Bind::plain(endpoint.clone())], mask)).map_err(|error| error.to_string())?;
    bound.pop().ok_or_else(|| format!("cannot listen on {endpoint}"))
}

/// The settings of a socket for operators: of those of the clients' sockets it has only the mask for its file.
fn settings_of(binds: Vec<Bind>, umask: Option<u32>) -> Settings {
    Settings { binds, umask, backlog: BACKLOG, defer_accept: std::time::Duration::ZERO, ..Settings::default() }
}

fn control_at(path: &Path, mode: u32) -> Result<Listener, String> {
    listen(&Endpoint::Unix(path.to_owned()), Some(!mode & 0o777))
}

/// The control socket in the first place that takes it. Other servers of the same name get numbers.
fn control_by_default(settings: &Settings) -> Option<(PathBuf, Listener)> {
    let name = control::name_of(settings.name.as_deref(), settings.first_app());
    let places = control::places(|name| std::env::var_os(name));
    let place = places.into_iter().find(|place| is_ours(place))?;
    (1..=SAME_NAME_MAX).find_map(|number| {
        let path = place.join(control::file_name(&name, number));
        Some((path.clone(), control_at(&path, settings.control_socket_mode).ok()?))
    })
}

/// Whether sockets can be made in this directory, which is made if it is missing in one that is this user's own: what a login
/// or the system has made, and nothing that belongs to somebody else.
fn is_ours(place: &Path) -> bool {
    let is_own = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw());
    if place.is_dir() {
        return is_own(place) && access(place, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    }
    place.parent().is_some_and(is_own) && fs::DirBuilder::new().mode(control::DIRECTORY_MODE).create(place).is_ok()
}
