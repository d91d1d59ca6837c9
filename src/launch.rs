//! Joins the parts: the command line, the master, the worker and the bridge to Python meet only here.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use crate::birth;
use crate::cgi::{self, Streams};
use crate::channel::BootError;
use crate::cli::{self, CliCommand, UsageError};
use crate::config::gunicorn::{Content, Name, Source};
use crate::config::{self, Notice, Settings};
use crate::gunicorn_file;
use crate::hooks;
use crate::hooks::HookStart;
use crate::log::error::Log;
use crate::log::escape;
use crate::master::{self, Alone, Outcome, Past, Program, Reread, code};
use crate::net::activation;
use crate::operator::{self, Operation};
use crate::sys::{fd, process};
use crate::worker::{self, Boot, LoadContext, Loaded};
#[cfg(feature = "python")]
use crate::{
    sys,
    worker::mold::{self, MoldOutcome},
    wsgi::MoldedWsgi,
};

mod access;
mod call;
#[cfg(feature = "python")]
mod check;

pub use call::{CallError, ServerCall, serve};
#[cfg(feature = "python")]
use check::check;

/// Runs the command with these arguments (the first is the program) and returns its exit code. A worker does not return: its
/// process ends here.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.into_iter().collect();
    if cgi::has_words_of_client(&args) {
        return refuse_words_of_client();
    }
    if hooks::is_ordered(&args) {
        return run_hooks();
    }
    match gunicorn_file::order(&args) {
        Some((source, own)) => answer(&source, &own),
        None => run_server(Program::embedded(&args), args),
    }
}

/// Answers a CGI request whose client would choose options; returns the exit code.
fn refuse_words_of_client() -> i32 {
    complain(
        "the last arguments are words of the client's query (RFC 3875 section 4.4); the CGI script must not pass its arguments on: \
         let it be #!/bin/sh, and exec tapster --cgi APP without \"$@\"",
    );
    let _ = Streams::take().map(|streams| streams.fail());
    code::USAGE
}

/// What is to be done with the arguments of a process that an interpreter has started as its user has it.
#[derive(Debug, PartialEq, Eq)]
pub enum GuestTask {
    /// A master serves, which has to be made by [`run_bare`] in an interpreter that has loaded nothing.
    NeedsMaster,
    /// It is done, with this exit code.
    Done(i32),
}

/// For the package that is installed into an interpreter: does what the arguments ask for, unless that needs a master. Code of the
/// user may be loaded into this interpreter. `words` are what has started it: an absolute path of the interpreter and the words
/// that make it this program; `own` are the server's arguments.
pub fn run_as_guest(words: Vec<OsString>, own: Vec<OsString>) -> GuestTask {
    // A web server may have started it without. If it fails, the next file fails too.
    let _ = fd::open_streams();
    let args = named(&words, own.clone());
    if cgi::has_words_of_client(&args) {
        return GuestTask::Done(refuse_words_of_client());
    }
    if hooks::is_ordered(&args) {
        return GuestTask::Done(run_hooks());
    }
    if let Some((source, own)) = gunicorn_file::order(&args) {
        return GuestTask::Done(answer(&source, &own));
    }
    let program = Program::guest(words, own, Vec::new());
    match noticed(parse(&program.command, &args)) {
        // The debugger is in this interpreter.
        Ok(CliCommand::Serve(settings, notices)) if settings.debug => GuestTask::Done(run_alone(*settings, &notices, program)),
        Ok(CliCommand::Serve(..) | CliCommand::CheckState(_)) => GuestTask::NeedsMaster,
        parsed => GuestTask::Done(run_parsed(parsed, None)),
    }
}

/// Runs the master in an interpreter that has loaded nothing and runs no more code; the arguments are those of [`run_as_guest`].
pub fn run_bare(words: Vec<OsString>, own: Vec<OsString>) -> i32 {
    let args = named(&words, own.clone());
    run_server(Program::guest(words, own, access::needs()), args)
}

