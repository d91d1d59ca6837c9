//! The one table of options. It feeds the command line, the environment, the file, `--help`, `--print-config`, the man page and
//! their tests: an option is one row in [`TABLE`] and one field of [`Settings`].
//!
//! Spelling: a row's name is that of the command line (gunicorn's where gunicorn has the option). The file takes it with `-` or
//! `_` between the words, the environment as `TAPSTER_` and the name in capitals with `_`.

mod bounds;
mod table;

use std::fmt;

use super::Settings;

pub use table::TABLE;

/// Prefix of the variables of the environment.
pub const PREFIX: &str = "TAPSTER_";

/// A name less similar than this (Jaro-Winkler, 0 to 1) is no suggestion: below it, suggestions are noise.
const SIMILAR: f64 = 0.8;

/// One option.
#[derive(Clone, Copy)]
pub struct Opt {
    /// Long name without dashes.
    pub name: &'static str,
    /// Other long names.
    pub aliases: &'static [&'static str],
    /// Short name.
    pub short: Option<char>,
    /// What stands for the value in `--help`; empty for a switch.
    pub value: &'static str,
    /// Shape of the value.
    pub kind: Kind,
    /// What stands for the value where the command line gives the option without one (`--log-syslog`); a value then needs the
    /// equals sign (`--log-syslog=PATH`). `None`: a value is needed.
    pub bare: Option<&'static str>,
    /// Text of the default; `None`: not set.
    pub default: Option<&'static str>,
    /// Meaning: whole sentences, plain text.
    pub help: &'static str,
    /// Where it stands in `--help` and in the man page.
    pub section: Section,
    /// The sources that may give it.
    pub sources: Sources,
    /// A variable that other software sets, read when ours is not set.
    pub foreign: Option<&'static str>,
    /// What separates the values of a list in one variable of the environment.
    pub separator: Option<char>,
    /// Empties the setting before the first value of a list.
    pub(super) clear: fn(&mut Settings),
    /// Checks one value and puts it into the settings; the error is the clause that follows the value in a message. `None`: the
    /// option steers the command itself and is no setting.
    pub(super) set: Option<Set>,
}

/// Checks a text and puts it into the settings.
type Set = fn(&mut Settings, &str) -> Result<(), String>;

/// Shape of an option's value: what the file may hold, and how often the command line may repeat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The argument without a name. A string in the file.
    Positional,
    /// A string.
    Text,
    /// A number, or a string with a unit or a word.
    Number,
    /// A string of octal digits, or an octal number.
    Octal,
    /// Repeatable; an array of strings in the file.
    List,
    /// On or off: no value on the command line, a boolean in the file, `true` or `false` in the environment.
    Flag,
    /// No value; command line only.
    Switch,
}

/// The sources that may give an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// Environment, file and command line.
    All,
    /// File and command line.
    NotEnvironment,
    /// Environment and command line.
    NotFile,
    /// Command line.
    CommandLine,
}

impl Sources {
    /// Whether a variable of the environment may give it.
    pub fn environment(self) -> bool {
        matches!(self, Self::All | Self::NotFile)
    }

    /// Whether the file may give it.
    pub fn file(self) -> bool {
        matches!(self, Self::All | Self::NotEnvironment)
    }
}

/// A group of options, in the order of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What is served.
    Application,
    /// Where it listens.
    Sockets,
    /// Processes.
    Workers,
    /// Timeouts.
    Timeouts,
    /// Limits of a request.
    Limits,
    /// Logs.
    Logs,
    /// Running as a service.
    Service,
    /// The command itself.
    Command,
}

impl Section {
    /// All sections in order.
    pub const ALL: [Self; 8] =
        [Self::Application, Self::Sockets, Self::Workers, Self::Timeouts, Self::Limits, Self::Logs, Self::Service, Self::Command];

    /// Heading.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Application => "Application",
            Self::Sockets => "Sockets",
            Self::Workers => "Workers",
            Self::Timeouts => "Timeouts",
            Self::Limits => "Request limits",
            Self::Logs => "Logs",
            Self::Service => "Service",
            Self::Command => "Configuration and information",
        }
    }
}

impl Opt {
    /// Key in the file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Variable of the environment.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key().to_ascii_uppercase())
    }

    /// The option with this name or alias, written with `-` or `_`.
    pub fn find(name: &str) -> Option<&'static Self> {
        let name = name.replace('-', "_");
        TABLE.iter().find(|option| option.keys().any(|key| key == name))
    }

    /// The option among `allowed` whose name is most like this one.
    pub fn similar(name: &str, allowed: impl Fn(&Self) -> bool) -> Option<&'static Self> {
        let name = name.replace('-', "_").to_ascii_lowercase();
        let likeness = |option: &Self| option.keys().map(|key| strsim::jaro_winkler(&key, &name)).fold(0.0, f64::max);
        let rated = TABLE.iter().filter(|option| allowed(option)).map(|option| (likeness(option), option));
        rated.filter(|(rate, _)| *rate >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, option)| option)
    }

    /// Name and aliases as keys.
    fn keys(&self) -> impl Iterator<Item = String> {
        std::iter::once(&self.name).chain(self.aliases).map(|name| name.replace('-', "_"))
    }
}

impl fmt::Debug for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opt").field(&self.name).finish()
    }
}

/// Rows have unique names.
impl PartialEq for Opt {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Opt {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_option() {
        for option in TABLE {
            let others = || TABLE.iter().filter(|other| *other != option);
            assert!(others().all(|other| other.short.is_none() || other.short != option.short), "{option:?}");
            for key in option.keys() {
                assert!(others().all(|other| other.keys().all(|k| k != key)), "{key}");
                assert_eq!(Opt::find(&key), Some(option));
            }
        }
        assert_eq!(TABLE.iter().filter(|option| option.kind == Kind::Positional).count(), 1);
    }

    #[test]
    fn every_row_is_whole() {
        for option in TABLE {
            assert!(option.help.ends_with('.') && !option.help.contains("  "), "{option:?}");
            assert_eq!(option.value.is_empty(), matches!(option.kind, Kind::Flag | Kind::Switch), "{option:?}");
            assert_eq!(option.set.is_none(), !option.sources.file(), "{option:?}: what the file gives is a setting");
            assert!(option.kind != Kind::Switch || option.sources == Sources::CommandLine, "{option:?}");
            assert!(option.separator.is_none() || option.kind == Kind::List, "{option:?}");
            assert!(option.bare.is_none() || option.kind == Kind::Text, "{option:?}");
            assert!(Section::ALL.contains(&option.section), "{option:?}");
        }
    }

    #[test]
    fn names_are_found_with_dashes_and_underscores() {
        let field_size = Opt::find("limit-request-field_size").unwrap();
        assert_eq!(Opt::find("limit_request_field_size"), Some(field_size));
        assert_eq!(field_size.variable(), "TAPSTER_LIMIT_REQUEST_FIELD_SIZE");
        assert_eq!(Opt::find("log-file"), Opt::find("error_logfile"));
        assert_eq!(Opt::find("Bind"), None);
    }

    #[test]
    fn a_misspelt_name_is_recognized_and_nonsense_is_not() {
        let similar = |name| Opt::similar(name, |_| true).map(|option| option.name);
        assert_eq!(similar("wrokers"), Some("workers"));
        assert_eq!(similar("keepalive"), Some("keep-alive"));
        assert_eq!(similar("ERROR_LOG"), Some("error-logfile"));
        assert_eq!(similar("zzz"), None);
        assert_eq!(Opt::similar("wrokers", |option| option.name != "workers"), None);
    }
}
