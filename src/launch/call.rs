//! A server that a Python program calls (`tapster.serve`): the master lives in the process of the caller, until it ends.
//!
//! The application has a name, or is an object of the caller. With a name the workers are started as by the command. With an object
//! they are forks of the caller: they have what it has loaded, and nothing can load that anew but the caller, which SIGUSR2 starts
//! again.

use std::ffi::OsString;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value as Json};

use crate::cli::{self, UsageError};
use crate::config::gunicorn::{Source, Value};
use crate::config::{self, AppSpec, Notice, Settings};
use crate::master::event::Generation;
use crate::master::{self, Outcome, Past, Program, Reread};
use crate::sys::signals::Actions;
use crate::sys::{fd, process};

use super::{access, answer_check, born, execute};

/// Why `reload` is refused with an object.
const NOT_WATCHED: &str = "reload: the code of an object is this program's own, and no worker can load it again; give the \
    application by its name, as in tapster.serve(\"app:app\", reload=True)";

/// Why `debug` is refused.
const NOT_ALONE: &str = "debug: the server would be one process by the command alone, as in tapster --debug app:app; workers of a \
    program that calls it are other processes";

/// Why HUP loads nothing, and what does.
const NOT_OURS: &str = "the application is an object of the program that has called the server, whose code only that can load; send \
                        SIGUSR2, which starts the program anew in this process, with the sockets open";

/// Options that count for the process that executes a gunicorn file.
const FOR_FILES: [&str; 5] = ["chdir", "group", "pythonpath", "user", "venv"];

/// What is called.
#[derive(Debug)]
pub struct ServerCall {
    /// The words that start the calling program anew.
    pub script: Vec<OsString>,
    /// The words that start the command in the same interpreter.
    pub words: Vec<OsString>,
    /// The application by its name, or what to call the program whose object it is.
    pub app: Result<String, String>,
    /// The options as a JSON object: names with underscores; null, booleans, numbers, strings and arrays of strings.
    pub options: String,
    /// Warnings for the error log.
    pub warnings: Vec<String>,
}

/// A call that cannot be served; `Display` is one line.
#[derive(Debug)]
pub enum CallError {
    /// There is no such argument.
    Argument(String),
    /// An argument has a value that cannot be used, or the file or the environment has.
    Value(String),
    /// The process cannot be a server.
    Process(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(text) | Self::Value(text) | Self::Process(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CallError {}

impl From<UsageError> for CallError {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Config(config::Error::UnknownKey { .. }) => Self::Argument(error.to_string()),
            UsageError::Config(_) | UsageError::Arguments(_) => Self::Value(error.to_string()),
        }
    }
}

/// Handlers of the server's signals that an earlier call has installed: signal-hook installs each only once in a process.
static HANDLERS: Mutex<Option<Actions>> = Mutex::new(None);

/// Serves until the server is told to stop, and returns the exit code. In a worker that is a fork it does not return. The calling
/// thread is the main one, holds the lock of the interpreter, and nothing but Python's defaults handle the server's signals.
pub fn serve(call: ServerCall) -> Result<i32, CallError> {
    #[cfg(feature = "python")]
    crate::sys::host::live_in(super::HOST);
    // A program may have closed them, as daemons do. If it fails, the next file fails too.
    let _ = fd::open_streams();
    let on_trial = master::is_on_trial();
    let ServerCall { script, words, app, options, warnings } = call;
    let options = arguments(&options)?;
    let name = app.as_ref().ok().map(OsString::from);
    let program = Program::called(script, words, for_files(&options), name, access::needs());
    let (helper, is_object) = (program.helper().clone(), app.is_err());
    // It removes a variable that the environment's reader would not know.
    let past = Past::find(program).map_err(CallError::Process)?;
    let read = move || {
        let args: Vec<OsString> = [OsString::from("tapster")].into_iter().chain(for_files(&options)).collect();
        let run = |source: &Source, user: Option<&str>| execute(&helper, &args, source, user);
        cli::parse_call(options.clone(), spec(&app)?, &run).map_err(CallError::from)
    };
    let (settings, mut notices) = read()?;
    if is_object && settings.watch().is_some() {
        return Err(CallError::Value(NOT_WATCHED.to_owned()));
    }
    if settings.debug {
        return Err(CallError::Value(NOT_ALONE.to_owned()));
    }
    if on_trial {
        process::exit_now(answer_check(&settings));
    }
    notices.extend(warnings.into_iter().map(Notice::warning));
    let before = put_handlers_back();
    let outcome = master::run(settings, &notices, reread(read, is_object, past.first_generation()), past);
    match outcome {
        Outcome::Exit(code) => {
            *HANDLERS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Actions::now(&master::handled()));
            before.set();
            Ok(code)
        }
        // The process does not end by returning: all that the caller does next is for the master.
        Outcome::Worker(boot) => born(*boot),
    }
}

