//! The commands of an operator: their words, and what they mean. They stand first; an application module of such a name is
//! `status:app` or `./status.py`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::OsStringValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, value_parser};

use crate::config::{Level, Origin};
use crate::operator::{Operation, Verb};

use super::{CliCommand, HELP_WIDTH_MAX, UsageError, one_line};

/// How long `--wait` waits where it does not say.
const WAIT_DEFAULT: &str = "60";

/// Longest wait in seconds.
const WAIT_MAX: u64 = 3600;

const EXIT_CODES: &str = "\
Exit status:
  0  done                        3  nobody answers
  1  failed                      4  not done in time
  2  wrong usage";

/// The verbs with what they do.
const VERBS: [(&str, &str); 10] = [
    ("status", "Show the server once; exit 1 when it is degraded or not ready"),
    ("top", "Show the server in the terminal, anew each second"),
    ("requests", "Show the requests in the application, the oldest first"),
    ("reload", "Load configuration and application again, without a gap"),
    ("upgrade", "Become the program that is on the disk now, without a gap"),
    ("stop", "Answer what was accepted, then end"),
    ("scale", "Have so many workers, until the next reload"),
    ("stacks", "Show the Python stack of every thread, with its request"),
    ("log-level", "Record this severity and above, until the next reload"),
    ("reopen", "Open the log files again, after they were moved away"),
];

/// Whether the arguments (the first is the program) are a command to a running server.
pub fn is_asked(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| VERBS.iter().any(|(verb, _)| word == verb))
}

/// The verbs, for `--help`.
pub fn listed() -> String {
    let mut text = String::from("Commands to a running server, as the first word (tapster COMMAND --help):\n");
    for (verb, about) in VERBS {
        text += &format!("  {verb:<9}  {about}\n");
    }
    text += "tapster completions bash, zsh or fish prints what the shell needs to complete all this.\n";
    text
}

/// Reads the arguments of a command.
pub fn parse(args: &[OsString]) -> Result<CliCommand, UsageError> {
    let mut matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(CliCommand::Print(error.to_string()));
        }
        Err(error) => return Err(UsageError::Arguments(one_line(&error, &Origin::CommandLine))),
    };
    let Some((name, matches)) = matches.remove_subcommand() else {
        return Err(UsageError::Arguments("a command is missing; see 'tapster --help'".into()));
    };
    let verb = verb(&name, &matches)?;
    let socket = matches.get_one::<OsString>("control-socket").map(PathBuf::from);
    Ok(CliCommand::Operate(Operation { socket, name: matches.get_one::<String>("name").cloned(), verb }))
}

fn verb(name: &str, matches: &ArgMatches) -> Result<Verb, UsageError> {
    let flag = |name: &str| matches.get_flag(name);
    let wait = || matches.get_one::<u64>("wait").map(|seconds| Duration::from_secs(*seconds));
    Ok(match name {
        "status" => Verb::Status { json: flag("json") },
        "top" => {
            let interval = matches.get_one::<u64>("interval").copied().unwrap_or(1);
            Verb::Top { interval: Duration::from_secs(interval), once: flag("once") }
        }
        "requests" => Verb::Requests { json: flag("json") },
        "reload" => Verb::Reload { wait: wait() },
        "upgrade" => Verb::Upgrade { wait: wait() },
        "stop" => Verb::Stop { quick: flag("quick"), wait: wait() },
        "scale" => Verb::Scale(matches.get_one::<u64>("workers").copied().unwrap_or(1) as usize),
        "stacks" => Verb::Stacks { worker: matches.get_one::<u64>("worker").map(|worker| *worker as usize), json: flag("json") },
        "log-level" => {
            let text = matches.get_one::<String>("level").cloned().unwrap_or_default();
            let level = Level::parse(&text).map_err(|why| UsageError::Arguments(format!("LEVEL (command line): {why}")))?;
            Verb::LogLevel(level.name().to_ascii_lowercase())
        }
        _ => Verb::Reopen,
    })
}

