//! The command line: clap's view of the options table, and the merge of its arguments with environment and file.
//!
//! clap only splits the arguments; values are checked by `config`, where those of the environment and the file are checked too,
//! so that a mistake gets the same message wherever it is made.

pub mod completions;
mod gunicorn;
pub mod migrate;
pub mod operate;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::OsStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};

use crate::config::gunicorn::{Content, DEFAULT_FILE, Source, Value};
use crate::config::hooks::Hooks;
use crate::config::options::{self, Opt, Section, TABLE, ValueKind};
use crate::config::{self, AppSpec, Configuration, Given, Notice, Origin, Settings, shown};
use crate::operator::Operation;

/// Widest line of `--help`, in columns; a narrower terminal wraps earlier.
const HELP_WIDTH_MAX: usize = 100;

/// Order of `--help`: the description first, examples last.
const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}";

/// The text after the options in `--help`, before the signals.
const TIMES: &str = "\
Times are 30, 1.5, 500ms, 30s, 5m or 1h (seconds without a unit); sizes are bytes, or 512k, 10M, 1G.
Options come from the defaults, the file of --config, the environment (TAPSTER_LOG_LEVEL for --log-level) and the command line; \
the later wins. A long option may be cut short where one option alone begins like that.";

/// The rest of it, after the signals.
const CODES_AND_EXAMPLES: &str = "\
Exit status:
  0  stopped in order            3  the workers failed to boot
  1  any other failure           4  the application could not be loaded
  2  usage or configuration error

Examples:
  tapster                                              the welcome page on http://127.0.0.1:8000
  tapster app:app                                      the callable `app` of app.py
  tapster -w 4 -b unix:/run/app.sock project.wsgi      Django behind a proxy
  tapster --venv venv --access-logfile - 'site:make(\"production\")'
  tapster migrate uwsgi.ini                            what a file of uWSGI (or gunicorn) is as a TOML file";

/// A running server asks its new binary with it (SIGUSR2). People do not use it, so it is in no table.
const CHECK_STATE: &str = "check-state";

/// The task of the command.
#[derive(Debug)]
pub enum CliCommand {
    /// Serve; with notices for the error log.
    Serve(Box<Settings>, Vec<Notice>),
    /// Answer the one request that a web server has started the process for; with notices for the error log.
    Cgi(Box<Settings>, Vec<Notice>),
    /// Load the application and exit; with notices for the error log.
    CheckConfig(Box<Settings>, Vec<Notice>),
    /// Report whether the running server whose state is on standard input could continue with these settings, and exit.
    CheckState(Box<Settings>),
    /// Ask a running server.
    Operate(Operation),
    /// Print a translation, and exit with 2 if it is to count as failed.
    Migrated {
        /// What to print.
        text: String,
        /// Whether something is lost that must not be.
        failed: bool,
    },
    /// Print this (help, version, configuration) to standard output and exit with 0. It ends with a newline.
    Print(String),
}