/// Becomes the worker whose state the descriptor has ([`crate::birth`]), in an interpreter that its user could have started. The
/// process ends here.
pub fn run_worker(number: i32) -> ! {
    match birth::adopt(number) {
        Ok(boot) => born(boot),
        Err(why) => {
            complain(&why);
            process::exit_now(code::BOOT)
        }
    }
}

/// The life of a process that the master has made for the application, which ends here.
fn born(boot: Boot) -> ! {
    process::exit_now(if boot.mold.is_some() { live_as_mold(boot) } else { worker::run(boot, load) })
}

/// The life of a mold, and of the workers that are forked from it.
#[cfg(feature = "python")]
fn live_as_mold(boot: Boot) -> i32 {
    sys::host::live_in(HOST);
    let load = |place: &LoadContext<'_>| {
        let molded = MoldedWsgi::load(app_start(place)).map_err(|error| access::explain(error, place.settings))?;
        Ok((molded, crate::wsgi::version()))
    };
    match mold::run(boot, load) {
        MoldOutcome::Born(boot, molded) => {
            worker::run_molded(*boot, |place| Ok((molded.serve(app_start(place))?, crate::wsgi::version())))
        }
        MoldOutcome::Exit(code) => code,
    }
}

#[cfg(not(feature = "python"))]
fn live_as_mold(boot: Boot) -> i32 {
    worker::run(boot, load)
}

/// The interpreter as the host of a process that forks others, and is to go on in them.
#[cfg(feature = "python")]
const HOST: sys::host::Host = sys::host::Host {
    before_fork: crate::wsgi::host::before_fork,
    in_parent: crate::wsgi::host::after_fork_in_parent,
    in_child: crate::wsgi::host::after_fork_in_child,
    idle: crate::wsgi::host::idle,
};

/// The server's own arguments with the name of the program in front: the script or module that the interpreter runs.
fn named(words: &[OsString], own: Vec<OsString>) -> Vec<OsString> {
    words.last().cloned().into_iter().chain(own).collect()
}

/// Runs the command in a process that may become a master.
fn run_server(program: Program, args: Vec<OsString>) -> i32 {
    let command = program.command.clone();
    match Past::find(program) {
        Ok(past) => match noticed(parse(&command, &args)) {
            Ok(CliCommand::Serve(settings, notices)) if settings.debug => run_alone(*settings, &notices, past.into_program()),
            parsed => run_parsed(parsed, Some((past, Box::new(move |_| reread(parse(&command, &args)))))),
        },
        Err(why) => {
            complain(&why);
            code::FAILED
        }
    }
}

fn parse(command: &master::Command, args: &[OsString]) -> Result<CliCommand, UsageError> {
    let execute = |source: &Source, user: Option<&str>| execute(command, args, source, user);
    match cli::migrate::is_asked(args) {
        true => cli::migrate::translate(args, &execute, process::usable_cores()),
        false if cli::operate::is_asked(args) => cli::operate::parse(args),
        false if cli::completions::is_asked(args) => cli::completions::print(args),
        false => cli::parse(args.iter().cloned(), &execute),
    }
}

/// What the arguments ask for, or what a web server that has started this process does: one request, unless it passes a socket, or
/// the arguments name one.
fn noticed(parsed: Result<CliCommand, UsageError>) -> Result<CliCommand, UsageError> {
    match parsed {
        Ok(CliCommand::Serve(settings, notices))
            if cgi::is_environment() && !settings.binds_given && !settings.daemon && !activation::is_input_listening() =>
        {
            Ok(CliCommand::Cgi(settings, notices))
        }
        parsed => parsed,
    }
}