/// The commands as clap sees them.
pub fn command() -> clap::Command {
    let root = clap::Command::new("tapster").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    root.max_term_width(HELP_WIDTH_MAX).subcommands(VERBS.map(|(verb, about)| subcommand(verb, about)))
}

fn subcommand(verb: &'static str, about: &'static str) -> clap::Command {
    let shows = matches!(verb, "status" | "top" | "requests" | "stacks");
    let command = clap::Command::new(verb)
        .about(format!("{about}."))
        .after_help(EXIT_CODES)
        .arg(Arg::new("control-socket").long("control-socket").value_name("PATH").value_parser(OsStringValueParser::new()).help(
            if shows {
                "Control socket of the server [default: the only one that there is; also from TAPSTER_CONTROL_SOCKET]"
            } else {
                "Control socket of the server, if not --name [also from TAPSTER_CONTROL_SOCKET]"
            },
        ))
        .arg(Arg::new("name").long("name").short('n').value_name("NAME").help(if shows {
            "Name of the server, where there are several"
        } else {
            "Name of the server"
        }));
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let wait = |what: &str| {
        Arg::new("wait")
            .long("wait")
            .value_name("SECONDS")
            .value_parser(value_parser!(u64).range(1..=WAIT_MAX))
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value(WAIT_DEFAULT)
            .help(format!("Wait until {what}, for so long [default: {WAIT_DEFAULT}]"))
    };
    match verb {
        "status" | "requests" => command.arg(json),
        "top" => command
            .arg(
                Arg::new("interval")
                    .long("interval")
                    .value_name("SECONDS")
                    .value_parser(value_parser!(u64).range(1..=WAIT_MAX))
                    .help("Time between two looks [default: 1]"),
            )
            .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help("Print one frame and exit")),
        "reload" => command.arg(wait("the new generation serves, or has failed")),
        "upgrade" => command.arg(wait("the new program serves, or has failed")),
        "stop" => command
            .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("Finish only the requests that run"))
            .arg(wait("the server is gone")),
        "scale" => command
            .arg(Arg::new("workers").value_name("WORKERS").required(true).value_parser(value_parser!(u64).range(1..=100_000))),
        "stacks" => command.arg(json).arg(
            Arg::new("worker").value_name("WORKER").value_parser(value_parser!(u64)).help("The worker [default: all of them]"),
        ),
        "log-level" => {
            command.arg(Arg::new("level").value_name("LEVEL").required(true).help("debug, info, warning, error or critical"))
        }
        _ => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<CliCommand, UsageError> {
        let args: Vec<OsString> = std::iter::once("tapster").chain(words.iter().copied()).map(OsString::from).collect();
        assert!(is_asked(&args));
        parse(&args)
    }

    #[track_caller]
    fn verb_of(words: &[&str]) -> Verb {
        match parsed(words) {
            Ok(CliCommand::Operate(operation)) => operation.verb,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn clap_accepts_the_commands() {
        command().debug_assert();
    }

    #[test]
    fn a_wait_has_its_time_or_the_default() {
        assert_eq!(verb_of(&["reload"]), Verb::Reload { wait: None });
        assert_eq!(verb_of(&["reload", "--wait"]), Verb::Reload { wait: Some(Duration::from_secs(60)) });
        assert_eq!(verb_of(&["stop", "--quick", "--wait=5"]), Verb::Stop { quick: true, wait: Some(Duration::from_secs(5)) });
        assert_eq!(verb_of(&["scale", "3"]), Verb::Scale(3));
        assert_eq!(verb_of(&["log-level", "WARN"]), Verb::LogLevel("warning".into()));
    }

    #[test]
    fn mistakes_are_one_line() {
        for words in
            [&["scale"][..], &["scale", "0"], &["scale", "x"], &["log-level", "loud"], &["status", "x"], &["reload", "--wait=0"]]
        {
            let error = parsed(words).expect_err("it must be refused").to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(!is_asked(&["tapster".into(), "status:app".into()]));
        assert!(!is_asked(&["tapster".into(), "-w".into(), "status".into()]));
    }
}