/// Arguments, environment or file that cannot be used; the exit code is 2. `Display` is one line without a line end:
/// `--bind 127.0.0.1:99999 (command line): the port must be 0 to 65535`. The traceback of a gunicorn file follows on more lines.
#[derive(Debug)]
pub enum UsageError {
    /// The arguments cannot be split into options.
    Arguments(String),
    /// An option cannot be used.
    Config(config::Error),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(text) => f.write_str(text),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UsageError {}

impl UsageError {
    fn map_config(self, change: impl FnOnce(config::Error) -> config::Error) -> Self {
        match self {
            Self::Config(error) => Self::Config(change(error)),
            Self::Arguments(text) => Self::Arguments(text),
        }
    }
}

impl From<config::Error> for UsageError {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}

/// Executes a gunicorn file, as the user that the command line or a variable names if they do, and returns what it has set.
pub type Execute<'a> = &'a dyn Fn(&Source, Option<&str>) -> Result<Content, config::Error>;

/// Reads the arguments (the first is the program), the environment of the process, and the configuration file that they name.
pub fn parse(args: impl IntoIterator<Item = OsString>, execute: Execute<'_>) -> Result<CliCommand, UsageError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let program = args.first().cloned();
    let origin = Origin::CommandLine;
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(CliCommand::Print(error.to_string()));
        }
        Err(error) => return Err(UsageError::Arguments(one_line(&error, &origin))),
    };
    let own = (given(&matches, &origin)?, gunicorn::notices(&matches, &origin)?);
    let is_gunicorn = gunicorn::is_called(program.as_ref());
    let (configuration, notices) = gather(own, Files::All, is_gunicorn, execute)
        .map_err(|error| error.map_config(|error| with_hint(error, matches.contains_id("app"))))?;
    if matches.get_flag(CHECK_STATE) {
        return Ok(CliCommand::CheckState(Box::new(checked(configuration)?)));
    }
    match (matches.get_flag("check-config"), matches.get_flag("print-config")) {
        (true, true) => Err(UsageError::Arguments("--check-config and --print-config (command line): give one of them".into())),
        (true, false) => Ok(CliCommand::CheckConfig(Box::new(checked(configuration)?), notices)),
        (false, true) => {
            let notices: String = notices.iter().map(|notice| format!("# {notice}\n")).collect();
            Ok(CliCommand::Print(notices + &config::to_toml(&configuration)))
        }
        (false, false) if matches.get_flag("cgi") => Ok(CliCommand::Cgi(Box::new(checked(configuration)?), notices)),
        (false, false) => Ok(CliCommand::Serve(Box::new(checked(configuration)?), notices)),
    }
}

/// Reads the arguments of a Python function, the environment of the process, and the configuration file that they name. What is
/// served is the function's own.
pub fn parse_call(
    arguments: impl IntoIterator<Item = (String, Value)>,
    app: AppSpec,
    execute: Execute<'_>,
) -> Result<(Settings, Vec<Notice>), UsageError> {
    let own = config::call::read(arguments)?;
    let (mut configuration, notices) = gather(own, Files::Named, false, execute)?;
    configuration.settings.app = app;
    Ok((checked(configuration)?, notices))
}

/// Which configuration files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// The one that is named, else gunicorn's in the working directory.
    All,
    /// The one that is named.
    Named,
}

/// Puts together what the arguments give with what the environment and the file give.
fn gather(
    (arguments, mut notices): gunicorn::ArgumentsLayer,
    files: Files,
    is_gunicorn: bool,
    execute: Execute<'_>,
) -> Result<(Configuration, Vec<Notice>), UsageError> {
    let mut variables = config::environment::read(std::env::vars_os())?;
    notices.append(&mut variables.notices);
    let in_variable = variables.arguments.as_deref().map(gunicorn::parse_variable);
    let config = named("config", &arguments).or_else(|| named("config", &variables.own));
    let config = config.or_else(|| named("config", &in_variable.as_ref()?.as_ref().ok()?.0));
    let file = ConfigFile::find(config, files);
    let mut layer = in_variable.unwrap_or_else(|| Ok(Default::default()));
    if !is_gunicorn && !matches!(file, ConfigFile::Gunicorn(_)) {
        if variables.arguments.is_some() {
            notices.push(gunicorn::unread());
        }
        layer = Ok(Default::default());
    }
    let (in_variable, words) = layer?;
    notices.extend(words);
    let user = named("user", &arguments).or_else(|| named("user", &variables.own)).map(|given| given.values.concat());
    let ((in_file, words), mut hooks) = file.read(user.as_deref(), execute)?;
    notices.extend(words);
    let is_compatible = is_gunicorn || matches!(file, ConfigFile::Gunicorn(_));
    let default = is_compatible.then(gunicorn::default_of_workers).into_iter().collect();
    let layers = [default, variables.foreign, in_file, in_variable, variables.own, arguments];
    let mut configuration = config::merge(layers.into_iter().flatten())?;
    if configuration.given("workers").is_some_and(|given| given.origin == Origin::GunicornDefault) {
        notices.push(gunicorn::few_workers());
    }
    if let Some(hooks) = &mut hooks {
        hooks.settings = config::gunicorn::effective(&configuration);
    }
    configuration.settings.hooks = hooks;
    configuration.settings.config_file = file.path();
    Ok((configuration, notices))
}

