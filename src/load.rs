//! Loading the application in its process: working directory and environment as the settings want them, then the interpreter.

use std::io;

use crate::channel::BootError;
use crate::config::Settings;
use crate::sys::process::set_env;
use crate::worker::{Loaded, Place};

/// Loads the application of a worker. `--chdir` and `--env` are carried out here and not in the master, whose relative paths (logs,
/// sockets) start at the directory that the server was started in.
pub fn load(place: &Place<'_>) -> Result<Loaded, BootError> {
    enter(place.settings)?;
    python::load(place)
}

/// Loads the application to see whether that works.
pub fn check(settings: &Settings) -> Result<(), BootError> {
    enter(settings)?;
    python::check(settings)
}

/// Makes the process the one that the application expects.
fn enter(settings: &Settings) -> Result<(), BootError> {
    let failed = |what: String, error: io::Error| BootError { app: false, text: format!("{what}: {error}") };
    set_env(&settings.env).map_err(|error| failed("cannot set the variables of --env".into(), error))?;
    match &settings.chdir {
        Some(dir) => {
            std::env::set_current_dir(dir).map_err(|error| failed(format!("cannot change to --chdir {}", dir.display()), error))
        }
        None => Ok(()),
    }
}

#[cfg(feature = "python")]
mod python {
    use super::{BootError, Loaded, Place, Settings};
    use crate::config::LogTarget;
    use crate::log::error::{Log, Who};
    use crate::log::sink::Sink;
    use crate::net::listener::Address;
    use crate::wsgi::{self, Wsgi};

    pub(super) fn load(place: &Place<'_>) -> Result<Loaded, BootError> {
        let listeners = place.addresses.iter().map(server).collect();
        let (log, names) = (place.log.clone(), place.environ_names.clone());
        let app = Wsgi::new(place.settings, listeners, place.workers, place.slot, log, names)?;
        Ok((app, wsgi::version()))
    }

    /// SERVER_NAME, SERVER_PORT and whether it is a unix socket.
    fn server(address: &Address) -> (String, String, bool) {
        match address {
            Address::Tcp(addr) => (addr.ip().to_string(), addr.port().to_string(), false),
            Address::Unix(_) => (String::new(), String::new(), true),
        }
    }

    pub(super) fn check(settings: &Settings) -> Result<(), BootError> {
        let sink = Sink::open(&LogTarget::Stderr).map_err(|error| {
            let text = format!("cannot write to standard error: {error}");
            BootError { app: false, text }
        })?;
        wsgi::check(settings, &Log::new(sink.into(), settings.log_level, Who::Master))
    }
}

#[cfg(not(feature = "python"))]
mod python {
    use super::{BootError, Loaded, Place, Settings};

    pub(super) fn load(_: &Place<'_>) -> Result<Loaded, BootError> {
        Err(without())
    }

    pub(super) fn check(_: &Settings) -> Result<(), BootError> {
        Err(without())
    }

    fn without() -> BootError {
        BootError { app: false, text: "this tapster was built without Python (feature `python`)".into() }
    }
}
