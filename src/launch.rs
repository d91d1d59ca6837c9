//! Joins the parts: the command line, the master, the worker and the bridge to Python meet only here.

use std::io::{self, Write};

use crate::channel::BootError;
use crate::cli::{self, CliCommand};
use crate::config::Settings;
use crate::log::escape;
use crate::master::{self, Outcome, Past, code};
use crate::sys::process;
use crate::worker::{self, LoadContext, Loaded};

/// Runs the command with these arguments (the first is the program) and returns its exit code. A worker does not return: its
/// process ends here.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    let args: Vec<std::ffi::OsString> = args.into_iter().collect();
    let past = match Past::find(&args) {
        Ok(past) => past,
        Err(why) => {
            complain(&why);
            return code::FAILED;
        }
    };
    match cli::parse(args.clone()) {
        Ok(CliCommand::Print(text)) => print(&text),
        Ok(CliCommand::CheckConfig(settings, warnings)) => check(&settings, &warnings),
        Ok(CliCommand::CheckState(settings)) => match master::check_state(&settings) {
            Ok(answer) => print(&answer),
            Err((why, code)) => {
                complain(&why);
                code
            }
        },
        Ok(CliCommand::Serve(settings, warnings)) => {
            match master::run(*settings, &warnings, Box::new(move || reread(&args)), past) {
                Outcome::Exit(code) => code,
                // The process does not end by returning: the caller's exit handlers belong to the master.
                Outcome::Worker(boot) => process::exit_now(worker::run(*boot, load)),
            }
        }
        Err(error) => {
            complain(&error.to_string());
            code::USAGE
        }
    }
}

/// The settings as the same arguments give them now.
fn reread(args: &[std::ffi::OsString]) -> Result<(Settings, Vec<String>), String> {
    match cli::parse(args.iter().cloned()) {
        Ok(CliCommand::Serve(settings, warnings)) => Ok((*settings, warnings)),
        Ok(CliCommand::Print(_) | CliCommand::CheckConfig(..) | CliCommand::CheckState(_)) => {
            Err("the arguments do not start a server any more".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Sets the environment that the application expects: `--env`. The working directory is that of its generation already.
fn settle(settings: &Settings) -> Result<(), BootError> {
    let failed = |error| BootError { app: false, text: format!("cannot set the variables of --env: {error}") };
    process::set_env(&settings.env).map_err(failed)
}

/// Enters `--chdir`, where no master has done so.
#[cfg(feature = "python")]
fn enter(settings: &Settings) -> Result<(), BootError> {
    let Some(dir) = &settings.chdir else { return Ok(()) };
    let failed = |error| BootError { app: false, text: format!("cannot change to --chdir {}: {error}", dir.display()) };
    std::env::set_current_dir(dir).map_err(failed)
}

#[cfg(feature = "python")]
fn load(place: &LoadContext<'_>) -> Result<Loaded, BootError> {
    use crate::net::listener::Address;
    use crate::wsgi::{self, AppStart, ListenerEnviron, Wsgi};

    settle(place.settings)?;
    let listeners = place
        .addresses
        .iter()
        .map(|address| match address {
            Address::Tcp(addr) => ListenerEnviron { name: addr.ip().to_string(), port: addr.port().to_string() },
            Address::Unix(_) => ListenerEnviron::unix(),
        })
        .collect();
    let app = Wsgi::new(AppStart {
        settings: place.settings,
        listeners,
        workers: place.workers,
        renounce: &place.renounce,
        log: place.log.clone(),
        environ_names: place.environ_names.clone(),
        stacks: Some(place.stacks),
    })?;
    Ok((app, wsgi::version()))
}

#[cfg(not(feature = "python"))]
fn load(place: &LoadContext<'_>) -> Result<Loaded, BootError> {
    settle(place.settings)?;
    Err(BootError { app: true, text: NO_PYTHON.to_owned() })
}

/// Imports the application as a worker would, and reports whether that worked.
#[cfg(feature = "python")]
fn check(settings: &Settings, warnings: &[String]) -> i32 {
    use std::sync::Arc;

    use crate::config::LogTarget;
    use crate::log::error::{Log, Who};
    use crate::log::sink::Sink;

    // The user that the application will run as has to be able to read it.
    let identity = match master::privileges::resolve(settings) {
        Ok(identity) => identity,
        Err(why) => {
            complain(&why);
            return code::USAGE;
        }
    };
    let assumed = identity.map_or(Ok(()), |identity| identity.assume_for_check());
    // This comes after the change of the user, who must not read the terminal that standard error may be.
    let sink = match Sink::open(&LogTarget::Stderr) {
        Ok(sink) => sink,
        Err(_) => return code::FAILED,
    };
    let log = Log::new(Arc::new(sink), settings.log_level, Who::Master);
    for warning in warnings {
        log.warning(format_args!("{warning}"));
    }
    match assumed.and_then(|()| settle(settings)).and_then(|()| enter(settings)).and_then(|()| crate::wsgi::check(settings, &log))
    {
        Ok(()) => print("tapster: the configuration is valid and the application can be loaded\n"),
        Err(error) => {
            complain(error.text.trim_end());
            if error.app { code::APP } else { code::BOOT }
        }
    }
}

#[cfg(not(feature = "python"))]
fn check(_: &Settings, _: &[String]) -> i32 {
    complain(NO_PYTHON);
    code::APP
}

/// The message of a build that only serves the loop's tests.
#[cfg(not(feature = "python"))]
const NO_PYTHON: &str = "this tapster was built without Python; build it with the default features";

fn print(text: &str) -> i32 {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader of only the first lines (`tapster --help | head`) has all that it wants.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            code::FAILED
        }
        Ok(()) | Err(_) => code::OK,
    }
}

/// Writes one line to standard error.
fn complain(why: &str) {
    // Without standard error there is nobody to report to.
    let _ = io::stderr().write_all(&escape::complaint(why));
}