/// What of the arguments and the environment counts for a process that executes a gunicorn file: user, group, interpreter.
pub fn parse_for_file(args: &[OsString]) -> Result<Settings, UsageError> {
    let origin = Origin::CommandLine;
    let matches = command().try_get_matches_from(args);
    let matches = matches.map_err(|error| UsageError::Arguments(one_line(&error, &origin)))?;
    let variables = config::environment::read(std::env::vars_os())?;
    let layers = [variables.foreign, variables.own, given(&matches, &origin)?];
    Ok(config::merge(layers.into_iter().flatten())?.settings)
}

/// Says what may be meant where an option whose value may be left out has taken APP for it; `has_app`: there is another one.
fn with_hint(mut error: config::Error, has_app: bool) -> config::Error {
    if let config::Error::Value { option, value, origin: Origin::CommandLine, why } = &mut error
        && let Some(bare) = option.bare.filter(|_| !option.equals && !has_app)
    {
        let (name, value) = (option.name, shown(value));
        *why += &format!(" (if {value} is the application, put it first or give --{name}={bare} {value})");
    }
    error
}

fn named(name: &str, layer: &[Given]) -> Option<Given> {
    layer.iter().find(|given| given.option.name == name).cloned()
}

/// The configuration file.
enum ConfigFile {
    /// There is none.
    None,
    /// The one that an option names.
    Toml(Given),
    /// One that Python executes.
    Gunicorn(Source),
}

impl ConfigFile {
    /// The file that `--config` names, or gunicorn's in the working directory.
    fn find(config: Option<Given>, files: Files) -> Self {
        match config {
            Some(config) => match Source::named(&config.values.concat()) {
                Some(source) => Self::Gunicorn(source),
                None => Self::Toml(config),
            },
            None if files == Files::All && Path::new(DEFAULT_FILE).is_file() => Self::Gunicorn(Source::File(DEFAULT_FILE.into())),
            None => Self::None,
        }
    }

    /// Where it is; `None`: there is none, or Python looks for it.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::None | Self::Gunicorn(Source::Module(_)) => None,
            Self::Toml(config) => Some(config.values.concat().into()),
            Self::Gunicorn(Source::File(path)) => Some(path.clone()),
        }
    }

    /// What it gives, and the functions that it defines.
    fn read(&self, user: Option<&str>, execute: Execute<'_>) -> Result<(gunicorn::ArgumentsLayer, Option<Hooks>), UsageError> {
        match self {
            Self::None => Ok(Default::default()),
            Self::Toml(config) => Ok((read_file(config)?, None)),
            Self::Gunicorn(source) => {
                let layer = execute(source, user)?.layer(source)?;
                let path = source.path();
                let said = Notice::info(format!("configuration of gunicorn: {}", shown(&path.to_string_lossy())));
                let start = std::env::current_dir().unwrap_or_default();
                let hooks = Hooks::new(source.clone(), start, &layer.hooks);
                Ok(((layer.given, std::iter::once(said).chain(layer.notices).collect()), hooks))
            }
        }
    }
}

/// The options table as clap sees it.
pub fn command() -> clap::Command {
    clap::Command::new("tapster")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Tapster, a prefork WSGI server: serves a Python web application over HTTP.")
        .override_usage("tapster [OPTIONS] [APP]")
        .help_template(TEMPLATE)
        .after_help(format!("{TIMES}\n\n{}\n{}\n{CODES_AND_EXAMPLES}", operate::listed(), signals()))
        .max_term_width(HELP_WIDTH_MAX)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .arg(Arg::new(CHECK_STATE).long(CHECK_STATE).action(ArgAction::SetTrue).hide(true))
        .args(in_sections().enumerate().map(|(row, option)| argument(option).display_order(row)))
        .args(gunicorn::arguments())
}

/// The rows of the table section by section: clap shows a section where the first option of it stands.
fn in_sections() -> impl Iterator<Item = &'static Opt> {
    Section::ALL.into_iter().flat_map(|section| TABLE.iter().filter(move |option| option.section == section))
}

/// The signals' part of `--help`.
fn signals() -> String {
    let mut text = String::from("Signals:\n");
    for group in config::signals::groups() {
        let names: Vec<_> = group.iter().map(|row| row.name).collect();
        text += &format!("  {:<9}  {}\n", names.join(", "), group[0].text);
    }
    text
}

