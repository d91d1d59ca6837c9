//! Joins the parts: the command line, the master, the worker and the bridge to Python meet only here.

use std::io::{self, Write};

use crate::channel::BootError;
use crate::cli::{self, CliCommand};
use crate::config::gunicorn::{Content, Name, Source};
use crate::config::{self, Notice, Settings};
use crate::gunicorn_file;
use crate::log::escape;
use crate::master::{self, Outcome, Past, code};
use crate::sys::process;
use crate::worker::{self, LoadContext, Loaded};

/// Runs the command with these arguments (the first is the program) and returns its exit code. A worker does not return: its
/// process ends here.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> i32 {
    let args: Vec<std::ffi::OsString> = args.into_iter().collect();
    if let Some((source, own)) = gunicorn_file::order(&args) {
        return answer(&source, &own);
    }
    let past = match Past::find(&args) {
        Ok(past) => past,
        Err(why) => {
            complain(&why);
            return code::FAILED;
        }
    };
    match cli::parse(args.clone(), &|source, user| execute(&args, source, user)) {
        Ok(CliCommand::Print(text)) => print(&text),
        Ok(CliCommand::CheckConfig(settings, notices)) => check(&settings, &notices),
        Ok(CliCommand::CheckState(settings)) => match master::check_state(&settings) {
            Ok(answer) => print(&answer),
            Err((why, code)) => {
                complain(&why);
                code
            }
        },
        Ok(CliCommand::Serve(settings, notices)) => {
            match master::run(*settings, &notices, Box::new(move || reread(&args)), past) {
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
fn reread(args: &[std::ffi::OsString]) -> Result<(Settings, Vec<Notice>), String> {
    match cli::parse(args.iter().cloned(), &|source, user| execute(args, source, user)) {
        Ok(CliCommand::Serve(settings, notices)) => Ok((*settings, notices)),
        Ok(CliCommand::Print(_) | CliCommand::CheckConfig(..) | CliCommand::CheckState(_)) => {
            Err("the arguments do not start a server any more".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Has a process of its own execute a gunicorn file: this program once more.
fn execute(args: &[std::ffi::OsString], source: &Source, user: Option<&str>) -> Result<Content, config::Error> {
    let this = master::Command::of_this_process(args);
    let argv = this.with_option(&format!("{}{}", gunicorn_file::OPTION, source.spelt()));
    let mut command = std::process::Command::new(this.program());
    std::os::unix::process::CommandExt::arg0(&mut command, &argv[0]);
    command.args(&argv[1..]);
    gunicorn_file::execute(command, source, user)
}

/// Executes a gunicorn file in this process, writes what it has set to standard output, and returns the exit code.
fn answer(source: &Source, args: &[std::ffi::OsString]) -> i32 {
    use std::os::fd::AsFd;

    // The file may print, and what it prints is not the answer.
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let redirected = stdout.and_then(|stdout| nix::unistd::dup2_stdout(io::stderr()).map(|()| stdout).map_err(io::Error::from));
    let names = names_of(source, args);
    let text = gunicorn_file::answer(names.as_deref().map_err(String::as_str));
    match redirected.map(std::fs::File::from).and_then(|mut stdout| stdout.write_all(text.as_bytes())) {
        // Threads that the file has started may run still.
        Ok(()) => process::exit_now(code::OK),
        Err(_) => code::FAILED,
    }
}

#[cfg(feature = "python")]
fn names_of(source: &Source, args: &[std::ffi::OsString]) -> Result<Vec<Name>, String> {
    let mut settings = cli::parse_for_file(args).map_err(|error| error.to_string())?;
    if let Some(identity) = master::privileges::resolve(&settings)? {
        identity.assume_for_check().map_err(|error| error.text)?;
    }
    // Relative to where the application will be loaded; the file is executed where the server was started.
    if let (Some(chdir), Some(venv)) = (&settings.chdir, &settings.python.venv) {
        settings.python.venv = Some(chdir.join(venv));
    }
    crate::wsgi::execute_gunicorn_file(source, args, &settings.python)
}

#[cfg(not(feature = "python"))]
fn names_of(_: &Source, _: &[std::ffi::OsString]) -> Result<Vec<Name>, String> {
    Err(NO_PYTHON.to_owned())
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
fn check(settings: &Settings, notices: &[Notice]) -> i32 {
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
    for notice in notices {
        log.write(notice.level, format_args!("{notice}"));
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
fn check(_: &Settings, _: &[Notice]) -> i32 {
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