/// Does what the arguments ask for. Without a past of the process, and what a reload asks, they may not ask for a server.
fn run_parsed(parsed: Result<CliCommand, UsageError>, server: Option<(Past, Reread)>) -> i32 {
    match (parsed, server) {
        (Ok(CliCommand::Print(text)), _) => print(&text),
        (Ok(CliCommand::Migrated { text, failed }), _) => match print(&text) {
            code::OK if failed => code::USAGE,
            code => code,
        },
        (Ok(CliCommand::Operate(operation)), _) => operate(&operation),
        (Ok(CliCommand::Cgi(settings, notices)), _) => run_cgi(&settings, &notices),
        (Ok(CliCommand::CheckConfig(settings, notices)), _) => check(&settings, &notices),
        (Ok(CliCommand::CheckState(settings)), _) => answer_check(&settings),
        (Ok(CliCommand::Serve(settings, notices)), Some((past, reread))) => {
            match master::run(*settings, &notices, reread, past) {
                Outcome::Exit(code) => code,
                // The process does not end by returning: the caller's exit handlers belong to the master.
                Outcome::Worker(boot) => born(*boot),
            }
        }
        (Ok(CliCommand::Serve(..)), None) => unreachable!("a server is made by those that have a past, or runs alone"),
        (Err(error), _) => {
            complain(&error.to_string());
            if cgi::is_environment() && !activation::is_input_listening() {
                let _ = Streams::take().map(|streams| streams.fail());
            }
            code::USAGE
        }
    }
}

/// Name of the thread that attends to a server of one process (pthread_setname_np(3): at most 15 bytes).
const ATTENDANT: &str = "tapster-signals";

/// Serves from this process, whose standard streams are those of the application.
fn run_alone(settings: Settings, notices: &[Notice], program: Program) -> i32 {
    let Alone { boot, attendant, mut done } = match master::alone(settings, notices, program) {
        Ok(alone) => alone,
        Err(code) => return code,
    };
    let attending = match thread::Builder::new().name(ATTENDANT.to_owned()).spawn(move || attendant.attend()) {
        Ok(attending) => attending,
        Err(error) => {
            complain(&format!("cannot start a thread: {error}"));
            return code::FAILED;
        }
    };
    let code = worker::run(boot, load);
    // Both fail only if the thread has panicked, which has been printed.
    let _ = done.write_all(b"x");
    let _ = attending.join();
    // Threads of the application may run still.
    process::exit_now(code)
}

/// Carries out the command of an operator; returns its exit code.
fn operate(operation: &Operation) -> i32 {
    match operator::run(operation) {
        Ok((code, text)) => match print(&text) {
            operator::code::OK => code,
            failed => failed,
        },
        Err(failure) => {
            complain(&failure.why);
            failure.code
        }
    }
}

/// Says whether a running server could continue with these settings in this program, and returns the exit code.
fn answer_check(settings: &Settings) -> i32 {
    match master::check_state(settings) {
        Ok(answer) => print(&answer),
        Err((why, code)) => {
            complain(&why);
            code
        }
    }
}