fn argument(option: &'static Opt) -> Arg {
    let default =
        option.default.filter(|_| option.kind != ValueKind::Flag).map(|text| format!(" [default: {text}]")).unwrap_or_default();
    let foreign = option.foreign_help().map(|variable| format!(" [also from {variable}]")).unwrap_or_default();
    let help = format!("{}{default}{foreign}", option.help);
    let arg = Arg::new(option.name).help(help).help_heading(option.section.heading());
    if option.kind == ValueKind::Positional {
        return arg.value_name(option.value).value_parser(OsStringValueParser::new());
    }
    let arg = arg.long(option.name).aliases(option.aliases).short(option.short);
    let action = match (option.name, option.kind) {
        ("help", _) => ArgAction::Help,
        ("version", _) => ArgAction::Version,
        (_, ValueKind::Flag | ValueKind::Switch) => ArgAction::SetTrue,
        (_, ValueKind::List) => ArgAction::Append,
        (_, ValueKind::Positional | ValueKind::Text | ValueKind::Number | ValueKind::Octal) => ArgAction::Set,
    };
    let arg = arg.action(action);
    // gunicorn's.
    let arg = if option.name == "version" { arg.short_alias('v') } else { arg };
    if let Some(bare) = option.bare {
        return arg
            .value_name(option.value)
            .value_parser(OsStringValueParser::new())
            .num_args(0..=1)
            .require_equals(option.equals)
            .default_missing_value(bare);
    }
    match option.kind {
        ValueKind::Flag | ValueKind::Switch => arg,
        // A negative number is a value out of bounds, not an unknown option.
        ValueKind::Positional | ValueKind::Text | ValueKind::Number | ValueKind::Octal | ValueKind::List => {
            arg.value_name(option.value).value_parser(OsStringValueParser::new()).allow_negative_numbers(true)
        }
    }
}

fn given(matches: &ArgMatches, origin: &Origin) -> Result<Vec<Given>, UsageError> {
    let flags = TABLE.iter().filter(|option| option.kind == ValueKind::Flag && matches.get_flag(option.name));
    let flags = flags.map(|option| Ok(Given { option, values: vec!["true".into()], origin: origin.clone() }));
    let rows = TABLE.iter().filter(|option| !matches!(option.kind, ValueKind::Flag | ValueKind::Switch));
    let present = rows.filter_map(|option| Some((option, matches.get_many::<OsString>(option.name)?)));
    present
        .map(|(option, values)| {
            let text = |value: &OsString| match value.to_str() {
                Some(text) => Ok(text.to_owned()),
                None => Err(UsageError::Config(config::Error::Value {
                    option,
                    value: value.to_string_lossy().into_owned(),
                    origin: origin.clone(),
                    why: "is not valid UTF-8".into(),
                })),
            };
            Ok(Given { option, values: values.map(text).collect::<Result<_, _>>()?, origin: origin.clone() })
        })
        .chain(flags)
        .collect()
}

fn read_file(config: &Given) -> Result<gunicorn::ArgumentsLayer, UsageError> {
    let name = config.values.concat();
    let path = PathBuf::from(&name);
    let content = std::fs::read(&path).map_err(|error| config::Error::Value {
        option: config.option,
        value: name,
        origin: config.origin.clone(),
        why: format!("cannot be read: {}", reason(&error)),
    })?;
    Ok(config::file::read(&content, &path)?)
}

/// The system's words without Rust's error number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Decides whether `site.wsgi` is a module or a file, and refuses directories that are missing, which only the file system shows; and
/// decides the settings that depend on origins.
fn checked(configuration: Configuration) -> Result<Settings, config::Error> {
    refuse_missing_directories(&configuration)?;
    refuse_unreachable_app(&configuration)?;
    let given = configuration.given("bind").map(|given| &given.origin);
    let binds_given = matches!(given, Some(Origin::CommandLine | Origin::Call | Origin::GunicornArguments | Origin::File { .. }));
    let mut settings = Settings { binds_given, ..configuration.settings };
    let base = settings.chdir.clone().unwrap_or_default();
    let is_file = |path: &Path| base.join(path).is_file();
    settings.app = settings.app.prefer_file(is_file);
    for mount in &mut settings.mounts {
        mount.app = std::mem::take(&mut mount.app).prefer_file(is_file);
    }
    Ok(settings)
}

