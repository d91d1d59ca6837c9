//! gunicorn's part of the command line: flags that are no option here, and the arguments in GUNICORN_CMD_ARGS.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, ArgMatches};

use crate::config::gunicorn::{self, ARGUMENTS_VARIABLE, SETTINGS, Setting, Taken, Value};
use crate::config::{self, Given, Notice, Origin, options};

use super::{UsageError, command, given, one_line};

/// The name of gunicorn's program.
const PROGRAM: &str = "gunicorn";

/// Options and notices of one source.
pub(super) type ArgumentsLayer = (Vec<Given>, Vec<Notice>);

/// The flags of settings that are no option, for the parser and not for `--help`.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    flagged().map(|setting| {
        let arg = Arg::new(setting.name).long(setting.flags[0]).aliases(&setting.flags[1..]).short(setting.short).hide(true);
        match setting.switch {
            true => arg.action(ArgAction::SetTrue),
            false => arg.action(ArgAction::Append).value_parser(OsStringValueParser::new()).allow_negative_numbers(true),
        }
    })
}

fn flagged() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| !setting.flags.is_empty())
}

/// What the log is told about such flags; the error is that of one that is refused.
pub(super) fn notices(matches: &ArgMatches, origin: &Origin) -> Result<Vec<Notice>, config::Error> {
    let mut notices = Vec::new();
    for taken in outcomes(matches, origin) {
        if let Taken::Notice(notice) = taken? {
            notices.push(notice);
        }
    }
    Ok(notices)
}

/// What becomes of each such flag that is given.
pub(super) fn outcomes(matches: &ArgMatches, origin: &Origin) -> Vec<Result<Taken, config::Error>> {
    let mut outcomes = Vec::new();
    for setting in flagged() {
        let values: Vec<Value> = match setting.switch {
            true if matches.get_flag(setting.name) => vec![Value::Bool(!setting.off)],
            true => Vec::new(),
            false => matches.get_many::<OsString>(setting.name).into_iter().flatten().map(|value| text(value)).collect(),
        };
        outcomes.extend(values.iter().map(|value| setting.take(value, origin)));
    }
    outcomes
}

fn text(value: &OsStr) -> Value {
    Value::Text(value.to_string_lossy().into_owned())
}

/// The flag of the setting that is called so in a file of gunicorn, or of one whose flag was written with underscores.
pub(super) fn flag(name: &str) -> Option<&'static str> {
    let setting = gunicorn::find(name)?;
    let written = |flag: &&&str| flag.replace('-', "_") == name.replace('-', "_");
    setting.flags.iter().find(written).copied().or_else(|| setting.option().map(|option| option.name))
}

/// Whether the program was called by gunicorn's name.
pub(super) fn is_called(program: Option<&OsString>) -> bool {
    program.is_some_and(|program| Path::new(program).file_name() == Some(OsStr::new(PROGRAM)))
}

/// The options in the value of GUNICORN_CMD_ARGS.
pub(super) fn parse_variable(value: &OsStr) -> Result<ArgumentsLayer, UsageError> {
    let origin = Origin::GunicornArguments;
    let failed = |why: &str| UsageError::Arguments(format!("{ARGUMENTS_VARIABLE} (environment): {why}"));
    let value = value.to_str().ok_or_else(|| failed("is not valid UTF-8"))?;
    let words = gunicorn::split(value).ok_or_else(|| failed("a quotation does not end"))?;
    let words = std::iter::once(PROGRAM.to_owned()).chain(words);
    let matches = command().try_get_matches_from(words).map_err(|error| match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => {
            failed("--help and --version belong on the command line")
        }
        _ => UsageError::Arguments(one_line(&error, &origin)),
    })?;
    let mut options = given(&matches, &origin)?;
    // gunicorn takes no application from there.
    options.retain(|given| given.option.name != "app");
    Ok((options, notices(&matches, &origin)?))
}

/// The number of workers where nothing says another.
pub(super) fn default_of_workers() -> Given {
    let (name, value) = gunicorn::WORKERS;
    let option = options::find(name).expect("the name is in the table, as a test shows");
    Given { option, values: vec![value.into()], origin: Origin::GunicornDefault }
}

/// The notice that this is the number.
pub(super) fn few_workers() -> Notice {
    let (name, value) = gunicorn::WORKERS;
    Notice::info(format!(
        "--{name} is not given: {value}, as gunicorn has it, for a configuration of gunicorn; --{name} auto takes one for each core"
    ))
}

/// The notice that the variable is not read.
pub(super) fn unread() -> Notice {
    Notice::warning(format!(
        "{ARGUMENTS_VARIABLE} (environment) is not read: that takes a {} or a program called {PROGRAM}; give the options by the \
         command line, by variables such as TAPSTER_WORKERS, or in a file",
        gunicorn::DEFAULT_FILE
    ))
}