/// The settings that the arguments of a server give now.
fn reread(parsed: Result<CliCommand, UsageError>) -> Result<(Settings, Vec<Notice>), String> {
    match parsed {
        Ok(CliCommand::Serve(settings, notices)) => Ok((*settings, notices)),
        Ok(
            CliCommand::Print(_)
            | CliCommand::Migrated { .. }
            | CliCommand::Operate(_)
            | CliCommand::Cgi(..)
            | CliCommand::CheckConfig(..)
            | CliCommand::CheckState(_),
        ) => Err("the arguments do not start a server any more".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The hook process ([`crate::hooks`]), which ends here.
fn run_hooks() -> i32 {
    let served = HookStart::take().and_then(|start| {
        let identity = master::privileges::resolve(&start.birth.settings).map_err(io::Error::other)?;
        if let Some(identity) = identity {
            if start.birth.settings.capture_output {
                identity.own(io::stderr())?;
            }
            access::assume(&identity).map_err(|error| io::Error::other(error.text))?;
        }
        start.follow_master()?;
        start.serve(start_hooks)
    });
    if let Err(error) = &served {
        complain(&format!("the process for hooks ends: {error}"));
    }
    // Threads that a hook has started may run still.
    process::exit_now(if served.is_ok() { code::OK } else { code::FAILED })
}

#[cfg(feature = "python")]
fn start_hooks(birth: &hooks::HookBirth, log: &Log) -> Result<crate::wsgi::MasterHooks, String> {
    crate::wsgi::MasterHooks::start(&birth.settings, birth.workers, birth.master, log).map_err(|error| error.text)
}

#[cfg(not(feature = "python"))]
fn start_hooks(_: &hooks::HookBirth, _: &Log) -> Result<NoHooks, String> {
    Err(NO_PYTHON.to_owned())
}

/// The hooks of a build without Python.
#[cfg(not(feature = "python"))]
struct NoHooks;

#[cfg(not(feature = "python"))]
impl hooks::HookRunner for NoHooks {
    fn handle(&mut self, _: &hooks::HookEvent) -> Result<(), String> {
        Err(NO_PYTHON.to_owned())
    }

    fn release(&mut self) {}

    fn finish(&mut self) {}
}

/// Has a process of its own execute a gunicorn file: this program once more.
fn execute(this: &master::Command, args: &[OsString], source: &Source, user: Option<&str>) -> Result<Content, config::Error> {
    let settings = settings_for_file(&command_for_file(args)).map_err(|error| config::Error::File {
        path: source.path(),
        line: None,
        why: error.to_string(),
    })?;
    let argv = this.with_option(&format!("{}{}", gunicorn_file::OPTION, source.spelt()));
    let mut command = std::process::Command::new(this.program());
    std::os::unix::process::CommandExt::arg0(&mut command, &argv[0]);
    command.args(&argv[1..]);
    gunicorn_file::execute(command, source, &import_directories(settings), user)
}

/// The arguments that count for the process that executes a gunicorn file.
fn command_for_file(args: &[OsString]) -> Vec<OsString> {
    match cli::migrate::is_asked(args) {
        true => cli::migrate::translated_command(args),
        false => args.to_vec(),
    }
}

/// The settings of the process that executes a gunicorn file.
fn settings_for_file(args: &[OsString]) -> Result<Settings, UsageError> {
    let mut settings = cli::parse_for_file(args)?;
    // The file is executed where the server was started.
    settings.python = settings.python.before(settings.chdir.as_deref());
    Ok(settings)
}

/// Where Python looks for modules, besides the working directory and its own library.
fn import_directories(settings: Settings) -> Vec<PathBuf> {
    let mut directories = settings.python.pythonpath;
    directories.extend(settings.python.venv);
    let set = std::env::var_os("PYTHONPATH").unwrap_or_default();
    // An empty entry is the working directory.
    directories.extend(std::env::split_paths(&set));
    directories
}

/// Executes a gunicorn file in this process, writes what it has set to standard output, and returns the exit code.
fn answer(source: &Source, args: &[OsString]) -> i32 {
    use std::os::fd::AsFd;

    gunicorn_file::end_with_the_asker();
    // The file may print, and what it prints is not the answer.
    let stdout = io::stdout().as_fd().try_clone_to_owned();
    let redirected = stdout.and_then(|stdout| nix::unistd::dup2_stdout(io::stderr()).map(|()| stdout).map_err(io::Error::from));
    let names = names_of(source, &command_for_file(args));
    let text = gunicorn_file::answer(names.as_deref().map_err(String::as_str));
    match redirected.map(std::fs::File::from).and_then(|mut stdout| stdout.write_all(text.as_bytes())) {
        // Threads that the file has started may run still.
        Ok(()) => process::exit_now(code::OK),
        Err(_) => code::FAILED,
    }
}

#[cfg(feature = "python")]
fn names_of(source: &Source, args: &[OsString]) -> Result<Vec<Name>, String> {
    let settings = settings_for_file(args).map_err(|error| error.to_string())?;
    if let Some(identity) = master::privileges::resolve(&settings)? {
        access::assume(&identity).map_err(|error| error.text)?;
    }
    crate::wsgi::execute_gunicorn_file(source, args, &settings.python).map_err(|text| {
        let error = BootError { app: false, text };
        access::explain(error, &settings).text
    })
}

#[cfg(not(feature = "python"))]
fn names_of(_: &Source, _: &[OsString]) -> Result<Vec<Name>, String> {
    Err(NO_PYTHON.to_owned())
}

/// Sets the environment that the application expects, where no master has done so: `--env`.
#[cfg(feature = "python")]
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
    let app = crate::wsgi::Wsgi::new(app_start(place)).map_err(|error| access::explain(error, place.settings))?;
    Ok((app, crate::wsgi::version()))
}

#[cfg(feature = "python")]
fn app_start<'a>(place: &'a LoadContext<'_>) -> crate::wsgi::AppStart<'a> {
    use crate::net::listener::Address;
    use crate::wsgi::{AppStart, ListenerEnviron};

    let listeners = place
        .addresses
        .iter()
        .zip(&place.encrypted)
        .map(|(address, &is_encrypted)| match address {
            Address::Tcp(addr) => ListenerEnviron { name: addr.ip().to_string(), port: addr.port().to_string(), is_encrypted },
            Address::Unix(_) => ListenerEnviron::unix(is_encrypted),
        })
        .collect();
    AppStart {
        settings: place.settings,
        listeners,
        workers: place.workers,
        run_once: false,
        renounce: &place.renounce,
        facts: &place.facts,
        told: place.sources.as_ref(),
        log: place.log.clone(),
        environ_names: place.environ_names.clone(),
        stacks: Some(place.stacks),
    }
}

#[cfg(not(feature = "python"))]
fn load(_: &LoadContext<'_>) -> Result<Loaded, BootError> {
    Err(BootError { app: true, text: NO_PYTHON.to_owned() })
}

/// Answers the request that a web server has started this process for; returns the exit code only where Python has not started.
#[cfg(feature = "python")]
fn run_cgi(settings: &Settings, notices: &[Notice]) -> i32 {
    use std::sync::Arc;

    use crate::config::Level;
    use crate::log::error::Who;
    use crate::log::sink::Sink;
    use crate::worker::app::{Renounce, WorkerFacts};
    use crate::wsgi::{AppStart, ListenerEnviron, Wsgi};

    if !cgi::is_environment() {
        complain(
            "--cgi is for web servers, and this is not the environment of a CGI program (GATEWAY_INTERFACE, REQUEST_METHOD)",
        );
        return code::USAGE;
    }
    let streams = match Streams::take() {
        Ok(streams) => streams,
        Err(error) => {
            complain(&format!("the standard streams cannot be taken: {error}"));
            return code::FAILED;
        }
    };
    let sink = match Sink::open_without_copy(&settings.error_log) {
        Ok(sink) => sink,
        Err(error) => {
            complain(&format!("--error-logfile: {error}"));
            streams.fail();
            return code::FAILED;
        }
    };
    // What a server says at its start would be said for each request.
    let level = if settings.log_level == Level::Info { Level::Warning } else { settings.log_level };
    let log = Log::new(Arc::new(sink), level, Who::Cgi);
    for notice in notices {
        log.write(notice.level, format_args!("{notice}"));
    }
    // It fails where threads run, such as those of agents that measure; Apache, lighttpd and Python's urllib drop the variable too.
    let _ = process::unset_env(&[cgi::PROXY]);
    let renounce: Renounce = Arc::new(streams.renounce());
    let start = || {
        settle(settings).and_then(|()| enter(settings))?;
        Wsgi::new(AppStart {
            settings,
            listeners: vec![ListenerEnviron::unix(false)],
            workers: 1,
            run_once: true,
            renounce: &renounce,
            facts: &WorkerFacts { age: 1, requests: Arc::new(|| 0) },
            told: None,
            log: log.clone(),
            environ_names: Vec::new(),
            stacks: None,
        })
    };
    let exit = streams.serve(settings, &log, || {
        start().map_err(|error| {
            let code = if error.app { code::APP } else { code::BOOT };
            (error, code)
        })
    });
    log.finish();
    // Threads of the application may run still.
    process::exit_now(exit)
}

#[cfg(not(feature = "python"))]
fn run_cgi(_: &Settings, _: &[Notice]) -> i32 {
    complain(NO_PYTHON);
    code::APP
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