/// Refuses an application that no request could reach, since a mount has every path.
fn refuse_unreachable_app(configuration: &Configuration) -> Result<(), config::Error> {
    let Configuration { settings, .. } = configuration;
    let Some(given) = configuration.given("mount").filter(|_| settings.app != AppSpec::Welcome) else { return Ok(()) };
    let mut mounts = settings.mounts.iter().zip(&given.values);
    let Some((_, value)) = mounts.find(|(mount, _)| mount.is_everything()) else { return Ok(()) };
    let why = "has every path, so that APP would never be called; leave one of the two out".into();
    Err(config::Error::Value { option: given.option, value: value.clone(), origin: given.origin.clone(), why })
}

/// Refuses directories of static files that are none, before anything is bound.
fn refuse_missing_directories(configuration: &Configuration) -> Result<(), config::Error> {
    let Some(given) = configuration.given("static-map") else { return Ok(()) };
    let base = configuration.settings.chdir.clone().unwrap_or_default();
    for (map, value) in configuration.settings.static_files.maps.iter().zip(&given.values) {
        let why = match std::fs::metadata(base.join(&map.directory)) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => "names a file; give the directory with the files".to_owned(),
            Err(error) => format!("its directory cannot be used: {}", reason(&error)),
        };
        return Err(config::Error::Value { option: given.option, value: value.clone(), origin: given.origin.clone(), why });
    }
    Ok(())
}

/// What other servers call the halves of an address.
const ADDRESS: [&str; 2] = ["host", "port"];

/// clap's error as one line: what, where, why, what to do.
fn one_line(error: &clap::Error, origin: &Origin) -> String {
    // clap names an argument with its value's name: `--workers <N>`.
    let invalid = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let name = shown(invalid.split_whitespace().next().unwrap_or_default());
    let named = |option: &Opt| option.kind != ValueKind::Positional;
    match error.kind() {
        // clap suggests as well, but its threshold is so low that most suggestions are noise.
        ErrorKind::UnknownArgument if invalid.starts_with('-') => {
            let (name, longer) = (invalid.trim_start_matches('-'), longer(invalid));
            let similar = gunicorn::flag(name).or_else(|| options::similar(name, named).map(|option| option.name));
            match similar {
                _ if ADDRESS.contains(&name) => {
                    format!("{} ({origin}): no such option; write --bind HOST:PORT", shown(invalid))
                }
                _ if longer.len() > 1 => {
                    format!("{} ({origin}): is short for more than one option; write {}", shown(invalid), longer.join(" or "))
                }
                Some(name) => format!("{} ({origin}): no such option; did you mean --{name}?", shown(invalid)),
                None => format!("{} ({origin}): no such option; 'tapster --help' lists them all", shown(invalid)),
            }
        }
        ErrorKind::UnknownArgument => {
            format!("{} ({origin}): one APP is enough; quote it for the shell if it has blanks", shown(invalid))
        }
        ErrorKind::ArgumentConflict => format!("{name} ({origin}): is given twice; leave one out"),
        // The only way to miss a value: `--workers` last or in front of another option.
        ErrorKind::InvalidValue => {
            format!("{name} ({origin}): a value is missing; write {}", invalid.replace(['<', '>'], ""))
        }
        ErrorKind::TooManyValues => format!("{name} ({origin}): takes no value"),
        _ => {
            let text = error.to_string();
            format!("{} ({origin}); see 'tapster --help'", text.lines().next().unwrap_or("error").trim_start_matches("error: "))
        }
    }
}

/// The options that begin as this argument does.
fn longer(argument: &str) -> Vec<String> {
    let Some(name) = argument.strip_prefix("--").filter(|name| !name.is_empty()) else { return Vec::new() };
    let command = command();
    let long = command.get_arguments().filter_map(|arg| arg.get_long());
    long.filter(|long| long.starts_with(name) && *long != CHECK_STATE).map(|long| format!("--{long}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_table() {
        command().debug_assert();
    }
}