/// The present handlers of the server's signals, in whose place those of an earlier call are put.
fn put_handlers_back() -> Actions {
    let before = Actions::now(&master::handled());
    if let Some(earlier) = &*HANDLERS.lock().unwrap_or_else(PoisonError::into_inner) {
        earlier.set();
    }
    before
}

/// What a reload asks. An object is reloaded once, if an upgrade has started the program: for the first generation of that.
fn reread(
    read: impl Fn() -> Result<(Settings, Vec<Notice>), CallError> + 'static,
    is_object: bool,
    first: Option<Generation>,
) -> Reread {
    Box::new(move |generation| {
        if is_object && first != Some(generation) {
            return Err(NOT_OURS.to_owned());
        }
        read().map_err(|error| error.to_string())
    })
}

fn spec(app: &Result<String, String>) -> Result<AppSpec, CallError> {
    match app {
        Ok(name) => AppSpec::parse(name).map_err(|why| CallError::Value(format!("{}: {why}", config::shown(name)))),
        Err(text) => Ok(AppSpec::Object { text: text.clone() }),
    }
}

fn arguments(options: &str) -> Result<Vec<(String, Value)>, CallError> {
    let options: Map<String, Json> =
        serde_json::from_str(options).map_err(|error| CallError::Value(format!("the options are no JSON: {error}")))?;
    Ok(options.into_iter().map(|(name, value)| (name, value_of(value))).collect())
}

fn value_of(value: Json) -> Value {
    match value {
        Json::Null => Value::None,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Integer(number),
            (None, Some(number)) => Value::Float(number),
            (None, None) => Value::Other(number.to_string()),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(value_of).collect()),
        Json::Object(_) => Value::Json(value.to_string()),
    }
}

/// The options that count for the process that executes a gunicorn file, as arguments of the command.
fn for_files(options: &[(String, Value)]) -> Vec<OsString> {
    let named = options.iter().filter(|(name, value)| FOR_FILES.contains(&name.as_str()) && *value != Value::None);
    named.map(|(name, value)| format!("--{name}={}", value.text()).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_as_json() {
        let options =
            arguments(r#"{"workers": 2, "keep_alive": 1.5, "bind": [":1"], "user": "x", "daemon": true, "venv": null}"#);
        let options = options.unwrap();
        assert_eq!(options[0], ("workers".to_owned(), Value::Integer(2)));
        assert_eq!(options[2], ("bind".to_owned(), Value::List(vec![Value::Text(":1".into())])));
        assert_eq!(for_files(&options), ["--user=x"]);
        assert!(matches!(arguments("[]"), Err(CallError::Value(_))));
    }

    #[test]
    fn an_object_is_reloaded_only_by_the_program_that_an_upgrade_has_started() {
        let settings = || Ok((Settings::default(), Vec::new()));
        assert!(reread(settings, false, None)(Generation(2)).is_ok());
        assert_eq!(reread(settings, true, None)(Generation(2)).unwrap_err(), NOT_OURS);
        let upgraded = reread(settings, true, Some(Generation(5)));
        assert!(upgraded(Generation(5)).is_ok());
        assert_eq!(upgraded(Generation(6)).unwrap_err(), NOT_OURS);
    }
}
